"""One output's way out: a queue that the line fills without ever waiting, and a thread that empties it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from differad_edge.errors import DifferadError, OutputError, OutputRefusedError
from differad_edge.outputs.backoff import Backoff
from differad_edge.outputs.base import Output, Record
from differad_edge.outputs.waiting import Queue

__all__ = ["Outbox", "OutboxStats"]

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_JOIN_S = 5.0  # longer than a peer may take that is cut off in the middle of an answer


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """``open``: connected, or listening; ``fault``: why it is not; ``sent``: confirmed results since the start;
    ``failures``: broken attempts; ``waiting``: results that are not confirmed; ``dropped``: given up, by cause."""

    name: str
    type: str
    durable: bool
    open: bool
    fault: str | None
    sent: int
    failures: int
    waiting: int
    dropped: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class Outbox:
    """Sends what is in ``queue`` through ``output``, in order, again and again until it is confirmed.

    An output that fails is closed and opened again after a pause of ``backoff``. Results stay in the queue meanwhile,
    whose bound decides what becomes of them.
    """

    def __init__(self, name: str, kind: str, output: Output, queue: Queue, backoff: Backoff, *, durable: bool) -> None:
        self.name = name
        self.output = output
        self._kind = kind
        self._queue = queue
        self._backoff = backoff
        self._durable = durable
        self._open = False
        self._fault: str | None = None
        self._fault_in_sending = False
        self._sent = 0
        self._failures = 0
        self._closing = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"output-{name}", daemon=True)

    def start(self) -> None:
        """Begin to connect and to send."""
        self._thread.start()

    def put(self, record: Record) -> None:
        """One more result; returns at once whatever the other side does."""
        self._queue.put(record)

    def stats(self) -> OutboxStats:
        """Now."""
        return OutboxStats(
            self.name,
            self._kind,
            self._durable,
            self._open,
            self._fault,
            self._sent,
            self._failures,
            self._queue.waiting,
            self._queue.dropped,
        )

    def end(self) -> None:
        """Send what waits, as long as that works, and then stop. Returns at once; `close` waits."""
        self._closing.set()
        self._queue.wake()

    def close(self, grace_s: float) -> None:
        """As `end`, for ``grace_s`` at the most; what is left then is lost and counted, or stands in the journal."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(grace_s)
        self._stop.set()
        self._queue.wake()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        try:
            self._queue.close()
        except OutputError as error:
            _log.warning("output %s: %s", self.name, error)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._finished():
                try:
                    self.output.open()
                    self._open = True
                    if not self._fault_in_sending:  # it could be reached then, too, and took nothing
                        self._works()
                    self._send_all()
                except DifferadError as error:
                    self._failed(str(error))
                except Exception as error:  # a fault in an output must not end it for good
                    _log.exception("output %s", self.name)
                    self._failed(f"{type(error).__name__}, see the log")
        finally:
            self._open = False
            self.output.close()

    def _send_all(self) -> None:
        while not self._finished():
            try:
                records = self._queue.take(self.output.most_at_once, 0.0 if self._closing.is_set() else _POLL_S)
            except DifferadError as error:  # the journal, and not the other side: whoever is connected stays so
                self._say(str(error))
                self._closing.wait(self._backoff.next_s())
                continue
            if not records:
                if self._closing.is_set():
                    return
                self.output.check()
                self._queue.rest()
                self._works()
                continue
            try:
                self.output.send(records, self._stop)
            except OutputRefusedError as error:
                _log.warning("output %s: result %s is refused: %s", self.name, records[0]["sequence"], error)
                self._queue.refused()
                self._works()
                continue
            except Exception:
                self._fault_in_sending = True
                raise
            if self._stop.is_set():
                return  # whether they were confirmed is not known
            self._queue.done()
            self._sent += len(records)
            self._backoff.reset()
            self._works()

    def _finished(self) -> bool:
        return self._stop.is_set() or (self._closing.is_set() and (not self._open or self._queue.waiting == 0))

    def _works(self) -> None:
        if self._fault is not None:
            _log.info("output %s: works again", self.name)
        self._fault, self._fault_in_sending = None, False

    def _say(self, why: str) -> None:
        if self._fault != why:
            _log.warning("output %s: %s", self.name, why)
        self._fault = why

    def _failed(self, why: str) -> None:
        self._say(why)
        self._open = False
        self._failures += 1
        self.output.close()
        self._closing.wait(self._backoff.next_s())
