"""Payloads of Sparkplug B against golden bytes and an independent reader; metrics of results; the count of sessions."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_fakes import answer
from sparkplug_fakes import REBIRTH, keeps_the_rules, read

from differad_edge.errors import OutputError
from differad_edge.outputs.sparkplug import metrics as told
from differad_edge.outputs.sparkplug.births import BirthCount
from differad_edge.outputs.sparkplug.metrics import Device, captured_ms, node_metrics
from differad_edge.outputs.sparkplug.payload import DataType, Metric, decoded, encoded
from differad_edge.results import Verdict
from differad_edge.runtime.record import ResultRecord

EVERY_KIND = [
    Metric("a/ü", DataType.INT64, -5, 1700000000000),
    Metric("b", DataType.DOUBLE, 0.25, 1700000000001, historical=True),
    Metric("c", DataType.BOOLEAN, False, 1),
    Metric("d", DataType.STRING, "x é", 2),
    Metric("e", DataType.DATE_TIME, 1700000000002, 3),
    Metric("f", DataType.STRING, None, 4),
]
# What the code that protoc generates from the specification's sparkplug_b.proto says for the same (pysparkplug 0.6.1).
GOLDEN = bytes.fromhex(
    "0883d095ffbc31121a0a04612fc3bc1880d095ffbc31200458fbffffffffffffffff0112170a01621881d095ffbc31200a280169000000000000"
    "d03f12090a01631801200b7000120d0a01641802200c7a047820c3a9120e0a01651803200d5882d095ffbc3112090a01661804200c380118ff01"
)


def record(sequence: int, verdict: Verdict = Verdict.OK, **more: Any) -> dict[str, Any]:
    reason = None if verdict in (Verdict.OK, Verdict.NG) else "deadline"
    known = {"session": "s", "trigger_id": f"t:{sequence}", "trigger": "request", "station": "main", "captured_ns": 1}
    known |= {"captured_utc": "2026-01-02T03:04:05.678900Z", "engine_sha256": "e" * 64}
    return ResultRecord(sequence=sequence, result=answer("p", verdict, reason), **{**known, **more}).to_dict()


def test_the_bytes_are_those_of_generated_code() -> None:
    assert encoded(EVERY_KIND, stamp_ms=1700000000003, seq=255) == GOLDEN


def test_an_independent_reader_finds_what_was_said() -> None:
    heard = read("spBv1.0/g/NDATA/n", encoded(EVERY_KIND, stamp_ms=7, seq=0))
    assert (heard.timestamp, heard.seq) == (7, 0)
    for metric in EVERY_KIND:
        seen = heard.metrics[metric.name]
        assert (seen.value, seen.datatype, seen.timestamp) == (metric.value, int(metric.datatype), metric.stamp_ms)
        assert seen.historical == metric.historical
    assert read("spBv1.0/g/NDEATH/n", encoded([])).seq is None


def test_commands_are_read_and_what_is_none_is_refused() -> None:
    command = [Metric(REBIRTH, DataType.BOOLEAN, True, 1), Metric("x", DataType.STRING, None, 1)]
    assert decoded(encoded(command)) == {REBIRTH: True, "x": None}
    assert decoded(b"") == {}
    for body in (b"\xff", GOLDEN[:-1], b"\x12\x03\x0a\x01"):
        with pytest.raises(OutputError, match="no payload of Sparkplug B"):
            decoded(body)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    with suppress(OutputError):
        decoded(body)


@pytest.mark.parametrize(
    ("verdict", "passed", "failed"),
    [
        (Verdict.OK, True, False),
        (Verdict.NG, False, True),
        (Verdict.UNDECIDED, False, False),
        (Verdict.ERROR, False, False),
    ],
)
def test_a_result_and_neither_passed_nor_failed_without_a_verdict(verdict: Verdict, passed: bool, failed: bool) -> None:
    said = record(2**40, verdict, part_id="part \ud800")
    heard = read("spBv1.0/g/DDATA/n/main", encoded(Device().told(said, 9, historical=True)))
    assert (heard["Result/Verdict"], heard["Result/Passed"], heard["Result/Failed"]) == (verdict.value, passed, failed)
    assert (heard["Result/Sequence"], heard["Result/Findings"]) == (2**40, len(said["findings"]))
    assert heard["Result/Reason"] == ("" if passed or failed else "deadline")
    assert heard["Result/Part ID"] == "part \\ud800"  # UTF-8 has no lone surrogates
    assert (heard["Result/Job ID"], heard["Result/Product"], heard["Result/Is Simulated"]) == ("", "p", False)
    assert heard["Result/Capture Time"] == captured_ms(said) == 1767323045679
    assert all(one.historical == name.startswith("Result/") for name, one in heard.metrics.items())


def test_a_birth_names_everything_that_is_ever_said_and_holds_the_newest_result() -> None:
    device = Device()
    born = read("spBv1.0/g/DBIRTH/n/main", encoded(device.birth(5)))
    later = [*device.changed("Ready", 6), *device.told(record(7), 8, historical=False)]
    assert {one.name: int(one.datatype) for one in later} == {name: one.datatype for name, one in born.metrics.items()}
    assert (born["State"], born["Ready"], born["Result/Sequence"]) == ("Preoperational", False, None)
    assert device.changed("Ready", 9) == []
    again = device.told(record(7), 9, historical=False)
    assert not [one for one in again if one.name.startswith("Counters/")]  # it comes a second time and counts once
    device.told(record(6, Verdict.NG), 9, historical=True)  # an older one
    born = read("spBv1.0/g/DBIRTH/n/main", encoded(device.birth(10)))
    assert (born["Result/Sequence"], born["Ready"], born["Counters/Results"]) == (7, True, 1)
    assert born.metrics["Result/Sequence"].timestamp == captured_ms(record(7))


def test_the_node_tells_alarms_and_is_not_ready_before_it_knows() -> None:
    assert [one.value for one in node_metrics({}, 1)] == ["Preoperational", False, ""]
    pulse = {"state": "Ready", "ready": True, "alarms": [{"code": "a"}, {"code": "b"}]}
    assert [one.value for one in node_metrics(pulse, 1)] == ["Ready", True, "a, b"]
    assert told.REBIRTH == REBIRTH


def test_the_count_of_sessions_wraps_and_survives(tmp_path: Path) -> None:
    file = tmp_path / "outputs" / "sparkplug.bdseq"
    assert [BirthCount(file).next() for _ in range(258)] == [*range(256), 0, 1]
    unkept = BirthCount(None)
    assert [unkept.next() for _ in range(257)] == [*range(256), 0]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"bdSeq": 256}', '{"bdSeq": true}', '{"bdSeq": "1"}', "[" * 4000])
def test_a_damaged_count_is_begun_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "n.bdseq"
    file.write_text(damage)
    assert BirthCount(file).next() == 0
    assert "cannot be read" in caplog.text
    assert BirthCount(file).next() == 1


def test_a_count_that_cannot_be_kept_goes_on_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "outputs").write_text("a file, where the folder should be")
    count = BirthCount(tmp_path / "outputs" / "n.bdseq")
    assert [count.next(), count.next()] == [0, 1]
    assert "cannot be written" in caplog.text


def test_the_rules_that_the_integration_tests_hold_the_node_to_can_fail() -> None:
    session = Metric("bdSeq", DataType.INT64, 3, 1)
    birth = read(
        "spBv1.0/g/NBIRTH/n", encoded([session, Metric(REBIRTH, DataType.BOOLEAN, False, 1)], stamp_ms=1, seq=0)
    )
    device = read("spBv1.0/g/DBIRTH/n/d", encoded([Metric("x", DataType.INT64, 1, 1)], stamp_ms=1, seq=1))
    data = read("spBv1.0/g/DDATA/n/d", encoded([Metric("x", DataType.INT64, 2, 1)], stamp_ms=1, seq=2))
    death = read("spBv1.0/g/NDEATH/n", encoded([session]), qos=1)
    keeps_the_rules([birth, device, data, death])
    other = read("spBv1.0/g/NDEATH/n", encoded([Metric("bdSeq", DataType.INT64, 2, 1)]), qos=1)
    unknown = read("spBv1.0/g/DDATA/n/d", encoded([Metric("y", DataType.INT64, 2, 1)], stamp_ms=1, seq=2))
    numbered = read("spBv1.0/g/NDEATH/n", encoded([session], seq=3), qos=1)
    for wrong in ([data], [birth, data], [birth, device, data, data], [birth, device, other], [birth, device, unknown]):
        with pytest.raises((AssertionError, KeyError)):
            keeps_the_rules(wrong)
    with pytest.raises(AssertionError):
        keeps_the_rules([birth, numbered])
