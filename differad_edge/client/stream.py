"""Following the result stream: what is missing between two messages, and whether the server lives. No input or output.

ZeroMQ drops messages for a subscriber that is slow or away, without a word. Results are numbered, and heartbeats name
the last number, so that every loss shows; what stands in the server's journal can be fetched again.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from differad_edge.client.calls import Call, record_of, results
from differad_edge.errors import NoAnswerError, RefusedError, ResultError, WireError
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.wire import decode_published

__all__ = ["Arrival", "Follower", "Gap", "Pause", "Recovery", "recovery"]

_PERIODS_OF_SILENCE = 3
_PAGE = 500
_AT_MOST = 10_000  # results that are fetched for one gap; of a longer one the oldest are given up
_ATTEMPTS = 3
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Gap:
    """Results ``first`` to ``last``, both included, that did not arrive; ``cause``: why they could not be fetched."""

    session: str
    first: int
    last: int
    cause: str = "not-fetched"

    @property
    def count(self) -> int:
        """How many results."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one message brought: what is missing before it, and a result, or another message (heartbeat, event, late).

    A result that was there before brings nothing.
    """

    gap: Gap | None = None
    record: ResultRecord | None = None
    message: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long before going on."""

    seconds: float


class Follower:
    """Where in the stream a client is. ``after``: the last sequence that was seen earlier; None: begin with what comes.

    ``silence_ms``: how long a living server may say nothing; None: three of the heartbeats that it announces.
    ``now_s`` everywhere: a monotonic clock.
    """

    def __init__(self, now_s: float, *, after: int | None, silence_ms: float | None, connect_ms: float) -> None:
        self.missed = 0
        self.last_heartbeat: dict[str, Any] | None = None
        self._last = after
        self._session: str | None = None
        self._silence_ms = silence_ms
        self._limit_s = (connect_ms if silence_ms is None else silence_ms) / 1000.0
        self._heard_s = now_s

    def take(self, data: bytes, now_s: float) -> Arrival:
        """One message of the stream. Raises MessageError, ResultError for what cannot be read."""
        message = decode_published(data)
        self._heard_s = now_s
        kind = message["type"]
        if kind == "result":
            record = ResultRecord.from_dict(message)
            return self._arrived(record)
        if kind == "heartbeat":
            return self._beat(message)
        return Arrival(message=message)

    def fill(self, gap: Gap, found: Sequence[ResultRecord], cause: str) -> tuple[list[ResultRecord], list[Gap]]:
        """What was fetched for a gap, in order and once each, and what is missing for good, which is counted."""
        wanted = range(gap.first, gap.last + 1)
        records = {record.sequence: record for record in found if record.sequence in wanted}
        lost: list[Gap] = []
        edges = [gap.first - 1, *sorted(records), gap.last + 1]
        for before, behind in itertools.pairwise(edges):
            if behind - before > 1:
                lost.append(Gap(gap.session, before + 1, behind - 1, cause))
        self.missed += sum(piece.count for piece in lost)
        return [records[sequence] for sequence in sorted(records)], lost

    def silence_left_s(self, now_s: float) -> float:
        """How long until the server counts as silent; negative: it does."""
        return self._heard_s + self._limit_s - now_s

    def listen_anew(self, now_s: float) -> None:
        """From now on, as long a silence as allowed may pass again."""
        self._heard_s = now_s

    def _beat(self, message: dict[str, Any]) -> Arrival:
        period_ms, sequence, session = message.get("heartbeat_ms"), message.get("sequence"), message.get("session")
        if self._silence_ms is None and isinstance(period_ms, (int, float)) and period_ms > 0:
            self._limit_s = _PERIODS_OF_SILENCE * period_ms / 1000.0
        self.last_heartbeat = message
        if not isinstance(sequence, int) or not isinstance(session, str):
            return Arrival(message=message)
        gap = self._missing_up_to(sequence, session)
        return Arrival(gap, message=message)

    def _arrived(self, record: ResultRecord) -> Arrival:
        if self._last is not None and self._session in (None, record.session) and record.sequence <= self._last:
            return Arrival()
        if self._last is None:
            self._last = record.sequence - 1
        gap = self._missing_up_to(record.sequence - 1, record.session)
        self._last = record.sequence
        return Arrival(gap, record)

    def _missing_up_to(self, sequence: int, session: str) -> Gap | None:
        """Note that everything up to ``sequence`` was published; what of it has not been seen?"""
        if self._last is None:
            first = sequence + 1
        elif sequence < self._last and session != self._session:
            first = 1  # another run of the server that counts anew: it has another journal, or none
        else:
            first = self._last + 1
        self._session = session
        self._last = sequence if first == 1 else max(sequence, self._last or 0)
        return Gap(session, first, sequence) if first <= sequence else None


Recovery: TypeAlias = "Generator[Call[list[dict[str, Any]]] | Pause, Any, tuple[list[ResultRecord], str]]"


def recovery(gap: Gap) -> Recovery:
    """Fetch a gap from the journal: yields what to ask, is sent the answers or thrown the WireErrors.

    Returns the records and, for what is not among them, the cause.
    """
    records: list[ResultRecord] = []
    after = max(gap.first - 1, gap.last - _AT_MOST)
    attempts = 0
    while after < gap.last:
        query = {"after_sequence": after, "before_sequence": gap.last + 1, "limit": _PAGE}
        try:
            rows = yield results(query)
        except WireError as error:
            attempts += 1
            passing = isinstance(error, NoAnswerError) or (isinstance(error, RefusedError) and error.code == "busy")
            if not passing or attempts >= _ATTEMPTS:
                return records, error.code
            yield Pause(_PAUSE_S)
            continue
        page = [record for row in rows if (record := _readable(row)) is not None]
        if not page:
            break
        records += page
        after = max(record.sequence for record in page)
    return records, "not-in-journal" if gap.count <= _AT_MOST else "too-many"


def _readable(row: Any) -> ResultRecord | None:
    try:
        return record_of(row)
    except (ResultError, AttributeError, TypeError):
        return None  # of another schema version: it counts as missed
