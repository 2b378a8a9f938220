"""Where accepted images wait for the inspection: bounded, in order, and every drop is written down."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from differad_edge_ros.outcome import LOST_ON_THE_WAY, QUEUE_FULL, Drop, Outcome, Stamp

__all__ = ["Job", "Waiting"]


@dataclass(slots=True, eq=False)
class Job:
    """An image on its way to its one outcome.

    ``message``: as it arrived, not decoded; ``product``, ``deadline_ms``: as they were on arrival, so that a change of
    the parameters meets the next image; ``received_ns``: monotonic clock; ``age_ms``: how old the stamp was on arrival,
    None where it is not asked for; ``answer``: gets the outcome too, for a request.
    """

    message: Any
    stamp: Stamp
    frame_id: str
    product: str
    trigger: str = "topic"
    deadline_ms: float = 0.0
    age_ms: float | None = None
    max_age_ms: float = 0.0
    answer: Callable[[Outcome], None] | None = None
    received_ns: int = field(default_factory=time.monotonic_ns)
    _given: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """True for the first who asks: he gives the outcome, and nobody after him."""
        with self._lock:
            first, self._given = not self._given, True
            return first


class Waiting:
    """At most ``depth`` jobs, oldest first. What comes while it is full is dropped, counted and named. Thread-safe.

    ``untold``: drops from earlier, which no outcome has named yet.
    """

    def __init__(self, depth: int, *, untold: Sequence[Drop] = ()) -> None:
        self._depth = depth
        self._jobs: deque[Job] = deque()
        self._drops: dict[str, Drop] = {drop.cause: drop for drop in untold}
        self._closed = False
        self._changed = threading.Condition()
        self.dropped_total = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def offer(self, job: Job) -> bool:
        """Accept ``job``, if there is room; False: it is not accepted, and counted if it came by itself."""
        with self._changed:
            if self._closed:
                return False
            if len(self._jobs) >= self._depth:
                if job.trigger == "topic":  # who asks is told at once
                    self._note(Drop(QUEUE_FULL, 1, job.stamp, job.stamp))
                return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    def lost(self, count: int) -> None:
        """Note ``count`` images that never arrived."""
        with self._changed:
            if count > 0 and not self._closed:
                self._note(Drop(LOST_ON_THE_WAY, count))

    def take(self) -> Job | None:
        """The oldest job, as soon as there is one; None when nothing waits any more and none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return self._jobs.popleft() if self._jobs else None

    def drops(self) -> tuple[Drop, ...]:
        """What was dropped since this was asked last."""
        with self._changed:
            drops, self._drops = tuple(self._drops.values()), {}
            return drops

    @property
    def closed(self) -> bool:
        """Whether `close` was called: what waits is not to be inspected any more."""
        return self._closed

    def close(self) -> None:
        """Accept nothing any more; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _note(self, drop: Drop) -> None:
        self.dropped_total += drop.count
        known = self._drops.get(drop.cause)
        if known is not None:
            drop = Drop(drop.cause, known.count + drop.count, known.first_stamp, drop.last_stamp)
        self._drops[drop.cause] = drop
