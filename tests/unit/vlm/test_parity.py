"""When two runners are the same model: what was decided clearly must not be decided otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from differad_edge.errors import ExportError
from differad_edge.export.parity import Answers, compare_answers

PAIRS, DIGITS = 3, 12


def answers(*, ng: float = 2.0, margin: float = 2.0) -> Answers:
    """Of a runner that is sure of all its digits but the first of the first box, which has ``margin``."""
    rng = np.random.default_rng(0)
    margins = np.full((PAIRS, 32), 3.0)
    margins[0, 0] = margin
    return Answers(
        features=rng.normal(size=(PAIRS, 5, 8)),
        layers=rng.normal(size=(PAIRS, 4, 2, 6)),
        hidden=rng.normal(size=(PAIRS, 8)),
        logits=np.tile([-1.0, 1.0], (PAIRS, 6)),  # their standard deviation is 1
        tokens=rng.integers(0, 50, (PAIRS, 12)),
        ng=np.array([ng, 3.0, -3.0]),
        boxes=np.array([[100, 100, 300, 300]] * PAIRS),
        choices=np.array([[*range(DIGITS), *[-1] * (32 - DIGITS)]] * PAIRS),
        margins=margins,
    )


def with_another_box(right: Answers) -> Answers:
    boxes, choices = right.boxes.copy(), right.choices.copy()
    boxes[0], choices[0, 0] = (700, 700, 900, 900), 99
    return replace(right, boxes=boxes, choices=choices)


def test_the_same_answers_agree() -> None:
    found = compare_answers(answers(), answers())
    assert (found.verdict_flips, found.box_iou, found.flip_margin, found.move_margin) == (0, 1.0, 0.0, 0.0)
    assert all(found.agreed(precision) for precision in ("float32", "float16", "bfloat16", "fp8", "int8", "int4"))


@pytest.mark.parametrize(("margin", "agrees"), [(0.3, True), (0.5, False)])
def test_a_box_may_move_where_two_digits_were_equally_likely(margin: float, agrees: bool) -> None:
    right = answers(margin=margin)
    found = compare_answers(right, with_another_box(right))
    assert found.box_iou == 0.0
    assert found.move_margin == pytest.approx(margin)
    assert found.agreed("bfloat16") is agrees
    assert found.agreed("fp8") is agrees
    assert not found.agreed("float32")


@pytest.mark.parametrize(("ng", "agrees"), [(0.3, True), (0.5, False)])
def test_a_verdict_may_flip_where_it_was_open(ng: float, agrees: bool) -> None:
    right = answers(ng=ng)
    other = replace(right, ng=right.ng * [-1.0, 1.0, 1.0])
    found = compare_answers(right, other)
    assert found.verdict_flips == 1
    assert found.flip_margin == pytest.approx(ng)
    assert found.agreed("bfloat16") is agrees


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-4), ("bfloat16", 0.15), ("fp8", 1.0)])
def test_logits_stay_within_the_precision(precision: str, most: float) -> None:
    right = answers()
    for share, agrees in ((0.9, True), (1.1, False)):
        other = replace(right, logits=right.logits + share * most)
        assert compare_answers(right, other).agreed(precision) is agrees


def test_answers_about_other_pairs_are_refused() -> None:
    right = answers()
    with pytest.raises(ExportError, match="answers: tokens: got"):
        compare_answers(right, replace(right, tokens=right.tokens[:, :3]))
