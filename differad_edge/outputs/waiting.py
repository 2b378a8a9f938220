"""Results that wait to be sent: in memory, or in memory with the journal behind it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from differad_edge.outputs.acknowledged import Acknowledged
from differad_edge.outputs.base import Record

__all__ = ["DurableQueue", "MemoryQueue", "Past", "Queue", "Wanted"]

Wanted = Callable[[Record], bool]


class Past(Protocol):
    """The journal as an output needs it."""

    def results_after(self, sequence: int, limit: int) -> Sequence[Record]:
        """At most ``limit`` results with a higher number, in order. Raises DifferadError."""
        ...


class Queue(Protocol):
    """Filled by the line, which never waits; emptied by the one thread of an outbox.

    `take` gives the same results again until `done` or `refused` says what became of them.
    """

    def put(self, record: Record) -> None:
        """One more; returns at once whatever the other side does."""
        ...

    def take(self, limit: int, timeout_s: float) -> list[Record]:
        """The oldest, at most ``limit``; empty when none came within the time. Raises DifferadError."""
        ...

    def done(self) -> None:
        """What was taken is confirmed."""
        ...

    def refused(self) -> None:
        """What was taken will never be."""
        ...

    def wake(self) -> None:
        """Let `take` return."""
        ...

    def rest(self) -> None:
        """Nothing is to be sent now: put on the disk what is not there yet."""
        ...

    def close(self) -> None:
        """Nothing is taken any more: count what is lost by it. Raises OutputError."""
        ...

    @property
    def waiting(self) -> int:
        """Results that are not confirmed."""
        ...

    @property
    def dropped(self) -> dict[str, int]:
        """Results that were given up, by cause."""
        ...


class _Counted:
    """Drops by cause, and the condition that guards everything here."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._dropped: dict[str, int] = {}
        self._in_hand: list[Record] = []

    @property
    def dropped(self) -> dict[str, int]:
        """Results that were given up, by cause."""
        with self._changed:
            return dict(self._dropped)

    def wake(self) -> None:
        """Let `take` return."""
        with self._changed:
            self._changed.notify_all()

    def _drop(self, cause: str, count: int) -> None:
        if count > 0:
            self._dropped[cause] = self._dropped.get(cause, 0) + count


class MemoryQueue(_Counted):
    """At most ``capacity`` results; then the oldest goes, and is counted. What waits is lost when the process ends."""

    def __init__(self, capacity: int, wanted: Wanted = lambda record: True) -> None:
        super().__init__()
        self._capacity = capacity
        self._wanted = wanted
        self._records: deque[Record] = deque()

    def put(self, record: Record) -> None:
        """One more; returns at once."""
        if not self._wanted(record):
            return
        with self._changed:
            if len(self._records) >= self._capacity:
                self._records.popleft()
                self._drop("full", 1)
            self._records.append(record)
            self._changed.notify_all()

    def take(self, limit: int, timeout_s: float) -> list[Record]:
        """The oldest, at most ``limit``; empty when none came within the time."""
        with self._changed:
            if not self._in_hand:
                if not self._records:
                    self._changed.wait(timeout_s)
                while self._records and len(self._in_hand) < limit:
                    self._in_hand.append(self._records.popleft())
            return list(self._in_hand)

    def done(self) -> None:
        """What was taken is confirmed."""
        with self._changed:
            self._in_hand.clear()

    def refused(self) -> None:
        """What was taken will never be."""
        with self._changed:
            self._drop("refused", len(self._in_hand))
            self._in_hand.clear()

    def rest(self) -> None:
        """Nothing of it is on a disk."""

    def close(self) -> None:
        """What still waits is lost."""
        with self._changed:
            self._drop("stopped", len(self._records) + len(self._in_hand))
            self._records.clear()
            self._in_hand.clear()

    @property
    def waiting(self) -> int:
        """Results that are not confirmed."""
        with self._changed:
            return len(self._records) + len(self._in_hand)


class DurableQueue(_Counted):
    """Every result of the journal after ``acknowledged``, also over restarts.

    The newest ``capacity`` are kept in memory as well, so that the disk is read only to catch up. More than
    ``most_behind`` results behind the line, the oldest are given up, and counted. ``last_sequence``: of the newest
    result in the journal now.
    """

    def __init__(
        self,
        past: Past,
        acknowledged: Acknowledged,
        *,
        last_sequence: int,
        capacity: int,
        most_behind: int,
        wanted: Wanted = lambda record: True,
    ) -> None:
        super().__init__()
        self._past = past
        self._acknowledged = acknowledged
        self._capacity = capacity
        self._most_behind = most_behind
        self._wanted = wanted
        self._records: deque[Record] = deque()
        self._newest = last_sequence
        if acknowledged.sequence > last_sequence:
            acknowledged.begin_again(last_sequence)
        self._taken = acknowledged.sequence
        """Up to here every result is confirmed, given up, or in hand."""

    def put(self, record: Record) -> None:
        """One more; returns at once. What does not fit into the memory is read from the journal when its turn comes."""
        with self._changed:
            if len(self._records) >= self._capacity:
                self._records.popleft()
            self._records.append(record)
            self._newest = record["sequence"]
            self._changed.notify_all()

    def take(self, limit: int, timeout_s: float) -> list[Record]:
        """The oldest, at most ``limit``; empty when none came within the time. Raises JournalError."""
        with self._changed:
            if self._in_hand:
                return list(self._in_hand)
            if self._newest <= self._taken:
                self._changed.wait(timeout_s)
            if self._newest <= self._taken:
                return []
            self._give_up_the_oldest()
            found = self._from_memory(limit)
        if not found:
            found = self._past.results_after(self._taken, limit)  # without the lock: the line must not wait for a disk
        with self._changed:
            found = self._without_what_memory_has(found)
            for record in found:
                self._drop("not-in-journal", record["sequence"] - self._taken - 1)
                self._taken = record["sequence"]
            self._in_hand = [record for record in found if self._wanted(record)]
            in_hand = list(self._in_hand)
        if not in_hand:
            self._acknowledged.advance(self._taken)
        return in_hand

    def done(self) -> None:
        """What was taken is confirmed."""
        with self._changed:
            self._in_hand.clear()
        self._acknowledged.advance(self._taken)

    def refused(self) -> None:
        """What was taken will never be."""
        with self._changed:
            self._drop("refused", len(self._in_hand))
        self.done()

    def rest(self) -> None:
        """Remember on the disk how far it has come."""
        self._acknowledged.advance(self._taken)

    def close(self) -> None:
        """Nothing is lost: what waits stands in the journal. Raises OutputError."""
        self._acknowledged.save()

    @property
    def waiting(self) -> int:
        """Results that are not confirmed; where only some are wanted, as if all were."""
        with self._changed:
            return self._newest - self._taken + len(self._in_hand)

    def _give_up_the_oldest(self) -> None:
        too_many = self._newest - self._taken - self._most_behind
        if too_many > 0:
            self._drop("too-far-behind", too_many)
            self._taken += too_many

    def _from_memory(self, limit: int) -> Sequence[Record]:
        """The next ones, if the memory still has them."""
        while self._records and self._records[0]["sequence"] <= self._taken:
            self._records.popleft()
        if not self._records or self._records[0]["sequence"] != self._taken + 1:
            return []
        return [self._records.popleft() for _ in range(min(limit, len(self._records)))]

    def _without_what_memory_has(self, found: Sequence[Record]) -> Sequence[Record]:
        """What the disk could not take (it was full) is only in memory, and has its turn there."""
        if found and found[0]["sequence"] == self._taken + 1:
            run = 1
            while run < len(found) and found[run]["sequence"] == found[run - 1]["sequence"] + 1:
                run += 1
            return found[:run]
        if self._records and (not found or self._records[0]["sequence"] <= found[0]["sequence"]):
            return [self._records.popleft()]
        if not found:  # neither has what was counted: pruned, or lost with a full disk
            self._drop("not-in-journal", self._newest - self._taken)
            self._taken = self._newest
        return found[:1]
