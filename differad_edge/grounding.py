"""The question that a grounding model is asked, and the grammar of its answer: one definition for all that use one.

The teacher thinks first::

    <think>The lower edge is chipped.</think><answer>(120,300),(245,388)</answer>

The student answers first, with a verdict before the box, and describes afterwards::

    <answer>NG(120,300),(245,388)</answer><think>The lower edge is chipped.</think>

Coordinates are integers from 0 to 1000 along either side of the target image, a box is its upper left and lower right
corner, and ``(0,0),(0,0)`` says that there is no anomaly. The parser takes both orders, and ``[x1,y1,x2,y2]`` for a
box. Whatever else is a fault with a reason; it never reads as "no anomaly". A real box may have words or further boxes
beside it, the first one counts; "no anomaly" lets a part pass, and is believed only when it is all that is answered.
"""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypedDict

from differad_edge.errors import AnswerError, BoxError
from differad_edge.geometry import GRID, from_grid
from differad_edge.results import Box, Verdict

__all__ = [
    "BASELINE_PROMPT",
    "EVALUATION_PROMPT",
    "MAX_ANSWER_CHARS",
    "PROMPT_VERSION",
    "TRAINING_PROMPTS",
    "Answer",
    "AnswerFault",
    "GridBox",
    "Message",
    "format_answer",
    "format_ok",
    "format_student_answer",
    "messages",
    "parse_answer",
    "training_prompt",
]

GridBox = tuple[int, int, int, int]
"""x1, y1, x2, y2 in steps of 0 to 1000 along the sides of the target."""

PROMPT_VERSION = "1"
"""Names the texts below, all together: a model is asked with the version that it was trained with."""

MAX_ANSWER_CHARS = 20_000
"""Longer answers are refused unread; 256 new tokens are about a thousand characters."""

_BOX_RULE = "(x1,y1),(x2,y2) with integers from 0 to 1000"
EVALUATION_PROMPT = (
    "The first image is a good reference, the second is the target. Compare them, describe the target and explain "
    f"where it differs inside <think></think>. Then give the box of the difference as {_BOX_RULE} inside "
    "<answer></answer>, or (0,0),(0,0) if nothing differs."
)
BASELINE_PROMPT = (
    "You are an industrial visual inspector. You are given two images of the same product. The first is the reference "
    "and shows a good part. The second is the target and may have one defect. Small changes of light, position and "
    "noise are no defects. First reason about what differs, inside <think> and </think>. Then write the answer inside "
    "<answer> and </answer>, and nothing else: the box around the defect in the target as (x1,y1),(x2,y2), where x "
    "runs from 0 at the left edge to 1000 at the right edge, y from 0 at the top to 1000 at the bottom, (x1,y1) is the "
    "upper left and (x2,y2) the lower right corner, all integers. If there is no defect, answer (0,0),(0,0). Example: "
    "<think>The pin at the lower left is bent.</think><answer>(105,640),(198,790)</answer>"
)
TRAINING_PROMPTS = tuple(
    f"{opening} {thinking} {answering}"
    for opening, thinking, answering in (
        (
            "Here are a good reference and then a target.",
            "Say inside <think></think> how the target differs.",
            f"Put its box as {_BOX_RULE} inside <answer></answer>; (0,0),(0,0) means no difference.",
        ),
        (
            "Image one is the golden sample, image two is the part under test.",
            "Reason inside <think></think> about every change.",
            f"Answer inside <answer></answer> with {_BOX_RULE}, or (0,0),(0,0) for a good part.",
        ),
        (
            "Inspect the second image against the first, which is normal.",
            "Explain what you see inside <think></think>.",
            f"Locate the anomaly inside <answer></answer> as {_BOX_RULE}; use (0,0),(0,0) when there is none.",
        ),
        (
            "A normal reference comes first, the image to check second.",
            "Think aloud inside <think></think> about where they disagree.",
            f"Report one box inside <answer></answer>, {_BOX_RULE}, and (0,0),(0,0) if they agree.",
        ),
        (
            "Find the defect of the second image; the first shows the same product without one.",
            "Describe it inside <think></think>.",
            f"Write its corners inside <answer></answer> as {_BOX_RULE}. Without a defect write (0,0),(0,0).",
        ),
        (
            "Compare reference (first) and target (second).",
            "Put your reasoning between <think> and </think>.",
            f"Put the differing region between <answer> and </answer> as {_BOX_RULE}; no difference is (0,0),(0,0).",
        ),
        (
            "You see a reference image, then a target image of the same product.",
            "Inside <think></think>, describe the target and what is wrong with it.",
            f"Inside <answer></answer>, box it as {_BOX_RULE}, or give (0,0),(0,0) if all is well.",
        ),
        (
            "Look for what changed between the first image and the second.",
            "Note your observations inside <think></think>.",
            f"Then box the change inside <answer></answer>: {_BOX_RULE}, or (0,0),(0,0) if nothing changed.",
        ),
        (
            "The second photograph may show a flaw that the first one does not have.",
            "Discuss it inside <think></think>.",
            f"Mark it inside <answer></answer> by {_BOX_RULE}; (0,0),(0,0) says there is no flaw.",
        ),
        (
            "Check the target, which is the second image, against the reference, which is the first.",
            "Give your analysis inside <think></think>.",
            f"Give the anomalous box inside <answer></answer> as {_BOX_RULE}, (0,0),(0,0) for none.",
        ),
        (
            "Two views of one product: the first is known to be good.",
            "Explain inside <think></think> how the second one deviates.",
            f"State where inside <answer></answer>, {_BOX_RULE}; if it does not deviate, (0,0),(0,0).",
        ),
        (
            "Act as a quality inspector with a reference first and a part second.",
            "Write your judgement inside <think></think>.",
            f"Write the faulty area inside <answer></answer> as {_BOX_RULE}. A part without fault is (0,0),(0,0).",
        ),
        (
            "Using the first image as the standard, examine the second.",
            "List the deviations inside <think></think>.",
            f"Enclose the largest one inside <answer></answer>: {_BOX_RULE}, or (0,0),(0,0) if you find none.",
        ),
        (
            "Decide whether the second image matches the first, normal one.",
            "Justify it inside <think></think>.",
            f"Where it does not, box the place inside <answer></answer> as {_BOX_RULE}; where it does, (0,0),(0,0).",
        ),
        (
            "Here is how the product should look, and here is how this part looks.",
            "Compare both inside <think></think>.",
            f"Point at the difference inside <answer></answer> with {_BOX_RULE}, or (0,0),(0,0) for no difference.",
        ),
        (
            "Given a defect-free reference and a target in this order, ground the difference.",
            "Your reasoning goes inside <think></think>.",
            f"Your box goes inside <answer></answer>, {_BOX_RULE}; identical images get (0,0),(0,0).",
        ),
        (
            "Study the reference, then the target.",
            "Tell inside <think></think> what is extra, missing or altered in the target.",
            f"Tell where inside <answer></answer>: {_BOX_RULE}, and (0,0),(0,0) if nothing is.",
        ),
        (
            "Is the second image still like the first?",
            "Examine it inside <think></think> and explain any difference.",
            f"Localise that difference inside <answer></answer> as {_BOX_RULE}, or answer (0,0),(0,0).",
        ),
        (
            "The camera saw the second image; the first is the registered sample.",
            "Inside <think></think>, explain which region is not as registered.",
            f"Inside <answer></answer>, give that region as {_BOX_RULE}; give (0,0),(0,0) if every region is.",
        ),
        (
            "Spot the anomaly in the latter image with the former as the normal example.",
            "Reason step by step inside <think></think>.",
            f"Finish with its box inside <answer></answer>, {_BOX_RULE}, or with (0,0),(0,0) if it is normal.",
        ),
    )
)


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


_NUMBER = r"([^,()\[\]<>]*)"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
_BOX = re.compile(rf"{_PAIR}\s*(?:,\s*)?{_PAIR}|\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_SAYS_OK = re.compile(r"\s*OK\b", re.IGNORECASE)
_TRIMMINGS = string.whitespace + ".,:;()[]"  # harmless around a zero box: [(0,0),(0,0)].
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
    if box is None and "<answer>" in text[end:]:
        # Often the format, quoted in the thought, before the answer proper.
        raise _fault(AnswerFault.CONTRADICTION, "got no anomaly and another <answer> after it, allowed: one answer")
    before = _thought(text[:start])
    return Answer(box, _thought(text[end:]) if before is None else before, before is not None)


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


def format_answer(box: GridBox | None, thought: str) -> str:
    """An answer in the teacher's order; ``box`` on the 0-1000 grid, None for no anomaly; ``thought`` is stripped.

    Raises BoxError for a box that `parse_answer` would refuse, AnswerError for a thought that holds a tag or is longer
    than half of MAX_ANSWER_CHARS.
    """
    return f"<think>{_checked_thought(thought)}</think><answer>{_written(box)}</answer>"


def format_student_answer(box: GridBox | None, description: str | None = None) -> str:
    """An answer in the student's order: verdict, box where there is one, then the description.

    Raises as `format_answer` does.
    """
    inside = Verdict.OK.value if box is None else f"{Verdict.NG.value}{_written(box)}"
    after = "" if description is None else f"<think>{_checked_thought(description)}</think>"
    return f"<answer>{inside}</answer>{after}"


def _read(inside: str) -> GridBox | None:
    found = _BOX.search(inside)
    if found is None:
        if inside.strip() == Verdict.OK.value:
            return None
        raise _fault(AnswerFault.NO_BOX, f"got {inside[:80]!r}, allowed: {_BOX_RULE}")
    box = _checked_box(_numbers(found))
    beside = f"{inside[: found.start()]} {inside[found.end() :]}".strip(_TRIMMINGS)
    if box is None and beside not in ("", Verdict.OK.value):
        raise _fault(AnswerFault.CONTRADICTION, f"got the zero box beside {beside[:80]!r}, allowed: OK or nothing")
    if box is not None and _SAYS_OK.match(inside):
        raise _fault(AnswerFault.CONTRADICTION, f"got OK with the box {found[0][:80]!r}, allowed: NG or nothing")
    return box


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


def _checked_thought(thought: str) -> str:
    if not isinstance(thought, str):
        raise _fault(AnswerFault.NOT_TEXT, f"a thought of type {type(thought).__name__}, allowed: a text")
    if len(thought) > MAX_ANSWER_CHARS // 2:
        raise _fault(AnswerFault.TOO_LONG, f"a thought of {len(thought)} characters, allowed: {MAX_ANSWER_CHARS // 2}")
    if any(tag in thought for tag in _TAGS):
        raise _fault(AnswerFault.TAG_IN_THOUGHT, f"the thought {thought[:80]!r}, allowed: a text without tags")
    return thought.strip()


def _fault(reason: AnswerFault, message: str) -> AnswerError:
    return AnswerError(f"answer: {message}", reason.value)
