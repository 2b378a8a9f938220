"""Teacher and student in Qwen's own vocabulary: the same decisions, though their special tokens differ.

The vocabulary is the one that `dashscope` ships (151,643 entries); both families add their special tokens to it.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from differad_edge.engines.chat import Token
from differad_edge.engines.vlm.grammar import answer_tokens
from differad_edge.grounding import format_answer, format_student_answer
from distill.decisions import END, decisions_of, student_decisions

pytestmark = pytest.mark.slow  # reading the vocabulary takes half a minute

transformers = pytest.importorskip("transformers")
if importlib.util.find_spec("dashscope") is None:
    pytest.skip("dashscope, which ships Qwen's vocabulary, is not installed", allow_module_level=True)

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BOTH = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
QWEN3 = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
SHARED = 151_657
"""Ids below are the same in both families."""
BOXES = ((12, 345, 678, 1000), (0, 0, 1, 1), (7, 80, 900, 99), (123, 456, 789, 800))


def tokenizer(*more: str) -> Any:
    from transformers.convert_slow_tokenizer import TikTokenConverter

    found = importlib.util.find_spec("dashscope")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "resources" / "qwen.tiktoken"
    made = TikTokenConverter(vocab_file=str(file), pattern=PATTERN, extra_special_tokens=[]).converted()
    made.add_special_tokens(list(BOTH))
    made.add_tokens(list(more))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def teacher() -> Any:
    return tokenizer()


@pytest.fixture(scope="module")
def student() -> Any:
    return tokenizer(*QWEN3)


def said(teacher: Any, text: str) -> list[Token]:
    return [
        Token(piece, 0.0, ((piece, math.log(0.9)), ("5", math.log(0.1))))
        for piece in (teacher.decode([one]) for one in teacher.encode(text, add_special_tokens=False))
    ]


def test_the_families_share_what_they_answer_with(teacher: Any, student: Any) -> None:
    assert len(teacher) == SHARED
    assert len(student) == SHARED + len(QWEN3)
    for box in BOXES:
        inside = f"({box[0]},{box[1]}),({box[2]},{box[3]})</answer>"
        one, other = (which.encode(f"<answer>{inside}", add_special_tokens=False) for which in (teacher, student))
        assert one == other
        assert max(one) < SHARED
    thought = "<think>A chip.</think>"
    assert len(teacher.encode(thought)) > len(student.encode(thought))  # where they differ


def test_decisions_of_the_teacher_fall_on_those_of_the_student(teacher: Any, student: Any) -> None:
    start = "<|im_start|>assistant\n"
    known = student.encode(start, add_special_tokens=False)

    def encode(text: str) -> list[int]:
        ids: list[int] = student.encode(start + text, add_special_tokens=False)
        return ids[len(known) :]

    grammar = answer_tokens(encode)
    for box in BOXES:
        decisions = decisions_of(said(teacher, format_answer(box, "The lower edge is chipped.")), box)
        assert decisions is not None
        expected = [outcome for number in box for outcome in (*map(int, str(number)), END)]
        assert decisions.argmax(axis=1).tolist() == expected
        places, choices = student_decisions(grammar, box)
        written = encode(format_student_answer(box, "The lower edge is chipped."))
        answer = written[len(grammar.opening) + 1 :]
        assert [answer[place] for place in places] == [
            row[outcome] for row, outcome in zip(choices, expected, strict=True)
        ]
        assert choices.max() < SHARED
