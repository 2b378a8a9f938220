"""Requests that were taken and are not answered yet: how many and how large they may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from differad_edge.errors import MessageError, RefusedError

__all__ = ["ControlLimits", "PendingTable", "Ticket"]


@dataclass(frozen=True, slots=True)
class ControlLimits:
    """What a control socket holds at most; the next request is refused as "busy"."""

    pending: int = 128
    pending_per_client: int = 32
    """A client is a connection."""
    held_bytes: int = 256 << 20
    """Buffers of all requests that are pending; one request is always taken."""
    answer_within_s: float = 600.0
    """A request that is not answered by then is given up, so that a fault of the line cannot shut a client out."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """One request: where its answer goes. ``envelope``: the frames that come before the reply."""

    envelope: tuple[bytes, ...]
    request_id: str
    held_bytes: int
    since_s: float

    @property
    def client(self) -> bytes:
        """The connection it came by."""
        return self.envelope[0]


class PendingTable:
    """Used by one thread."""

    def __init__(self, limits: ControlLimits) -> None:
        self._limits = limits
        self._tickets: dict[tuple[bytes, str], Ticket] = {}
        self._per_client: Counter[bytes] = Counter()
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(list(self._tickets.values()))

    def admit(self, ticket: Ticket) -> None:
        """Raises RefusedError "busy"; MessageError for a request id that this client is still waiting for."""
        limits = self._limits
        if (ticket.client, ticket.request_id) in self._tickets:
            raise MessageError(f"request_id: got {ticket.request_id!r}, which is pending already, allowed: a new one")
        if len(self._tickets) >= limits.pending:
            raise RefusedError("busy", f"{limits.pending} requests are pending; try again later")
        if self._per_client[ticket.client] >= limits.pending_per_client:
            raise RefusedError("busy", f"{limits.pending_per_client} requests of this client are pending")
        if self._held_bytes and self._held_bytes + ticket.held_bytes > limits.held_bytes:
            raise RefusedError("busy", f"the pending requests hold {self._held_bytes} bytes of images; try again later")
        self._tickets[ticket.client, ticket.request_id] = ticket
        self._per_client[ticket.client] += 1
        self._held_bytes += ticket.held_bytes

    def remove(self, ticket: Ticket) -> bool:
        """Tells whether it was pending: a second answer has nowhere to go."""
        if self._tickets.get((ticket.client, ticket.request_id)) is not ticket:
            return False
        del self._tickets[ticket.client, ticket.request_id]
        self._held_bytes -= ticket.held_bytes
        self._per_client[ticket.client] -= 1
        if not self._per_client[ticket.client]:
            del self._per_client[ticket.client]
        return True

    def overdue(self, now_s: float) -> list[Ticket]:
        """Those that have waited too long."""
        return [t for t in self._tickets.values() if now_s - t.since_s > self._limits.answer_within_s]
