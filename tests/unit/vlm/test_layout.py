"""The question's constants are those of transformers; the grammar's tokens those of the tokenizer."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("transformers")

import torch
from students import GRAMMAR, IMAGE, question, student

from differad_edge.engines.vlm.grammar import BoxWriter, answer_tokens
from differad_edge.engines.vlm.layout import WorkingSize
from differad_edge.engines.vlm.questions import question_of
from differad_edge.errors import ConfigError, ModelIntegrityError
from differad_edge.grounding import format_student_answer, parse_answer, student_messages
from training.tiny.student import student_processor


@pytest.mark.parametrize("side_px", [64, 640, 800, 1024])
def test_positions_are_those_of_transformers(side_px: int) -> None:
    layout = question(side_px)
    ids = torch.tensor([layout.token_ids(IMAGE)])
    grid = torch.tensor([[1, layout.size.patch_rows, layout.size.patch_columns]] * 2)
    right, delta = student().model.get_rope_index(ids, (ids == IMAGE).int(), image_grid_thw=grid)
    assert layout.positions.tolist() == right[:, 0].tolist()
    assert layout.position_delta == int(delta)
    assert layout.length == ids.shape[1] == layout.prefix_length + layout.tail_length


def test_a_size_of_no_whole_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="width_px: got 810, allowed: a multiple of 32"):
        WorkingSize(810, 800)
    assert WorkingSize().tokens == 625


def test_the_question_is_what_the_processor_would_ask() -> None:
    import numpy as np
    from PIL import Image

    processor = student_processor()
    asked = question_of(processor, WorkingSize(128, 96, patch_px=8), order="student", max_new_tokens=32)
    picture = Image.fromarray(np.zeros((96, 128, 3), np.uint8))
    text = processor.apply_chat_template(student_messages(), add_generation_prompt=True) + "<answer>"
    ids = processor(images=[[picture, picture]], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    assert asked.layout.token_ids(asked.image_token) == ids


@pytest.mark.parametrize("order", ["student", "trained"])
def test_every_answer_of_the_grammar_can_be_parsed(order: str) -> None:
    processor = student_processor()
    asked = question_of(processor, WorkingSize(128, 128, patch_px=8), order=order, max_new_tokens=32)  # type: ignore[arg-type]
    grammar, draw = asked.grammar, random.Random(0)
    lead = (*grammar.opening, *grammar.verdicts[1:])
    for _ in range(500):
        writer = BoxWriter(grammar, zero_box=order == "trained")
        while writer.choices:
            writer.take(draw.choice(writer.choices))
        assert list(writer.tokens) == grammar.box_tokens(writer.box)  # type: ignore[arg-type]
        text = processor.tokenizer.decode([*lead, *writer.tokens]).removesuffix("<think>")
        assert parse_answer(text).box == (writer.box if any(writer.box) else None)  # type: ignore[arg-type]
        if order == "student":
            assert text == format_student_answer(writer.box)


def test_a_guess_keeps_to_the_draft_and_to_the_grammar() -> None:
    draw = random.Random(1)
    for _ in range(300):
        draft = tuple(draw.randint(0, 1000) for _ in range(4))
        writer = BoxWriter(GRAMMAR)
        for _ in range(draw.randint(0, 8)):
            writer.take(draw.choice(writer.choices))
        guess = writer.guess(draft)  # type: ignore[arg-type]
        assert guess.tokens[: len(writer.tokens)] == writer.tokens
        x1, y1, x2, y2 = guess.box  # type: ignore[misc]
        assert 0 <= x1 < x2 <= 1000
        assert 0 <= y1 < y2 <= 1000
    assert BoxWriter(GRAMMAR).guess((10, 200, 333, 1000)).box == (10, 200, 333, 1000)


@pytest.mark.parametrize(
    ("whole", "words"),
    [
        (("<answer>", "</answer>", "OK", "NG", "22"), "one token each"),
        (("<answer>", "</answer>"), "'OK' is 2 tokens"),
        (("<answer>OK", "OK", "NG", "</answer>"), "not told apart"),
    ],
)
def test_a_tokenizer_that_the_grammar_cannot_use_is_named(whole: tuple[str, ...], words: str) -> None:
    from training.tiny.model import tiny_tokenizer

    tokenizer = tiny_tokenizer(whole)
    with pytest.raises(ModelIntegrityError, match=words):
        answer_tokens(lambda text: tokenizer.encode(text, add_special_tokens=False))
