"""The line's outputs: each with an outbox that hears every result, and what they are doing told to the line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from differad_edge.outputs import LineControl, Output, Record, create_output
from differad_edge.outputs.acknowledged import Acknowledged
from differad_edge.outputs.backoff import Backoff
from differad_edge.outputs.outbox import Outbox, OutboxStats
from differad_edge.outputs.settings import ModbusSettings, OutputSettings
from differad_edge.outputs.waiting import DurableQueue, MemoryQueue, Queue
from differad_edge.runtime.journal_query import ResultQuery
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.outlet import Outlet

__all__ = ["Deliveries", "acknowledged_file"]

_log = logging.getLogger(__name__)

_JOIN_S = 2.0


def acknowledged_file(journal: Path, output: str) -> Path:
    """Where a durable output remembers how far it has come: beside the journal that it reads."""
    return _memory(journal) / f"{output}.json"


def _memory(journal: Path) -> Path:
    return journal.with_name(f"{journal.stem}-outputs")


class JournalPast:
    """A journal as outputs read it: the records as they were on the wire."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader

    def results_after(self, sequence: int, limit: int) -> Sequence[Record]:
        """At most ``limit`` results with a higher number, in order. Raises JournalError."""
        found = self._reader.results(ResultQuery(after_sequence=sequence, limit=limit))
        return [stored.record.to_dict() for stored in found]


class Deliveries:
    """Raises ConfigError, MissingExtraError and OutputError for an output that cannot work at all; one whose other side
    is not there is no error, but an alarm "output-down-NAME" while that lasts.

    ``journal``: its file, beside which outputs keep what they remember. ``pulse``: see `Line.pulse`; outputs hear it
    every ``period_s`` and when a station changes its state.
    """

    def __init__(
        self,
        settings: Sequence[OutputSettings],
        *,
        line: LineControl,
        outlet: Outlet,
        reader: JournalReader | None,
        journal: Path | None,
        pulse: Callable[[], Mapping[str, Any]],
        period_s: float,
    ) -> None:
        self._outlet = outlet
        self._pulse = pulse
        self._period_s = period_s
        memory = None if journal is None else _memory(journal)
        self._outputs: dict[str, Output] = {one.name: create_output(one, line, memory=memory) for one in settings}
        self._boxes = tuple(
            Outbox(
                one.name,
                one.type,
                self._outputs[one.name],
                _queue(one, reader, outlet.last_sequence),
                Backoff(one.retry_min_ms, one.retry_max_ms),
                durable=one.durable,
            )
            for one in settings
        )
        self._told: dict[str, Mapping[str, int]] = {}
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outputs", daemon=True)
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin: before the first part is inspected."""
        if not self._boxes:
            return
        self._unsubscribe = self._outlet.subscribe(self._hear)
        for box in self._boxes:
            box.start()
        self._thread.start()

    def output(self, name: str) -> Output:
        """The one of this name. Raises KeyError."""
        return self._outputs[name]

    def stats(self) -> list[OutboxStats]:
        """Of each output."""
        return [box.stats() for box in self._boxes]

    def status(self) -> list[dict[str, Any]]:
        """As JSON types."""
        return [stats.to_dict() for stats in self.stats()]

    def close(self, grace_s: float) -> None:
        """Send what waits, for ``grace_s`` at the most; what a durable output has left is sent after the next start."""
        self._unsubscribe()
        for box in self._boxes:  # all of them at the same time
            box.end()
        for box in self._boxes:
            box.close(grace_s)
        self._stop.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        self._tell_drops()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _hear(self, message: Mapping[str, Any]) -> None:
        """Called by the line, which waits meanwhile: nothing but the queues is touched."""
        if message["type"] == "result":
            for box in self._boxes:
                box.put(message)
        elif message["type"] == "event" and message["kind"] == "state":
            self._changed.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._show(self._pulse())
                self._tell_faults()
                self._tell_drops()
            except Exception:  # it must go on
                _log.exception("outputs")
            self._changed.wait(self._period_s)
            self._changed.clear()

    def _show(self, pulse: Mapping[str, Any]) -> None:
        for name, output in self._outputs.items():
            try:
                output.show(pulse)
            except Exception:  # whatever an output of a plugin does: the others hear of it all the same
                _log.exception("output %s", name)

    def _tell_faults(self) -> None:
        for stats in self.stats():
            code = f"output-down-{stats.name}"
            if stats.fault is not None:
                self._outlet.alarms.set(code, f"output {stats.name}: {stats.fault}")
            elif stats.open:
                self._outlet.alarms.clear(code)

    def _tell_drops(self) -> None:
        for stats in self.stats():
            before = self._told.get(stats.name, {})
            new = {cause: n - before.get(cause, 0) for cause, n in stats.dropped.items() if n > before.get(cause, 0)}
            if new:
                self._told[stats.name] = dict(stats.dropped)
                detail = {"output": stats.name, "dropped": new, "total": dict(stats.dropped)}
                self._outlet.event("output", None, "output-dropped", detail)


def _queue(settings: OutputSettings, reader: JournalReader | None, last_sequence: int) -> Queue:
    def wanted(record: Record) -> bool:
        if settings.station is not None and record["station"] != settings.station:
            return False
        own = isinstance(settings, ModbusSettings) and settings.results == "own"
        return not own or str(record["trigger_id"]).startswith(f"{settings.name}:")

    if settings.durable and reader is not None:  # the settings see to it that there is a journal
        return DurableQueue(
            JournalPast(reader),
            Acknowledged(acknowledged_file(reader.path, settings.name), last_sequence),
            last_sequence=last_sequence,
            capacity=settings.capacity,
            most_behind=settings.most_behind,
            wanted=wanted,
        )
    return MemoryQueue(settings.capacity, wanted)
