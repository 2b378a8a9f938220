"""Results: they cannot contradict themselves, and they survive JSON, copy and pickle."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.errors import BoxError, ImageFormatError, ImageSizeError, ResultError
from differad_edge.results import (
    SCHEMA_VERSION,
    Alignment,
    Box,
    Finding,
    InspectionResult,
    Reason,
    Timings,
    Verdict,
)

TIMINGS = Timings({"decode": 1.5, "align": 20.0, "compare": 60.25}, 83.0)
STRONG, WEAK = Finding(Box(10, 20, 30, 40), 0.9, "scratch"), Finding(Box(1, 2, 3, 4), 0.4)


def result(**changes: Any) -> InspectionResult:
    fields: dict[str, Any] = {
        "verdict": Verdict.NG,
        "reason": None,
        "score": 0.9,
        "threshold": 0.5,
        "findings": (STRONG, WEAK),
        "timings": TIMINGS,
        "product": "gasket-a",
        "reference_id": "ref-001",
        "reference_sha256": "ab" * 32,
        "engine": "lite",
        "image_size": (64, 48),
        "alignment": Alignment((1.5, -2), 0.25, 1.01, 0.1, (1, 0, 1.5, 0, 1, -2)),
        "notes": ("blurred: a little",),
        "detail": None,
    }
    return InspectionResult(**{**fields, **changes})


# -- verdicts and boxes -----------------------------------------------------------------------------------------------


def test_enums_are_their_strings() -> None:
    assert [str(verdict) for verdict in Verdict] == ["OK", "NG", "UNDECIDED", "ERROR"]
    assert f"{Verdict.OK}" == "OK" == Verdict.OK  # type: ignore[comparison-overlap]
    assert Verdict("NG") is Verdict.NG
    assert f"{Reason.NONFINITE_SCORE}" == "non-finite-score"


def test_box_measures() -> None:
    box = Box(1, 2, 4, 8)
    assert (box.width, box.height, box.area, box.center) == (3.0, 6.0, 18.0, (2.5, 5.0))
    assert tuple(box) == (1.0, 2.0, 4.0, 8.0)
    assert all(isinstance(edge, float) for edge in box)


@pytest.mark.parametrize(
    "edges",
    [
        (5, 0, 1, 4),  # reversed
        (1, 1, 1, 4),  # empty
        (0, 0, math.nan, 4),
        (0, 0, math.inf, 4),
        ("a", 0, 1, 4),
        (None, 0, 1, 4),
    ],
)
def test_impossible_boxes_are_refused_with_their_values(edges: tuple[Any, ...]) -> None:
    with pytest.raises(BoxError, match=r"box: got .*allowed"):
        Box(*edges)


def test_no_way_round_the_checks_of_a_box() -> None:
    with pytest.raises(BoxError):
        Box(0, 0, 5, 5)._replace(x2=-1)
    with pytest.raises(BoxError):
        Box._make([3, 3, 1, 1])
    assert pickle.loads(pickle.dumps(Box(0, 0, 5, 5))) == Box(0, 0, 5, 5)


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf, True])
def test_finding_scores_are_shares(score: float) -> None:
    with pytest.raises(ResultError, match=r"finding.score: got .*allowed: a finite number from 0 to 1"):
        Finding(Box(0, 0, 1, 1), score)


# -- timings ----------------------------------------------------------------------------------------------------------


def test_stages_read_as_attributes_in_milliseconds() -> None:
    assert (TIMINGS.decode_ms, TIMINGS.compare_ms, TIMINGS.total_ms) == (1.5, 60.25, 83.0)
    assert list(TIMINGS.to_dict()) == ["decode_ms", "align_ms", "compare_ms", "total_ms"]
    with pytest.raises(AttributeError, match="'think_ms'; stages: decode, align, compare"):
        _ = TIMINGS.think_ms


def test_timings_cannot_be_changed_from_outside() -> None:
    stages = {"align": 1.0}
    timings = Timings(stages, 2.0)
    stages["align"] = 99.0
    assert timings.align_ms == 1.0
    with pytest.raises(TypeError):
        timings.stages["align"] = 5.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("stages", "total_ms"),
    [({"align": -1.0}, 1.0), ({"align": math.nan}, 1.0), ({}, -1.0), ({"total": 1.0}, 1.0), ({"Bad name": 1.0}, 1.0)],
)
def test_impossible_timings_are_refused(stages: dict[str, float], total_ms: float) -> None:
    with pytest.raises(ResultError, match=r"timings.*allowed"):
        Timings(stages, total_ms)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), st.floats(0, 1e6)), st.floats(0, 1e6))
def test_timings_round_trip(stages: dict[str, float], total_ms: float) -> None:
    stages.pop("total", None)
    timings = Timings(stages, total_ms)
    for other in (Timings.from_dict(timings.to_dict()), pickle.loads(pickle.dumps(timings)), copy.deepcopy(timings)):
        assert other == timings
        assert hash(other) == hash(timings)


@pytest.mark.parametrize("data", [{"align_ms": 1.0}, {"align": 1.0, "total_ms": 1.0}])
def test_malformed_timings_are_refused(data: dict[str, float]) -> None:
    with pytest.raises(ResultError, match="timings"):
        Timings.from_dict(data)


# -- alignment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"shift_px": (1, 2, 3)}, {"matrix": (1, 0, 0)}, {"angle_deg": math.nan}, {"residual": 1.5}, {"scale": math.inf}],
)
def test_impossible_alignments_are_refused(changes: dict[str, Any]) -> None:
    fields = {"shift_px": (0, 0), "angle_deg": 0, "scale": 1, "residual": 0, "matrix": (1, 0, 0, 0, 1, 0)}
    with pytest.raises(ResultError, match="alignment"):
        Alignment(**{**fields, **changes})


# -- results ----------------------------------------------------------------------------------------------------------


def test_the_strongest_box_stands_for_the_result() -> None:
    assert result().box == STRONG.box
    assert not result().is_ok
    passed = result(verdict=Verdict.OK, findings=(), score=0.1)
    assert passed.box is None
    assert passed.is_ok


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": Verdict.OK}, "findings: got 2 with the verdict OK, allowed: none"),
        ({"findings": ()}, "findings: got none with the verdict NG, allowed: at least one"),
        ({"verdict": Verdict.UNDECIDED}, "reason: got None with the verdict UNDECIDED, allowed: a code"),
        ({"verdict": Verdict.ERROR, "findings": ()}, "reason: got None with the verdict ERROR"),
        ({"reason": Reason.DEADLINE}, "reason: got 'deadline' with the verdict NG, allowed: None"),
        ({"verdict": "OK", "findings": (), "reason": "deadline"}, "reason: got 'deadline' with the verdict OK"),
        ({"verdict": "ERROR", "reason": "It broke"}, "reason: got 'It broke', allowed: a kebab-case code"),
        ({"verdict": "GOOD"}, "verdict: got 'GOOD', allowed: OK, NG, UNDECIDED, ERROR"),
        ({"score": math.nan}, "score: got nan, allowed: a finite number from 0 to 1"),
        ({"score": 1.2}, "score: got 1.2"),
        ({"threshold": -1}, "threshold: got -1"),
        ({"findings": (WEAK, STRONG)}, "allowed: strongest first"),
        ({"schema_version": 2}, "schema_version: got 2, allowed: 1"),
    ],
)
def test_a_result_cannot_contradict_itself(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ResultError) as caught:
        result(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("verdict", [Verdict.UNDECIDED, Verdict.ERROR])
@pytest.mark.parametrize("reason", [*Reason, "plugin-code"])
def test_failures_carry_a_reason_and_never_pass(verdict: Verdict, reason: str) -> None:
    failed = result(verdict=verdict, reason=reason, findings=(), score=0.0)
    assert type(failed.reason) is str
    assert not failed.is_ok


@pytest.mark.parametrize("alignment", [None, Alignment((0, 0), 0, 1, 0, (1, 0, 0, 0, 1, 0))])
def test_round_trip_through_json_copy_and_pickle(alignment: Alignment | None) -> None:
    first = result(alignment=alignment)
    assert InspectionResult.from_dict(json.loads(first.to_json())) == first
    assert InspectionResult.from_dict(json.loads(first.to_json(indent=2))) == first
    assert pickle.loads(pickle.dumps(first)) == first
    assert copy.deepcopy(first) == first
    assert hash(InspectionResult.from_dict(first.to_dict())) == hash(first)


def test_every_field_is_in_the_dictionary() -> None:
    data = result().to_dict()
    assert set(data) == {field.name for field in dataclasses.fields(InspectionResult)}
    assert data["schema_version"] == SCHEMA_VERSION
    assert type(data["verdict"]) is str


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_schema_versions_are_refused(version: object) -> None:
    with pytest.raises(ResultError, match=r"schema_version: got .*, allowed: 1"):
        InspectionResult.from_dict({**result().to_dict(), "schema_version": version})


@pytest.mark.parametrize(
    "changes",
    [
        {"findings": [{"box": [5, 5, 1, 1], "score": 0.5, "description": None}]},  # a reversed box
        {"findings": [{"box": [1, 2, 3], "score": 0.5, "description": None}]},
        {"findings": [{"score": 0.5}]},
        {"findings": None},
        {"timings": "fast"},
        {"alignment": {"shift_px": [0, 0]}},
        {"image_size": [1]},
        {"extra": 1},
        {"score": None},
    ],
)
def test_malformed_records_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ResultError):
        InspectionResult.from_dict({**result().to_dict(), **changes})


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(InspectionResult)])
def test_no_field_may_be_missing_or_it_has_a_safe_default(field: str) -> None:
    data = result().to_dict()
    del data[field]
    if field in ("notes", "detail"):
        assert InspectionResult.from_dict(data).verdict is Verdict.NG
    else:
        with pytest.raises(ResultError):
            InspectionResult.from_dict(data)


# -- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64), (48, 64, 1)])
def test_draw_returns_a_new_colour_image_with_the_boxes_on_it(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 100, np.uint8)
    image.setflags(write=False)
    drawn = result().draw(image)
    assert drawn.shape == (48, 64, 3)
    assert drawn.dtype == np.uint8
    assert (image == 100).all()
    assert tuple(drawn[30, 10]) == (60, 60, 255)  # the left edge of the strong box
    assert tuple(drawn[30, 29]) == (60, 60, 255)  # its right edge: x2 is exclusive
    assert tuple(drawn[30, 20]) == (100, 100, 100)  # its inside stays visible


def test_draw_shows_a_failure_with_its_reason() -> None:
    image = np.zeros((200, 400, 3), np.uint8)
    failed = result(verdict="UNDECIDED", reason="deadline", findings=(), image_size=(0, 0))
    assert failed.draw(image).any()


def test_draw_copes_with_descriptions_that_are_not_ascii() -> None:
    finding = Finding(Box(1, 1, 9, 9), 0.5, "Kratzer über 2 mm")
    assert result(findings=(finding,)).draw(np.zeros((48, 64, 3), np.uint8)).any()


def test_draw_refuses_another_image() -> None:
    with pytest.raises(ImageSizeError, match=r"got \(width, height\) \(48, 64\), allowed: \(64, 48\)"):
        result().draw(np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ImageFormatError, match=r"got float64 of shape \(48, 64, 3\), allowed: uint8"):
        result().draw(np.zeros((48, 64, 3)))
