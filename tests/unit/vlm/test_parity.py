"""When two runners are the same model: what was decided clearly must not be decided otherwise."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from differad_edge.engines.vlm.exported import VERIFIED
from differad_edge.errors import ExportError
from differad_edge.export.parity import GOLDEN, Agreement, Answers, compare_answers, read_golden, record
from differad_edge.export.ranges import RANGES, read_ranges

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


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["features", "layers", "hidden", "logits", "ng"])
@pytest.mark.parametrize("row", [0, PAIRS - 1])
def test_what_is_no_number_agrees_with_nothing(name: str, broken: float, row: int) -> None:
    """Wherever it stands: a comparison with NaN is False, and the larger of it and another is either."""
    right = answers()
    values = getattr(right, name).copy()
    values.reshape(PAIRS, -1)[row, -1] = broken
    for pair in ((right, replace(right, **{name: values})), (replace(right, **{name: values}), right)):
        found = compare_answers(*pair)
        assert not any(found.agreed(precision) for precision in ("float32", "float16", "bfloat16", "fp8", "int4"))
        assert None in found.to_dict().values()
        json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("name", [one.name for one in fields(Agreement) if one.name not in ("pairs", "verdict_flips")])
def test_every_figure_must_be_a_number(name: str) -> None:
    found = compare_answers(answers(), answers())
    assert not replace(found, **{name: np.nan}).agreed("fp8")


def test_a_box_that_moved_by_no_number_moved() -> None:
    right = answers(margin=np.nan)
    assert not compare_answers(right, with_another_box(right)).agreed("fp8")


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_torn_archives_are_named(damage: bytes, tmp_path: Path) -> None:
    for name in (GOLDEN, RANGES):
        (tmp_path / name).write_bytes(damage)
    with pytest.raises(ExportError, match=r"golden\.npz: cannot be read"):
        read_golden(SimpleNamespace(folder=tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=r"ranges\.npz: cannot be read"):
        read_ranges(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_verification_that_cannot_be_read_is_replaced(damage: bytes, tmp_path: Path) -> None:
    exported: Any = SimpleNamespace(folder=tmp_path, sha256="a" * 64)
    (tmp_path / VERIFIED).write_bytes(damage)
    for runtime in ("one", "two"):
        record(exported, runtime, "1.0", compare_answers(answers(), answers()), agreed=True)
    said = json.loads((tmp_path / VERIFIED).read_text())
    assert {name: entry["agreed"] for name, entry in said.items()} == {"one": True, "two": True}


def test_answers_about_other_pairs_are_refused() -> None:
    right = answers()
    with pytest.raises(ExportError, match="answers: tokens: got"):
        compare_answers(right, replace(right, tokens=right.tokens[:, :3]))
