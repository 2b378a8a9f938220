"""The stream of events: everything reaches a browser that keeps up; one that does not holds up nobody."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from web_client import TOKEN
from web_fakes import FakeLine, make_record

from differad_edge.web import WebServer, hub
from differad_edge.web.hub import Hub

LIMIT_S = 10.0


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = ""
    for text in response.iter_lines():
        if text.startswith("event: "):
            kind = text.removeprefix("event: ")
        elif text.startswith("data: "):
            yield kind, json.loads(text.removeprefix("data: "))


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.005)


def joined(server: WebServer) -> int:
    browsers: int = server._app.state.hub.browsers
    return browsers


def test_results_heartbeats_and_events_come_in_order(serve: Callable[..., WebServer], line: FakeLine) -> None:
    server = serve()
    with httpx.stream("GET", f"{server.url}api/stream", timeout=LIMIT_S) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        heard = events(response)
        assert next(heard) == ("pulse", {"lost": 0})
        for sequence in range(1, 101):
            line.play(make_record(sequence), keep=False)
        line.heartbeat()
        line.tell({"type": "event", "kind": "alarm", "code": "x", "detail": {"message": "line\nbreak </script>"}})
        line.tell({"type": "late", "sequence": 3})
        line.tell({"type": "nonsense\n\nevent: result"})
        kinds = [item for item in (next(heard) for _ in range(104 + 1)) if item[0] != "pulse"][:104]
        assert [data["sequence"] for kind, data in kinds[:100] if kind == "result"] == list(range(1, 101))
        assert [kind for kind, _ in kinds[100:]] == ["heartbeat", "event", "late", "event"][: len(kinds) - 100]
        assert kinds[101][1]["detail"]["message"] == "line\nbreak </script>"


def test_a_quiet_line_still_has_a_pulse(serve: Callable[..., WebServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PULSE_S", 0.05)
    with httpx.stream("GET", f"{serve().url}api/stream", timeout=LIMIT_S) as response:
        heard = events(response)
        assert [next(heard)[0] for _ in range(4)] == ["pulse"] * 4


def test_every_browser_hears_everything_and_leaves_nothing_behind(
    serve: Callable[..., WebServer], line: FakeLine
) -> None:
    server = serve()
    heard: list[list[int]] = [[], [], []]

    def listen(into: list[int]) -> None:
        with httpx.stream("GET", f"{server.url}api/stream", timeout=LIMIT_S) as response:
            for kind, data in events(response):
                if kind == "result":
                    into.append(data["sequence"])
                if into[-1:] == [50]:
                    return

    threads = [threading.Thread(target=listen, args=(into,)) for into in heard]
    for thread in threads:
        thread.start()
    wait_until(lambda: joined(server) == 3)
    for sequence in range(1, 51):
        line.play(make_record(sequence), keep=False)
    for thread in threads:
        thread.join(LIMIT_S)
    assert heard == [list(range(1, 51))] * 3
    wait_until(lambda: joined(server) == 0)


def test_a_browser_that_does_not_read_loses_with_a_count_and_blocks_nobody(
    serve: Callable[..., WebServer], line: FakeLine
) -> None:
    server = serve()
    host, _, port = server.address.rpartition(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.settimeout(LIMIT_S)
        slow.connect((host, int(port)))
        slow.sendall(f"GET /api/stream HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode())
        wait_until(lambda: joined(server) == 1)
        record = make_record(1, "NG", detail=None, descriptions=["x" * 4000]).to_dict()
        slowest = 0.0
        for sequence in range(1, 2501):
            began = time.monotonic()
            line.tell({**record, "sequence": sequence})
            slowest = max(slowest, time.monotonic() - began)
            if sequence % 100 == 0:
                time.sleep(0.002)
        assert slowest < 0.5, "the line waited for a browser"
        # Another browser sees the line as it is now, at once.
        with httpx.stream("GET", f"{server.url}api/stream", timeout=LIMIT_S) as response:
            heard = events(response)
            next(heard)
            line.tell({**record, "sequence": 6000})
            assert next(item for item in heard if item[0] == "result")[1]["sequence"] == 6000
        # Once it reads again it learns how much it has missed, and the newest.
        text = b""
        while b'"sequence":6000,' not in text:
            part = slow.recv(1 << 16)
            assert part, "the stream ended"
            text += part
        line_now = text
        while b'"lost":' not in line_now.split(b'"sequence":6000,')[-1]:
            line_now += slow.recv(1 << 16)
        lost = json.loads(line_now.rsplit(b"event: pulse\ndata: ", 1)[1].split(b"\n")[0])["lost"]
        received = text.count(b"event: result")
        assert lost > 0
        assert lost + received == 2501


def test_close_does_not_wait_for_open_streams(serve: Callable[..., WebServer], line: FakeLine) -> None:
    server = serve()
    ended = threading.Event()

    def listen() -> None:
        try:
            with httpx.stream("GET", f"{server.url}api/stream", timeout=LIMIT_S) as response:
                for _ in response.iter_bytes():
                    pass
        except httpx.HTTPError:
            pass
        ended.set()

    threads = [threading.Thread(target=listen) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: joined(server) == 3)
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 1.5
    assert ended.wait(LIMIT_S)
    for thread in threads:
        thread.join(LIMIT_S)
    assert line.listeners == 0
    line.heartbeat()  # what the line says afterwards is heard by nobody, and harms nobody


def test_too_many_browsers_are_refused(serve: Callable[..., WebServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_BROWSERS", 1)
    server = serve()
    path = f"{server.url}api/stream"
    with httpx.stream("GET", path, timeout=LIMIT_S) as first:
        heard = events(first)  # held, for a generator that is forgotten closes its response
        next(heard)
        with httpx.stream("GET", path, timeout=LIMIT_S) as second:
            assert second.status_code == 503
            assert json.loads(second.read())["error"]["code"] == "too-many-browsers"
    wait_until(lambda: joined(server) == 0)
    with httpx.stream("GET", path, timeout=LIMIT_S) as third:
        assert third.status_code == 200


def test_a_stream_needs_the_token(serve: Callable[..., WebServer]) -> None:
    server = serve(token=TOKEN)
    assert httpx.get(f"{server.url}api/stream").status_code == 401
    with httpx.stream("GET", f"{server.url}api/stream", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert next(events(response))[0] == "pulse"


def test_nobody_listens_costs_nothing_and_a_message_that_is_no_json_costs_only_itself(
    serve: Callable[..., WebServer], line: FakeLine
) -> None:
    Hub().listen({"type": "result"})
    server = serve()
    with httpx.stream("GET", f"{server.url}api/stream", timeout=LIMIT_S) as response:
        heard = events(response)
        next(heard)
        line.tell({"type": "result", "score": float("nan")})
        line.tell({"type": "event", "detail": object()})
        line.tell({"type": "result", "sequence": 1})
        assert next(item for item in heard if item[0] != "pulse") == ("result", {"type": "result", "sequence": 1})
