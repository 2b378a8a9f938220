"""How a recipe asks and what a right answer is.

A grounded difference in the teacher's or in the student's order, IAD-R1's structure, LR-IAD's yes or no.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from differad_edge.grounding import (
    EVALUATION_PROMPT,
    Message,
    checked_thought,
    format_answer,
    format_student_answer,
    messages,
    student_messages,
    training_prompt,
)
from training.rewards_iad import COLUMNS, DEFECT, GOOD, ROWS

if TYPE_CHECKING:
    from training.data import Example

STRUCTURED_PROMPT = (
    "The first image shows a good part, the second the part to inspect. Reason inside <think></think>. If the part is "
    "defective, name the place inside <location></location> and the type of defect inside <type></type>, then write "
    "<answer>Yes</answer>. If it is good, write <answer>No</answer> right after your reasoning."
)
YES_NO_PROMPT = (
    "The first image shows a good part, the second the part to inspect. Reason inside <think></think> whether the part "
    "is defective, then write <answer>Yes</answer> or <answer>No</answer>."
)
UNNAMED = "defect"
"""Type of a defect that the data set does not name."""


class AnswerFormat(NamedTuple):
    """``chat``: the question, of an example's number and a seed; ``answer``: the right one for an example."""

    chat: Callable[[int, int], list[Message]]
    answer: Callable[[Example], str]


def location_name(box: tuple[int, int, int, int]) -> str:
    """The cell of a 3x3 grid that the middle of a 0-1000 box lies in, as IAD-R1 names it: "upper left", "centre"."""
    column = min(2, (box[0] + box[2]) * 3 // 2000)
    row = min(2, (box[1] + box[3]) * 3 // 2000)
    if (row, column) == (1, 1):
        return COLUMNS[1]
    return " ".join(word for word in (ROWS[row], COLUMNS[column]) if word not in (ROWS[1], COLUMNS[1]))


def _difference(example: Example) -> str:
    return format_answer(example.box, example.thought)


def _structured(example: Example) -> str:
    thought = f"<think>{checked_thought(example.thought)}</think>"
    if example.box is None:
        return f"{thought}<answer>{GOOD}</answer>"
    place, kind = location_name(example.box), example.defect_type or UNNAMED
    return f"{thought}<location>{place}</location><type>{kind}</type><answer>{DEFECT}</answer>"


def _yes_no(example: Example) -> str:
    return (
        f"<think>{checked_thought(example.thought)}</think><answer>{GOOD if example.box is None else DEFECT}</answer>"
    )


def _student(example: Example) -> str:
    return format_student_answer(example.box, None if example.box is None else example.thought)


FORMATS = {
    "difference": AnswerFormat(lambda index, seed: messages(training_prompt(index, seed)), _difference),
    "difference-fixed": AnswerFormat(lambda index, seed: messages(EVALUATION_PROMPT), _difference),
    "student": AnswerFormat(lambda index, seed: student_messages(), _student),
    "iad-r1": AnswerFormat(lambda index, seed: messages(STRUCTURED_PROMPT), _structured),
    "lr-iad": AnswerFormat(lambda index, seed: messages(YES_NO_PROMPT), _yes_no),
}
"""By the recipe's ``data.answers``. "difference" draws one of the training prompts for each example, and so one for
each group of completions; "difference-fixed" asks with the evaluation prompt; "student" asks and answers as the engine
on the robot does, verdict first."""
