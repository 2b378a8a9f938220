"""The question that a grounding model is asked, and the grammar of its answer: one definition for all that use one.

The teacher thinks first::

    <think>The lower edge is chipped.</think><answer>(120,300),(245,388)</answer>

The student answers first, with a verdict before the box, and describes afterwards::

    <answer>NG(120,300),(245,388)</answer><think>The lower edge is chipped.</think>

Coordinates are integers from 0 to 1000 along either side of the target image, a box is its upper left and lower right
corner, and ``(0,0),(0,0)`` says that there is no anomaly. The parser takes both orders, and ``[x1,y1,x2,y2]`` for a
box. Whatever else is a fault with a reason; it never reads as "no anomaly". A real box may have words or further boxes
beside it, the first one counts; "no anomaly" lets a part pass, and is believed only when it is all that is answered:
before and after the tags stands nothing, or one whole thought.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypedDict

from differad_edge.errors import AnswerError, BoxError
from differad_edge.geometry import GRID, from_grid
from differad_edge.prompts import (
    BASELINE_PROMPT,
    BOX_RULE,
    EVALUATION_PROMPT,
    PROMPT_VERSION,
    STUDENT_PROMPT,
    TRAINING_PROMPTS,
)
from differad_edge.results import Box, Verdict

__all__ = [
    "BASELINE_PROMPT",
    "EVALUATION_PROMPT",
    "MAX_ANSWER_CHARS",
    "PROMPT_VERSION",
    "STUDENT_PROMPT",
    "TRAINING_PROMPTS",
    "Answer",
    "AnswerFault",
    "GridBox",
    "Message",
    "checked_thought",
    "format_answer",
    "format_ok",
    "format_student_answer",
    "messages",
    "parse_answer",
    "student_format_ok",
    "student_messages",
    "training_prompt",
]

GridBox = tuple[int, int, int, int]
"""x1, y1, x2, y2 in steps of 0 to 1000 along the sides of the target."""

MAX_ANSWER_CHARS = 20_000
"""Longer answers are refused unread; 256 new tokens are about a thousand characters."""


class _Image(TypedDict):
    type: Literal["image"]


class _Text(TypedDict):
    type: Literal["text"]
    text: str


class Message(TypedDict):
    """One turn of a chat, as chat templates take it."""

    role: str
    content: list[_Image | _Text]


class AnswerFault(str, Enum):
    """Why an answer cannot be used. The values are stable."""

    NOT_TEXT = "not-text"
    TOO_LONG = "too-long"
    NO_ANSWER = "no-answer"
    UNCLOSED_ANSWER = "unclosed-answer"
    NO_BOX = "no-box"
    NOT_INTEGER = "not-integer"
    OUTSIDE = "outside"
    REVERSED = "reversed"
    EMPTY_BOX = "empty-box"
    CONTRADICTION = "contradiction"
    TAG_IN_THOUGHT = "tag-in-thought"  # of texts that are written, not read


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed answer. ``box``: on the 0-1000 grid of the target, None for no anomaly.

    ``thought``: the text of the first <think> before the answer, else of the first after it, None without one;
    ``thought_first``: whether it came before the answer, as the teacher's does.
    """

    box: GridBox | None
    thought: str | None = None
    thought_first: bool = False

    @property
    def verdict(self) -> Verdict:
        """NG with a box, OK without one."""
        return Verdict.OK if self.box is None else Verdict.NG

    def box_px(self, width: int, height: int) -> Box | None:
        """The box in pixels of a target of ``width`` x ``height`` pixels, None for no anomaly.

        Raises BoxError when ``box`` is none that `parse_answer` gives, or the target has no pixels.
        """
        return None if self.box is None else from_grid(self.box, width, height)


def training_prompt(group: int, seed: int = 0) -> str:
    """The prompt of one group: all its completions must answer the same text, or their rewards cannot be compared."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return TRAINING_PROMPTS[int.from_bytes(digest[:8], "big") % len(TRAINING_PROMPTS)]


def messages(prompt: str) -> list[Message]:
    """A chat of one user turn: reference image, target image, ``prompt``. The images are filled in by the caller."""
    return [
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": prompt}]},
    ]


def student_messages() -> list[Message]:
    """The chat of the student: STUDENT_PROMPT, then reference and target image, so that what changes comes last."""
    return [
        {
            "role": "user",
            "content": [{"type": "text", "text": STUDENT_PROMPT}, {"type": "image"}, {"type": "image"}],
        }
    ]


_NUMBER = r"([^,()\[\]<>]*)"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
_BOX = re.compile(rf"{_PAIR}\s*(?:,\s*)?{_PAIR}|\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_SAYS_OK = re.compile(r"\s*OK\b", re.IGNORECASE)
_ALONE = re.compile(r"(?:OK(?:\s*[:,.;])?\s*)?(?:#|\(\s*#\s*\)|\[\s*#\s*\])(?:\s*[.,;])?")
"""What may stand around a zero box, # in its place: OK before it, brackets that close, and a stop after it."""
_END_TOKENS = re.compile(r"<\|(?:im_end|endoftext)\|>")
_INTEGER = re.compile(r"\d+", re.ASCII)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def parse_answer(text: str) -> Answer:
    """Read the first <answer> of ``text`` and the first box in it; white space and leading zeros mean nothing there.

    Raises AnswerError, whose ``reason`` is a value of AnswerFault. Runs in time linear in the length of the text.
    """
    if not isinstance(text, str):
        raise _fault(AnswerFault.NOT_TEXT, f"got {type(text).__name__}, allowed: a text")
    if len(text) > MAX_ANSWER_CHARS:
        raise _fault(AnswerFault.TOO_LONG, f"got {len(text)} characters, allowed: at most {MAX_ANSWER_CHARS}")
    start = text.find("<answer>")
    if start < 0:
        raise _fault(AnswerFault.NO_ANSWER, f"got {text[:80]!r}, allowed: a text with <answer>...</answer>")
    end = text.find("</answer>", start)
    if end < 0:
        raise _fault(AnswerFault.UNCLOSED_ANSWER, f"got {text[start : start + 80]!r}, allowed: ... </answer>")
    box = _read(text[start + len("<answer>") : end])
    ahead, behind = text[:start], text[end + len("</answer>") :]
    if box is None:
        _check_nothing_else("before", ahead)
        _check_nothing_else("after", behind)
    before = _thought(ahead)
    return Answer(box, _thought(behind) if before is None else before, before is not None)


def format_ok(text: str) -> bool:
    """Whether the whole of ``text`` is <think>...</think><answer>...</answer> with exactly one box of integers.

    The question of the format reward [paper]; the released code also lets other text stand around it, which rewards
    chatter. White space around and between the two is allowed. The box need not be a possible one: that is what the
    localisation reward is for.
    """
    if not isinstance(text, str) or len(text) > MAX_ANSWER_CHARS or any(text.count(tag) != 1 for tag in _TAGS):
        return False
    stripped = text.strip()
    thought, closed, rest = stripped.partition("</think>")
    rest = rest.lstrip()
    if not (thought.startswith("<think>") and closed and rest.startswith("<answer>") and rest.endswith("</answer>")):
        return False
    inside = rest.removeprefix("<answer>").removesuffix("</answer>")
    found = _BOX.fullmatch(inside.strip())
    return found is not None and all(_INTEGER.fullmatch(number.strip()) for number in _numbers(found))


def student_format_ok(text: str) -> bool:
    """Whether the whole of ``text`` is an answer in the student's order; the counterpart of `format_ok`.

    OK alone or with words after it, or NG with exactly one box of integers and words after it. White space counts: the
    student's grammar writes none.
    """
    if not isinstance(text, str) or len(text) > MAX_ANSWER_CHARS:
        return False
    answer, closed, words = text.removeprefix("<answer>").partition("</answer>")
    if not (text.startswith("<answer>") and closed) or (words and not _is_one_thought(words)):
        return False
    if answer == Verdict.OK.value:
        return True
    found = _BOX.fullmatch(answer.removeprefix(Verdict.NG.value))
    return (
        answer.startswith(Verdict.NG.value)
        and bool(words)
        and found is not None
        and all(_INTEGER.fullmatch(number) for number in _numbers(found))
    )


def format_answer(box: GridBox | None, thought: str) -> str:
    """An answer in the teacher's order; ``box`` on the 0-1000 grid, None for no anomaly; ``thought`` is stripped.

    Raises BoxError for a box that `parse_answer` would refuse, AnswerError for a thought that holds a tag or is longer
    than half of MAX_ANSWER_CHARS.
    """
    return f"<think>{checked_thought(thought)}</think><answer>{_written(box)}</answer>"


def format_student_answer(box: GridBox | None, description: str | None = None) -> str:
    """An answer in the student's order: verdict, box where there is one, then the description.

    Raises as `format_answer` does.
    """
    inside = Verdict.OK.value if box is None else f"{Verdict.NG.value}{_written(box)}"
    after = "" if description is None else f"<think>{checked_thought(description)}</think>"
    return f"<answer>{inside}</answer>{after}"


def _read(inside: str) -> GridBox | None:
    found = _BOX.search(inside)
    if found is None:
        if inside.strip() == Verdict.OK.value:
            return None
        raise _fault(AnswerFault.NO_BOX, f"got {inside[:80]!r}, allowed: {BOX_RULE}")
    box = _checked_box(_numbers(found))
    if box is None and not _ALONE.fullmatch(f"{inside[: found.start()]}#{inside[found.end() :]}".strip()):
        raise _fault(AnswerFault.CONTRADICTION, f"got {inside[:80]!r}, allowed: the zero box alone, or after OK")
    if box is not None and _SAYS_OK.match(inside):
        raise _fault(AnswerFault.CONTRADICTION, f"got OK with the box {found[0][:80]!r}, allowed: NG or nothing")
    return box


def _check_nothing_else(where: str, text: str) -> None:
    """Refuse "no anomaly" that a thought quotes, or that more than a thought stands beside: it often says otherwise."""
    rest = _END_TOKENS.sub("", text).strip()
    if rest and not _is_one_thought(rest):
        said = f"got no anomaly and {rest[:80]!r} {where} it, allowed: nothing, or one <think>...</think>"
        raise _fault(AnswerFault.CONTRADICTION, said)


def _is_one_thought(text: str) -> bool:
    thought = text.removeprefix("<think>").removesuffix("</think>")
    return text == f"<think>{thought}</think>" and not any(tag in thought for tag in _TAGS)


def _numbers(found: re.Match[str]) -> list[str]:
    return [number for number in found.groups() if number is not None]


def _checked_box(numbers: list[str]) -> GridBox | None:
    values = []
    for number in (text.strip() for text in numbers):
        if not _INTEGER.fullmatch(number):
            raise _fault(AnswerFault.NOT_INTEGER, f"got {number[:40]!r}, allowed: an integer from 0 to {GRID}")
        digits = number.lstrip("0") or "0"
        if len(digits) > len(str(GRID)) or int(digits) > GRID:  # the length first: int() takes long for long texts
            raise _fault(AnswerFault.OUTSIDE, f"got {number[:40]}, allowed: 0 to {GRID}")
        values.append(int(digits))
    x1, y1, x2, y2 = values
    if not any(values):
        return None
    if x2 < x1 or y2 < y1:
        raise _fault(AnswerFault.REVERSED, f"got ({x1},{y1}),({x2},{y2}), allowed: x1 < x2 and y1 < y2")
    if x2 == x1 or y2 == y1:
        raise _fault(AnswerFault.EMPTY_BOX, f"got ({x1},{y1}),({x2},{y2}), allowed: x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _thought(text: str) -> str | None:
    _, opened, rest = text.partition("<think>")
    thought, closed, _ = rest.partition("</think>")
    return thought.strip() if opened and closed else None


def _written(box: GridBox | None) -> str:
    if box is None:
        return "(0,0),(0,0)"
    try:
        from_grid(box, GRID, GRID)
    except BoxError as exc:
        raise BoxError(f"box: got {tuple(box)}, allowed: x1 < x2 and y1 < y2, integers from 0 to {GRID}") from exc
    x1, y1, x2, y2 = (int(value) for value in box)
    return f"({x1},{y1}),({x2},{y2})"


def checked_thought(thought: str) -> str:
    """``thought``, stripped. Raises AnswerError for one with a tag in it, or longer than half of MAX_ANSWER_CHARS."""
    if not isinstance(thought, str):
        raise _fault(AnswerFault.NOT_TEXT, f"a thought of type {type(thought).__name__}, allowed: a text")
    if len(thought) > MAX_ANSWER_CHARS // 2:
        raise _fault(AnswerFault.TOO_LONG, f"a thought of {len(thought)} characters, allowed: {MAX_ANSWER_CHARS // 2}")
    if any(tag in thought for tag in _TAGS):
        raise _fault(AnswerFault.TAG_IN_THOUGHT, f"the thought {thought[:80]!r}, allowed: a text without tags")
    return thought.strip()


def _fault(reason: AnswerFault, message: str) -> AnswerError:
    return AnswerError(f"answer: {message}", reason.value)
