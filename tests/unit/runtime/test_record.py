"""The record of one part: to JSON and back, without loss and without trust."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_fakes import answer

from differad_edge.errors import ResultError
from differad_edge.results import Verdict
from differad_edge.runtime.record import RESULT_PREFIX, ResultRecord

TEXT = st.text(max_size=20)


@st.composite
def records(draw: st.DrawFn) -> ResultRecord:
    verdict = draw(st.sampled_from(Verdict))
    reason = None if verdict in (Verdict.OK, Verdict.NG) else "deadline"
    ranges = st.lists(st.tuples(st.integers(0, 9), st.integers(10, 99)), min_size=1, max_size=3).map(tuple)
    return ResultRecord(
        sequence=draw(st.integers(1, 2**53)),
        session=draw(TEXT),
        trigger_id=draw(TEXT),
        trigger=draw(st.sampled_from(["free", "rate", "request", "image"])),
        station=draw(TEXT),
        result=answer(draw(TEXT), verdict, reason),
        captured_utc="2026-01-01T00:00:00.000000Z",
        captured_ns=draw(st.integers(0, 2**62)),
        engine_sha256="e" * 64,
        part_id=draw(st.none() | TEXT),
        job_id=draw(st.none() | TEXT),
        camera=draw(st.none() | TEXT),
        frame_sequence=draw(st.none() | st.integers(0, 2**40)),
        image_fingerprint=draw(st.none() | TEXT),
        is_simulated=draw(st.booleans()),
        journaled=draw(st.booleans()),
        dropped=draw(st.dictionaries(st.sampled_from(["busy", "frozen"]), ranges)),
    )


@given(records())
def test_there_and_back(record: ResultRecord) -> None:
    text = record.to_json()
    assert text.startswith(RESULT_PREFIX)
    assert b"\n" not in text
    assert ResultRecord.from_json(text) == record


def test_a_lone_surrogate_does_not_break_the_wire() -> None:
    record = ResultRecord("1", "s", "\ud800", "free", "m", answer("p"), "t", 1, "e")  # type: ignore[arg-type]
    record.to_json().decode("utf-8")


def plain() -> dict[str, Any]:
    record = ResultRecord(7, "s", "t", "free", "main", answer("p"), "2026-01-01T00:00:00.000000Z", 1, "e" * 64)
    return json.loads(record.to_json())  # type: ignore[no-any-return]


@pytest.mark.parametrize("field", sorted(set(plain()) - {"type", "detail", "notes"}))  # remarks may be missing
def test_a_missing_field_is_an_error(field: str) -> None:
    data = plain()
    del data[field]
    with pytest.raises(ResultError):
        ResultRecord.from_dict(data)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"schema_version": "1"},
        {"verdict": "GOOD"},
        {"verdict": "OK", "reason": "deadline"},
        {"findings": [{"box": [3, 3, 1, 1], "score": 0.5, "description": None}]},
        {"dropped": {"busy": 3}},
        {"dropped": None},
        {"timings": {"total": 3}},
    ],
)
def test_what_contradicts_itself_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ResultError):
        ResultRecord.from_dict({**plain(), **change})


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff\xfe", b'{"type":', b"[" * 100_000])
def test_what_is_no_record_is_an_error(text: bytes) -> None:
    with pytest.raises(ResultError):
        ResultRecord.from_json(text)
