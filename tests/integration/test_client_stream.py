"""Following the results: gaps, recovery, restarts, silence."""

from __future__ import annotations

import time
from typing import Any

import pytest
from wire_fakes import LIMIT_S, FakeLine, Served, a_record, until

from differad_edge.client import Gap, InspectionClient
from differad_edge.errors import MessageError, NoAnswerError, RefusedError
from differad_edge.runtime.wire import encode_message

pytestmark = pytest.mark.usefixtures("closed_sockets")


def take(client: InspectionClient, count: int) -> list[int]:
    found = []
    for _ in range(count):
        record = client.next_result(timeout_ms=1000 * LIMIT_S)
        assert record is not None
        found.append(record.sequence)
    return found


def lose(line: FakeLine, count: int, **changes: Any) -> None:
    """Results that stand in the journal and never reach a subscriber."""
    publish, line.publish = line.publish, lambda message: None
    for _ in range(count):
        line.finish(**changes)
    line.publish = publish


def test_results_come_in_order_as_they_are_published(served: Served) -> None:
    client = served.following_client()
    for _ in range(5):
        served.line.finish()
    assert take(client, 5) == [1, 2, 3, 4, 5]
    assert client.next_result(timeout_ms=20) is None
    assert client.missed == 0


def test_missed_results_are_fetched_and_come_in_their_place(served: Served) -> None:
    client = served.following_client()
    served.line.finish()
    lose(served.line, 3)
    served.line.finish()
    assert take(client, 5) == [1, 2, 3, 4, 5]
    assert client.missed == 0


def test_a_heartbeat_shows_that_the_last_result_was_lost(served: Served) -> None:
    client = served.following_client()
    served.line.finish()
    lose(served.line, 2)
    served.line.beat()
    assert take(client, 3) == [1, 2, 3]


def test_a_long_gap_is_fetched_page_by_page(served: Served) -> None:
    client = served.following_client()
    lose(served.line, 1201)
    served.line.finish()
    assert take(client, 1202) == list(range(1, 1203))
    assert len(served.line.calls_of("results")) == 3


def test_what_the_journal_does_not_have_is_counted_and_reported(served: Served) -> None:
    gaps: list[Gap] = []
    client = served.following_client(on_gap=gaps.append)
    lose(served.line, 5)
    hidden = [served.line.journal.pop(index) for index in (3, 1, 0)]  # 4, 2, 1
    served.line.publish(a_record(6).to_json())
    assert take(client, 3) == [3, 5, 6]
    assert client.missed == len(hidden)
    assert gaps == [Gap("s1", 1, 2, "not-in-journal"), Gap("s1", 4, 4, "not-in-journal")]
    assert gaps[0].count == 2


def test_without_recovery_or_without_a_journal_gaps_are_only_counted(served: Served) -> None:
    gaps: list[Gap] = []
    plain = served.following_client(on_gap=gaps.append, recover=False)
    refused = served.following_client(on_gap=gaps.append)
    served.line.errors["results"] = RefusedError("no-journal", "the server keeps no journal")
    lose(served.line, 2)
    served.line.finish()
    assert take(plain, 1) == take(refused, 1) == [3]
    assert (plain.missed, refused.missed) == (2, 2)
    assert gaps == [Gap("s1", 1, 2, "not-fetched"), Gap("s1", 1, 2, "no-journal")]


def test_a_busy_server_is_asked_again(served: Served) -> None:
    client = served.following_client()
    lose(served.line, 1)
    served.line.errors["results"] = RefusedError("busy", "too many")
    served.line.finish()
    original = served.line.results

    def busy_once(query: Any) -> Any:
        try:
            return original(query)
        finally:
            served.line.errors.clear()

    served.line.results = busy_once  # type: ignore[method-assign]
    assert take(client, 2) == [1, 2]
    assert len(served.line.calls_of("results")) == 2


def test_duplicates_are_left_out(served: Served) -> None:
    client = served.following_client()
    first = served.line.finish()
    served.line.finish()
    served.line.publish(first.to_json())
    served.line.publish(first.to_json())
    served.line.finish()
    assert take(client, 3) == [1, 2, 3]


def test_heartbeats_events_and_late_results_are_no_results(served: Served) -> None:
    heard: list[dict[str, Any]] = []
    client = served.following_client(on_message=heard.append)
    heard.clear()
    served.line.publish(a_record(1).to_json("late"))
    event = {"type": "event", "schema_version": 1, "session": "s1", "utc": "", "kind": "alarm", "code": "x"}
    served.line.publish(encode_message(event))
    served.line.finish()
    assert take(client, 1) == [1]
    assert [message["type"] for message in heard if message["type"] != "heartbeat"] == ["late", "event"]
    assert client.last_heartbeat is not None
    assert client.last_heartbeat["state"] == "Ready"


def test_a_client_goes_on_where_it_was(served: Served) -> None:
    lose(served.line, 5)
    client = served.client(after=3)
    until(lambda: served.line.beat() or client.next_result(timeout_ms=20) is not None)  # that was 4
    served.line.finish()
    assert take(client, 2) == [5, 6]


def test_a_restart_with_the_same_journal_goes_on_counting() -> None:
    with Served() as served:
        addresses = served.addresses
        client = served.following_client()
        served.line.finish()
        assert take(client, 1) == [1]
        lose(served.line, 2)  # published while it was killed
        served.close_server()
        again = FakeLine(session="s2", journal=served.line.journal)
        with Served(again, control=addresses[0], publish=addresses[1]) as second:
            found = []

            def came() -> bool:
                second.line.beat()
                try:
                    record = client.next_result(timeout_ms=50)
                except NoAnswerError:
                    return False
                if record is not None:
                    found.append(record.sequence)
                return len(found) == 2

            until(came)
            second.line.finish()
            assert [*found, *take(client, 1)] == [2, 3, 4]
            assert client.missed == 0
            client.close()


def test_a_restart_with_a_new_journal_counts_anew() -> None:
    with Served() as served:
        addresses = served.addresses
        client = served.following_client(wait_for_server=True)
        for _ in range(4):
            served.line.finish()
        assert take(client, 4) == [1, 2, 3, 4]
        served.close_server()
        again = FakeLine(session="s2")
        with Served(again, control=addresses[0], publish=addresses[1]) as second:
            lose(second.line, 1)
            stream = iter(client)
            until(lambda: second.line.beat() or _heard_of(client, "s2"))
            second.line.finish()
            records = [next(stream), next(stream)]
            assert [(r.session, r.sequence) for r in records] == [("s2", 1), ("s2", 2)]
            client.close()


def _heard_of(client: InspectionClient, session: str) -> bool:
    socket = client._stream
    assert socket is not None
    return bool(socket.poll(20))


def test_a_silent_server_is_reported_and_may_come_back() -> None:
    with Served() as served:
        client = served.following_client()
        started = time.monotonic()
        with pytest.raises(NoAnswerError, match="the server is silent"):
            client.next_result(timeout_ms=1000 * LIMIT_S)
        assert time.monotonic() - started < 2  # three heartbeats of 100 ms
        with pytest.raises(NoAnswerError):
            next(iter(client))
        served.line.beat()
        served.line.finish()
        assert take(client, 1) == [1]


def test_iteration_may_wait_for_the_server(served: Served) -> None:
    client = served.following_client(wait_for_server=True, silence_ms=30)
    stream = iter(client)
    started = time.monotonic()
    import threading

    timer = threading.Timer(0.3, served.line.finish)
    timer.start()
    assert next(stream).sequence == 1
    assert time.monotonic() - started >= 0.25
    timer.join()


def test_a_stream_of_another_schema_version_is_an_error(served: Served) -> None:
    client = served.following_client()
    served.line.publish(b'{"type":"result","schema_version":2}')
    with pytest.raises(MessageError, match="schema_version: got 2, allowed: 1"):
        client.next_result(timeout_ms=1000 * LIMIT_S)
    served.line.finish()
    assert take(client, 1) == [1]
