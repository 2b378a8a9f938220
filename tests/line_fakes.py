"""Scripted parts of a line: an inspector that answers what it is told to, a camera that gives what it is given."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from differad_edge.cameras.base import CameraInfo, Frame
from differad_edge.errors import CameraEndedError, CameraError, CameraTimeoutError, JournalError
from differad_edge.images import Image
from differad_edge.references.store import ReferenceStore
from differad_edge.results import Box, Finding, InspectionResult, Timings, Verdict
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.serving import Serving
from differad_edge.runtime.settings import LineSettings, StationSettings
from differad_edge.runtime.station import Station

SHA256 = "e" * 64


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image:
    """HxWx3 uint8 of noise: no two seeds look the same."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def until(condition: Callable[[], Any], limit_s: float = 5.0) -> None:
    """Wait until ``condition`` holds; fails after the limit."""
    give_up_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_s, "did not come true in time"
        time.sleep(0.002)


def answer(product: str | None, verdict: Verdict = Verdict.OK, reason: str | None = None) -> InspectionResult:
    """A result as an engine gives it."""
    findings = (Finding(Box(1, 2, 11, 12), 0.9, "scripted"),) if verdict is Verdict.NG else ()
    return InspectionResult(
        verdict=verdict,
        reason=reason,
        score=0.9 if verdict is Verdict.NG else 0.1,
        threshold=0.5,
        findings=findings,
        timings=Timings({"compare": 0.1}, 0.1),
        product=product,
        reference_id=f"{product}/ref-001",
        reference_sha256="a" * 64,
        engine="scripted",
        image_size=(64, 48),
    )


@dataclass(frozen=True)
class ScriptedEngine:
    """A name and a hash."""

    name: str = "scripted"
    fingerprint: str = SHA256


class ScriptedInspector:
    """Answers with ``script(image, product)``: a verdict, or raises, or takes its time. Counts what it saw."""

    def __init__(self, script: Callable[[Image, str], Verdict] = lambda image, product: Verdict.OK) -> None:
        self.script = script
        self.engine = ScriptedEngine()
        self.seen: list[tuple[str, float | None]] = []
        self.busy_ms = 0.0
        self.closed = False

    def inspect(
        self,
        frame: Image,
        product: str,
        deadline_ms: float | None = None,
        *,
        on_late: Callable[[InspectionResult], None] | None = None,
    ) -> InspectionResult:
        self.seen.append((product, deadline_ms))
        return answer(product, self.script(frame, product))

    def register(self, product: str, images: Sequence[Any], roi: Sequence[int] | None = None) -> Any:
        raise NotImplementedError

    def calibrate(self, product: str, good: Sequence[Any]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class ManualCamera:
    """Gives the frames and errors that `push` was called with, in order. ``live`` as in CameraInfo."""

    def __init__(self, *, live: bool = True, serial: str = "manual-1", simulated: bool = False) -> None:
        self.info = CameraInfo("manual", "manual:", serial, live, simulated)
        self.openings = 0
        self.refuse_opening: CameraError | None = None
        self._items: queue.Queue[Frame | Exception | None] = queue.Queue()
        self._sequence = 0

    def open(self) -> CameraInfo:
        self.openings += 1
        if self.refuse_opening is not None:
            raise self.refuse_opening
        return self.info

    def read(self, timeout_ms: float) -> Frame:
        try:
            item = self._items.get(timeout=timeout_ms / 1000)
        except queue.Empty:
            raise CameraTimeoutError(f"no frame within {timeout_ms:g} ms") from None
        if item is None:
            raise CameraEndedError("closed")
        if isinstance(item, Exception):
            raise item
        if not self.info.live:  # a file is captured when it is read
            return Frame.now(item.image, item.sequence, serial=item.serial)
        return item

    def close(self) -> None:
        pass

    def push(
        self,
        item: Image | Exception | None = None,
        *,
        sequence: int | None = None,
        serial: str | None = None,
        ahead_ns: int = 0,
    ) -> int:
        """One more frame (None: a new picture) or error; returns the frame's sequence number."""
        if isinstance(item, Exception):
            self._items.put(item)
            return self._sequence
        self._sequence = self._sequence + 1 if sequence is None else sequence
        image = picture(self._sequence) if item is None else item
        frame = Frame.now(image, self._sequence, serial=serial or self.info.serial)
        self._items.put(replace(frame, captured_ns=frame.captured_ns + ahead_ns))
        return self._sequence

    def end(self) -> None:
        """No more frames."""
        self._items.put(CameraEndedError("no more frames"))


@dataclass
class MemoryLedger:
    """A journal in memory that can be told to be full."""

    records: list[ResultRecord] = field(default_factory=list)
    events: list[tuple[str, str | None, str, dict[str, Any]]] = field(default_factory=list)
    full: bool = False

    @property
    def last_sequence(self) -> int:
        return self.records[-1].sequence if self.records else 0

    def append(self, record: ResultRecord, text: bytes) -> None:
        if self.full:
            raise JournalError("journal.sqlite: the disk is full")
        assert ResultRecord.from_json(text) == record
        self.records.append(record)

    def append_event(self, kind: str, station: str | None, code: str, detail: Mapping[str, Any]) -> None:
        if self.full:
            raise JournalError("journal.sqlite: the disk is full")
        self.events.append((kind, station, code, dict(detail)))


class Bench:
    """One station on a scripted inspector and camera, without sockets and without a disk journal."""

    def __init__(
        self,
        store: Path,
        *,
        inspector: ScriptedInspector | None = None,
        products: Sequence[str] = ("p",),
        own: Sequence[str] | None = None,
        load: bool = True,
        **station: Any,
    ) -> None:
        self.store = ReferenceStore(store)
        for product in products:
            self.store.register(product, [picture(7)])
        self.inspector = inspector or ScriptedInspector()
        self.camera = ManualCamera()
        self.ledger = MemoryLedger()
        self.published: list[bytes] = []
        self.metrics = Metrics()
        self.outlet = Outlet("s1", journal=self.ledger, publish=self.published.append, metrics=self.metrics)
        self.built: list[ScriptedInspector] = []
        self.serving = Serving(self._build, self.store, products, lambda inspector, product: None)
        given = {"camera": {"source": "manual:", "reconnect_min_ms": 5, "reconnect_max_ms": 20}, **station}
        settings = LineSettings.model_validate(
            {"stations": [{"product": products[0], "products": own or products, **given}]}
        )
        self.settings: StationSettings = settings.stations[0]
        self.station = Station(
            self.settings,
            None if self.settings.camera is None else lambda: self.camera,
            serving=self.serving,
            outlet=self.outlet,
            metrics=self.metrics,
            watchdog=settings.watchdog,
        )
        if load:
            self.load()

    def _build(self, engine: str | None) -> ScriptedInspector:
        self.built.append(self.inspector)
        return self.inspector

    def load(self) -> None:
        self.serving.load()
        self.station.readiness.engine_proven()

    @property
    def records(self) -> list[ResultRecord]:
        """What was published as results, in order."""
        return [ResultRecord.from_json(m) for m in self.published if m.startswith(b'{"type":"result"')]

    def wait_for(self, count: int) -> list[ResultRecord]:
        """At least ``count`` results."""
        until(lambda: len(self.ledger.records) >= count)
        return self.records

    def events(self, kind: str) -> list[str]:
        """Codes of the events of a kind."""
        return [code for what, _, code, _ in self.ledger.events if what == kind]


@contextmanager
def running(bench: Bench) -> Iterator[Bench]:
    """Start it, wait until it accepts triggers (or its camera is refused), and close it."""
    bench.station.start()
    try:
        yield bench
    finally:
        bench.camera.push(CameraEndedError("the test is over"))
        bench.station.close(5.0)
