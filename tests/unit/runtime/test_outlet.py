"""Numbered, journaled, then published; a full disk stops nothing and is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from line_fakes import MemoryLedger, answer, picture

from differad_edge.cameras.base import Frame
from differad_edge.images import Image
from differad_edge.results import Verdict
from differad_edge.runtime.drops import DropLedger
from differad_edge.runtime.job import Job
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.record import RESULT_PREFIX, ResultRecord


class KeepAll:
    def __init__(self) -> None:
        self.kept: list[int] = []

    def offer(self, record: ResultRecord, image: Image) -> bool:
        self.kept.append(record.sequence)
        return True


def job(identity: str, **more: Any) -> Job:
    return Job(identity, "image", "main", "p", 0, frame=Frame.now(picture(1), 0, serial=""), **more)


def messages(published: list[bytes], kind: str) -> list[dict[str, Any]]:
    return [m for m in map(json.loads, published) if m["type"] == kind]


def make(ledger: MemoryLedger | None, keeper: KeepAll | None = None) -> tuple[Outlet, list[bytes]]:
    published: list[bytes] = []

    def publish(message: bytes) -> None:
        if message.startswith(RESULT_PREFIX) and ledger is not None and not ledger.full:
            # The invariant: what is heard stands in the journal.
            assert ledger.records[-1].sequence == json.loads(message)["sequence"]
        published.append(message)

    return Outlet("s1", journal=ledger, publish=publish, metrics=Metrics(), keeper=keeper), published


def test_results_are_numbered_on_from_the_journal_and_committed_first() -> None:
    ledger, keeper = MemoryLedger(), KeepAll()
    outlet, _ = make(ledger)
    outlet.finish(job("1"), answer("p"), "e" * 64)
    outlet, published = make(ledger, keeper)  # a restart
    heard: list[ResultRecord] = []
    record = outlet.finish(job("2", on_result=heard.append), answer("p", Verdict.NG), "e" * 64)
    assert (record.sequence, record.journaled) == (2, True)
    assert heard == [record]
    assert keeper.kept == [2]
    assert [ResultRecord.from_json(m) for m in published] == [record]
    assert published[0].startswith(RESULT_PREFIX)


def test_a_full_disk_stops_no_inspection_and_raises_an_alarm() -> None:
    ledger = MemoryLedger()
    outlet, published = make(ledger)
    outlet.finish(job("1"), answer("p"), "")
    ledger.full = True
    assert not outlet.finish(job("2"), answer("p"), "").journaled
    assert not outlet.finish(job("3"), answer("p"), "").journaled
    [alarm] = outlet.alarms.active()
    assert alarm["code"] == "journal-failed"
    assert "the disk is full" in alarm["message"]
    ledger.full = False
    assert outlet.finish(job("4"), answer("p"), "").journaled
    assert outlet.alarms.active() == []
    assert [r.sequence for r in ledger.records] == [1, 4]
    assert [(m["sequence"], m["journaled"]) for m in messages(published, "result")] == [
        (1, True),
        (2, False),
        (3, False),
        (4, True),
    ]
    assert [m["code"] for m in messages(published, "event")] == ["journal-failed", "journal-failed"]


def test_without_a_journal_results_say_so() -> None:
    outlet, published = make(None)
    assert not outlet.finish(job("1"), answer("p"), "").journaled
    assert outlet.alarms.active() == []
    assert messages(published, "result")[0]["journaled"] is False


def test_a_late_result_is_tagged_and_has_no_number_of_its_own() -> None:
    ledger = MemoryLedger()
    outlet, published = make(ledger)
    late = job("1")
    outlet.finish(late, answer("p", Verdict.UNDECIDED, "deadline"), "")
    outlet.late(late, answer("p"), "")
    outlet.finish(job("2"), answer("p"), "")
    [message] = messages(published, "late")
    assert (message["trigger_id"], message["sequence"], message["verdict"]) == ("1", 1, "OK")
    assert [m["trigger_id"] for m in messages(published, "result")] == ["1", "2"]
    assert [r.trigger_id for r in ledger.records] == ["1", "2"]
    assert [code for kind, _, code, _ in ledger.events if kind == "late"] == ["late-result"]


def test_a_listener_that_fails_costs_nobody_a_result(caplog: pytest.LogCaptureFixture) -> None:
    outlet, published = make(MemoryLedger())
    heard: list[Mapping[str, Any]] = []

    def fails(message: Any) -> None:
        raise RuntimeError("a browser")

    outlet.subscribe(fails)
    unsubscribe = outlet.subscribe(heard.append)
    outlet.finish(job("1", on_result=fails), answer("p"), "")
    unsubscribe()
    outlet.finish(job("2"), answer("p"), "")
    assert [m["trigger_id"] for m in heard] == ["1"]
    assert len(messages(published, "result")) == 2
    assert "a browser" in caplog.text


def test_a_heartbeat_carries_the_last_number() -> None:
    outlet, published = make(MemoryLedger())
    outlet.finish(job("1"), answer("p"), "")
    outlet.heartbeat({"state": "Ready", "stations": [], "alarms": []})
    [beat] = messages(published, "heartbeat")
    assert (beat["sequence"], beat["session"], beat["state"]) == (1, "s1", "Ready")


def test_an_alarm_is_told_at_its_beginning_and_end_only() -> None:
    ledger = MemoryLedger()
    outlet, _ = make(ledger)
    for _ in range(3):
        outlet.alarms.set("camera-lost", "unplugged", station="main")
    outlet.alarms.set("camera-lost", "unplugged", station="other")
    outlet.alarms.clear("camera-lost", station="main")
    outlet.alarms.clear("camera-lost", station="main")
    assert [(kind, station) for kind, station, _, _ in ledger.events] == [
        ("alarm", "main"),
        ("alarm", "other"),
        ("alarm-over", "main"),
    ]
    assert [alarm["station"] for alarm in outlet.alarms.active()] == ["other"]


def test_drops_are_counted_for_ever_and_told_once() -> None:
    heard: list[tuple[str, int]] = []
    ledger = DropLedger(lambda cause, count: heard.append((cause, count)))
    ledger.add("busy", 1, 1)
    ledger.add("busy", 2, 4)
    ledger.add("busy", 9, 9)
    ledger.add("lost-by-camera", 5, 8)
    assert ledger.take() == {"busy": ((1, 4), (9, 9)), "lost-by-camera": ((5, 8),)}
    assert ledger.take() == {}
    ledger.add("busy", 10, 10)
    assert ledger.totals == {"busy": 6, "lost-by-camera": 4}
    assert heard == [("busy", 1), ("busy", 3), ("busy", 1), ("lost-by-camera", 4), ("busy", 1)]


def test_months_of_drops_need_no_memory() -> None:
    ledger = DropLedger()
    for number in range(10_000):
        ledger.add("not-ready", 2 * number, 2 * number)
    ranges = ledger.take()["not-ready"]
    assert len(ranges) <= 64
    assert (ranges[0][0], ranges[-1][1]) == (0, 19_998)
    assert ledger.totals == {"not-ready": 10_000}


def test_what_comes_late_before_the_result_is_out_is_told_after_it() -> None:
    outlet, published = make(MemoryLedger())
    part = job("1")
    outlet.late(part, answer("p"), "")
    assert published == []
    outlet.finish(part, answer("p", Verdict.UNDECIDED, "deadline"), "")
    assert [json.loads(m)["type"] for m in published] == ["result", "late"]
    assert json.loads(published[1])["sequence"] == 1


def test_a_verdict_that_waited_past_its_deadline_for_its_turn_is_undecided_and_late() -> None:
    ledger = MemoryLedger()
    outlet, published = make(ledger)
    record = outlet.finish(job("1", deadline_ns=1), answer("p", Verdict.NG), "")
    assert (record.verdict, record.result.reason, record.result.findings) == (Verdict.UNDECIDED, "deadline", ())
    [late] = messages(published, "late")
    assert (late["verdict"], late["sequence"]) == ("NG", 1)
    assert [r.verdict for r in ledger.records] == [Verdict.UNDECIDED]
