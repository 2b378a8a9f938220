"""Where every result leaves: numbered, into the journal, and only then to whoever listens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from differad_edge.cameras.base import utc_now
from differad_edge.errors import JournalError
from differad_edge.images import Image
from differad_edge.results import SCHEMA_VERSION, InspectionResult, Verdict
from differad_edge.runtime.alarms import Alarm, Alarms
from differad_edge.runtime.job import Fault, Job
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.record import ResultRecord, to_json_bytes
from differad_edge.runtime.service import Unsubscribe
from differad_edge.runtime.states import State

__all__ = ["JOURNAL_ALARM", "Keeper", "Ledger", "Listener", "Outlet"]

_log = logging.getLogger(__name__)

JOURNAL_ALARM = "journal-failed"

Listener = Callable[[Mapping[str, Any]], None]


class Ledger(Protocol):
    """What the outlet needs of a journal."""

    @property
    def last_sequence(self) -> int:
        """Of the newest result, 0 without one."""
        ...

    def append(self, record: ResultRecord, text: bytes) -> None:
        """Commit; ``text`` is the record's JSON. Raises JournalError, and then records the gap as soon as it can."""
        ...

    def append_event(self, kind: str, station: str | None, code: str, detail: Mapping[str, Any]) -> None:
        """Commit. Raises JournalError."""
        ...


class Keeper(Protocol):
    """What keeps the images of results."""

    def offer(self, record: ResultRecord, image: Image) -> bool:
        """Take it if it is one to be kept and there is room; returns at once."""
        ...


class Outlet:
    """Gives each result its number, its place in the journal and its subscribers, in this order and one at a time.

    A journal that cannot be written (a full disk) stops no inspection: the results say ``journaled`` false, and an
    alarm is raised until it can. ``publish`` takes one message.
    """

    def __init__(
        self,
        session: str,
        *,
        journal: Ledger | None,
        publish: Callable[[bytes], None],
        metrics: Metrics,
        keeper: Keeper | None = None,
    ) -> None:
        self.session = session
        self.alarms = Alarms(self._alarm_changed)
        self._journal = journal
        self._publish = publish
        self._metrics = metrics
        self._keeper = keeper
        self._sequence = 0 if journal is None else journal.last_sequence
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.RLock()  # an alarm may be raised while a result is written

    @property
    def last_sequence(self) -> int:
        """Of the newest result."""
        return self._sequence

    def finish(self, job: Job, result: InspectionResult, engine_sha256: str) -> ResultRecord:
        """The one result of ``job``, which the caller has claimed.

        A verdict whose deadline passed while it waited for its turn here becomes UNDECIDED, and goes out as late. The
        time that the journal takes for this very result is not the part's.
        """
        with self._lock:
            overdue = job.overdue(time.monotonic_ns())
            if overdue is not None and result.verdict in (Verdict.OK, Verdict.NG):
                job.late, result = result, _undecided(result, overdue)
            record, text = self._journaled(self._record(job, result, engine_sha256, self._sequence + 1))
            self._sequence = job.sequence = record.sequence
            self._publish(text)
            if self._listeners:
                self._tell(record.to_dict())
            if job.late is not None:
                self._tell_late(job, job.late, engine_sha256)
        self._metrics.result(record, (time.monotonic_ns() - job.since_ns) / 1e9)
        if job.on_result is not None:
            _guarded(job.on_result, record)
        if self._keeper is not None and job.frame is not None:
            self._keeper.offer(record, job.frame.image)
        return record

    def late(self, job: Job, result: InspectionResult, engine_sha256: str) -> None:
        """A comparison ended after its deadline: told as "late" after the result that was given, under its number."""
        with self._lock:
            if job.sequence == 0:
                job.late = result
            else:
                self._tell_late(job, result, engine_sha256)

    def event(self, kind: str, station: str | None, code: str, detail: Mapping[str, Any]) -> None:
        """Something worth keeping that is no result."""
        message: dict[str, Any] = {
            "type": "event",
            "schema_version": SCHEMA_VERSION,
            "session": self.session,
            "utc": utc_now(),
            "kind": kind,
            "station": station,
            "code": code,
            "detail": dict(detail),
        }
        level = logging.WARNING if kind == "alarm" or code == State.ERROR.value else logging.INFO
        _log.log(level, "%s %s", kind, code, extra={"fields": {"station": station, **message["detail"]}})
        self._send(message)
        self._note(kind, station, code, detail)

    def heartbeat(self, status: Mapping[str, Any]) -> None:
        """The server lives: its state, and the last sequence number, so that a lost last result is noticed too."""
        with self._lock:
            self._send(
                {
                    "type": "heartbeat",
                    "schema_version": SCHEMA_VERSION,
                    "session": self.session,
                    "utc": utc_now(),
                    "sequence": self._sequence,
                    **status,
                }
            )

    def subscribe(self, listener: Listener) -> Unsubscribe:
        """Call ``listener`` with every message; it must return at once."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return unsubscribe

    # -- inside -------------------------------------------------------------------------------------------------------

    def _record(self, job: Job, result: InspectionResult, engine_sha256: str, sequence: int) -> ResultRecord:
        frame = job.frame
        return ResultRecord(
            sequence=sequence,
            session=self.session,
            trigger_id=job.trigger_id,
            trigger=job.trigger,
            station=job.station,
            result=result,
            captured_utc=utc_now() if frame is None else frame.captured_utc,
            captured_ns=job.since_ns if frame is None else frame.captured_ns,
            engine_sha256=engine_sha256,
            part_id=job.part_id,
            job_id=job.job_id,
            camera=job.camera,
            frame_sequence=_frame_sequence(job),
            image_fingerprint=job.image_fingerprint,
            is_simulated=job.is_simulated,
            dropped=job.dropped,
        )

    def _tell_late(self, job: Job, result: InspectionResult, engine_sha256: str) -> None:
        self._metrics.late()
        message = self._record(job, result, engine_sha256, job.sequence).to_dict("late")
        self._send(message)
        self._note("late", job.station, "late-result", message)

    def _journaled(self, record: ResultRecord) -> tuple[ResultRecord, bytes]:
        """The record as it stands, and its JSON."""
        if self._journal is not None:
            text = record.to_json()
            try:
                self._journal.append(record, text)
            except JournalError as error:
                self.alarms.set(JOURNAL_ALARM, str(error))
            else:
                self.alarms.clear(JOURNAL_ALARM)
                return record, text
        record = replace(record, journaled=False)
        return record, record.to_json()

    def _alarm_changed(self, alarm: Alarm, raised: bool) -> None:
        self._metrics.alarm(alarm.code, raised)
        kind = "alarm" if raised else "alarm-over"
        self.event(kind, alarm.station, alarm.code, {"message": alarm.message, "since_utc": alarm.since_utc})

    def _note(self, kind: str, station: str | None, code: str, detail: Mapping[str, Any]) -> None:
        if self._journal is None:
            return
        try:
            self._journal.append_event(kind, station, code, detail)
        except JournalError as error:
            _log.warning("the journal does not take the event %s: %s", code, error)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._publish(to_json_bytes(message))
        self._tell(message)

    def _tell(self, message: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            _guarded(listener, message)


def _undecided(result: InspectionResult, fault: Fault) -> InspectionResult:
    return replace(
        result,
        verdict=fault.verdict,
        reason=fault.reason.value,
        detail=fault.detail,
        findings=(),
        score=0.0,
        threshold=None,
    )


def _frame_sequence(job: Job) -> int | None:
    if job.frame is None:
        return job.torn_sequence
    return None if job.camera is None else job.frame.sequence  # an image that a client brought has no number


def _guarded(listener: Callable[[Any], None], message: Any) -> None:
    try:
        listener(message)
    except Exception:  # whoever listens must not cost the next part its result
        _log.exception("a listener failed")
