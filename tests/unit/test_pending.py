"""How many requests may be pending, and how large."""

from __future__ import annotations

import pytest

from differad_edge.errors import MessageError, RefusedError
from differad_edge.runtime.pending import ControlLimits, PendingTable, Ticket


def ticket(request_id: str, client: bytes = b"a", held_bytes: int = 0, since_s: float = 0.0) -> Ticket:
    return Ticket((client,), request_id, held_bytes, since_s)


def test_the_whole_table_and_each_client_are_bounded() -> None:
    table = PendingTable(ControlLimits(pending=3, pending_per_client=2))
    for request_id in "12":
        table.admit(ticket(request_id))
    with pytest.raises(RefusedError, match="2 requests of this client") as busy:
        table.admit(ticket("3"))
    assert busy.value.code == "busy"
    table.admit(ticket("1", b"b"))
    with pytest.raises(RefusedError, match="3 requests are pending"):
        table.admit(ticket("1", b"c"))


def test_what_requests_hold_is_bounded_but_one_always_gets_in() -> None:
    table = PendingTable(ControlLimits(held_bytes=100))
    large = ticket("1", held_bytes=500)
    table.admit(large)
    with pytest.raises(RefusedError, match="hold 500 bytes"):
        table.admit(ticket("2", b"b", held_bytes=1))
    assert table.remove(large)
    table.admit(ticket("2", b"b", held_bytes=100))


def test_an_id_is_taken_while_it_is_pending() -> None:
    table = PendingTable(ControlLimits())
    first = ticket("1")
    table.admit(first)
    with pytest.raises(MessageError, match="'1', which is pending already"):
        table.admit(ticket("1"))
    table.admit(ticket("1", b"b"))
    assert table.remove(first)
    assert not table.remove(first)
    table.admit(ticket("1"))
    assert not table.remove(first)
    assert len(table) == 2


def test_overdue_requests_are_found() -> None:
    table = PendingTable(ControlLimits(answer_within_s=10))
    old, young = ticket("1"), ticket("2", since_s=5.0)
    table.admit(old)
    table.admit(young)
    assert table.overdue(10.0) == []
    assert table.overdue(12.0) == [old]
