"""A scripted line behind a dashboard: asked in the process where that will do, else over a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from web_client import InProcess
from web_fakes import FakeLine

from differad_edge.runtime.settings import WebSettings
from differad_edge.web import WebServer


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own, as the dashboard has one."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, daemon=True)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def line() -> FakeLine:
    return FakeLine()


@pytest.fixture
def ask(line: FakeLine, loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., InProcess]]:
    """ask(token=..., address=..., base_url=...): a dashboard of ``line`` without a socket."""
    made: list[InProcess] = []

    def make(
        *, token: str | None = None, address: str = "127.0.0.1:8080", base_url: str = "http://127.0.0.1:8080"
    ) -> InProcess:
        made.append(InProcess(loop, line, WebSettings(address=address, token=token), base_url))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def http(ask: Callable[..., InProcess]) -> InProcess:
    return ask()


@pytest.fixture
def serve(line: FakeLine) -> Iterator[Callable[..., WebServer]]:
    """serve(token=..., address=...) starts a dashboard of ``line``; afterwards no thread of it may be left."""
    servers: list[WebServer] = []

    def start(*, token: str | None = None, address: str = "127.0.0.1:*") -> WebServer:
        servers.append(WebServer(line, WebSettings(address=address, token=token)))
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()
    assert [thread for thread in threading.enumerate() if thread.name == "differad-web"] == []
