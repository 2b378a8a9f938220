"""From the line to every browser: server-sent events, a bounded queue each, and nobody who can hold up the line."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from differad_edge.web.problems import Problem

__all__ = ["EventStream", "Hub"]

_log = logging.getLogger(__name__)

QUEUE_MESSAGES = 256
MOST_BROWSERS = 64
PULSE_S = 1.0
"""How often a browser hears that its connection lives, whether the line has something to say or not."""

_INBOX_MESSAGES = 4096
_BATCH_MESSAGES = 64
_KINDS = frozenset({"result", "late", "heartbeat", "event"})


class Hub:
    """`listen` takes messages from any thread; the loop that `open` names hands them to the browsers."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._browsers: set[_Browser] = set()
        self._inbox: deque[Mapping[str, Any]] = deque()
        self._overflowed = 0
        self._awake = False
        self._lock = threading.Lock()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the first browser."""
        self._loop = loop

    def close(self) -> None:
        """Say goodbye to every browser. From any thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            _call(loop, self._end_all)

    def listen(self, message: Mapping[str, Any]) -> None:
        """One message of the line. Returns at once, whatever the browsers do."""
        with self._lock:
            if self._loop is None or not self._browsers:
                return
            if len(self._inbox) >= _INBOX_MESSAGES:  # the loop itself is behind
                self._overflowed += 1
                return
            self._inbox.append(message)
            if self._awake:
                return  # one call wakes the loop for all that came meanwhile
            self._awake = True
            loop = self._loop
        _call(loop, self._deliver)

    def join(self) -> _Browser:
        """A new browser. In the loop's thread. Raises Problem 503 when there are too many, or at the end."""
        with self._lock:
            if self._loop is None:
                raise Problem(503, "stopping", "the dashboard is closing")
            if len(self._browsers) >= MOST_BROWSERS:
                raise Problem(
                    503, "too-many-browsers", f"{MOST_BROWSERS} browsers are connected, which is all there may be"
                )
            browser = _Browser()
            self._browsers.add(browser)
            return browser

    def leave(self, browser: _Browser) -> None:
        """The browser is gone. In the loop's thread."""
        with self._lock:
            self._browsers.discard(browser)

    @property
    def browsers(self) -> int:
        """How many are connected."""
        return len(self._browsers)

    def _deliver(self) -> None:
        with self._lock:
            messages, self._inbox = self._inbox, deque()
            overflowed, self._overflowed = self._overflowed, 0
            self._awake = False
            browsers = tuple(self._browsers)
        for browser in browsers:
            browser.lost += overflowed
        for message in messages:
            try:
                data = _event(str(message.get("type")), message)
            except (TypeError, ValueError):
                _log.exception("a message of the line is no JSON")
                continue
            for browser in browsers:
                browser.put(data)

    def _end_all(self) -> None:
        with self._lock:
            browsers = tuple(self._browsers)
        for browser in browsers:
            browser.gone.set()


class _Browser:
    """What waits for one browser. ``lost``: messages that it was too slow for, since it came."""

    def __init__(self) -> None:
        self.lost = 0
        self.gone = asyncio.Event()
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()

    def put(self, data: bytes) -> None:
        if len(self._waiting) >= QUEUE_MESSAGES:
            self._waiting.popleft()  # the newest matters most to who looks at the line
            self.lost += 1
        self._waiting.append(data)
        self._news.set()

    async def take(self, timeout_s: float) -> bytes:
        """What waits, up to a batch; empty after ``timeout_s`` without news."""
        if not self._waiting:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s)
            except asyncio.TimeoutError:
                return b""
        count = min(len(self._waiting), _BATCH_MESSAGES)
        return b"".join(self._waiting.popleft() for _ in range(count))


class EventStream:
    """An ASGI response that lasts as long as its browser stays."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        browser = self._hub.join()
        tasks = [
            asyncio.create_task(work) for work in (_send(browser, send), _until_gone(receive), browser.gone.wait())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(browser)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if browser.gone.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(browser: _Browser, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    # A proxy that collects events before it passes them on would make the line look dead.
    headers.append((b"x-accel-buffering", b"no"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await _send_part(send, b"retry: 1000\n\n" + _event("pulse", {"lost": 0}))
    clock = asyncio.get_running_loop().time
    pulse_due = clock() + PULSE_S
    while True:
        data = await browser.take(max(0.0, pulse_due - clock()))
        if clock() >= pulse_due:
            data += _event("pulse", {"lost": browser.lost})
            pulse_due = clock() + PULSE_S
        if data:
            # Waits while the browser does not read; meanwhile its queue drops the oldest, and counts.
            await _send_part(send, data)


async def _send_part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


def _event(kind: str, data: Mapping[str, Any]) -> bytes:
    # json.dumps writes no line break, which would end an event.
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind if kind in _KINDS or kind == 'pulse' else 'event'}\ndata: {text}\n\n".encode(
        "utf-8", "backslashreplace"
    )


def _call(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    try:
        loop.call_soon_threadsafe(work)
    except RuntimeError:
        _log.debug("the dashboard's loop has ended")
