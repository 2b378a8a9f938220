"""The control socket: takes requests of many clients, and lets no message and no client stop it."""

from __future__ import annotations

import logging
import socket as sockets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from differad_edge.errors import MessageError, RefusedError
from differad_edge.runtime.binding import BoundSocket
from differad_edge.runtime.dispatch import Dispatcher, error_of
from differad_edge.runtime.pending import ControlLimits, PendingTable, Ticket
from differad_edge.runtime.requests import parse_request, request_id_in
from differad_edge.runtime.service import LineService
from differad_edge.runtime.wire import MAX_HEADER_BYTES, error_reply
from differad_edge.runtime.zeromq import zmq

__all__ = ["ControlServer"]

_log = logging.getLogger(__name__)

_TURN_MS = 1_000  # how often overdue requests are looked for
_BATCH = 32  # requests that are read before answers leave
_WAITING_MESSAGES = 4  # of one client, unread; each may be as large as allowed, and more wait at the client
_LAST_WORDS_MS = 500
_LANE_END_S = 2.0


class ControlServer:
    """A ROUTER socket in front of a `LineService`.

    One thread reads, checks and answers; operations that take long are done beside it (`runtime.dispatch`). DEALER and
    REQ clients are served alike. Messages beyond ``max_message_bytes``, all frames together, are refused by name;
    a frame beyond twice that breaks the connection before it is read.
    What ZeroMQ does not bound is the number of frames of a message that never ends: it keeps them until the client
    leaves. So whoever may connect must not be an enemy, which is what keys are for.

    ROUTER_MANDATORY is on, so that answers to clients that have left are counted and not lost without a word.
    ROUTER_HANDOVER stays off: with it, a client could take over the answers of another one by taking its name.

    ``keys``: folder made by `differad-edge keys`. Raises ConfigError, AddressInUseError.
    """

    def __init__(
        self,
        service: LineService,
        endpoint: str,
        *,
        keys: Path | None = None,
        max_message_bytes: int = 64 << 20,
        limits: ControlLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        self._pending = PendingTable(ControlLimits() if limits is None else limits)
        self._counters: Counter[str] = Counter()
        self._answers: deque[tuple[Ticket, bytes]] = deque()
        self._closing = threading.Event()
        options = {
            zmq.MAXMSGSIZE: 2 * max_message_bytes,
            zmq.RCVHWM: _WAITING_MESSAGES,
            zmq.SNDHWM: 1000,
            zmq.ROUTER_MANDATORY: 1,
        }
        self._bound = BoundSocket("control", zmq.ROUTER, endpoint, keys=keys, options=options)
        self._waker, self._wakened = sockets.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._dispatcher = Dispatcher(service)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    @property
    def endpoint(self) -> str:
        """Where it is bound."""
        return self._bound.endpoint

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def counters(self) -> Mapping[str, int]:
        """Since the start: requests, refused, malformed, answered, undeliverable."""
        return dict(self._counters)

    def start(self) -> None:
        """Begin to answer; until then requests wait."""
        self._dispatcher.start()
        self._thread.start()

    def close(self) -> None:
        """Answer "stopping" to whoever still waits, and let go of the address. Closing twice is closing once."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self._wake()
            self._thread.join()
            self._dispatcher.close(_LANE_END_S)
        self._bound.close(_LAST_WORDS_MS)
        self._waker.close()
        self._wakened.close()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._bound.socket, zmq.POLLIN)
        poller.register(self._wakened, zmq.POLLIN)
        while not self._closing.is_set():
            try:
                poller.poll(_TURN_MS)
                self._turn()
            except Exception:  # a fault here must cost one turn, not the control of the line
                _log.exception("control: a turn failed")
                self._closing.wait(0.05)
        self._send_answers()
        for ticket in self._pending:
            self._finish(ticket, error_reply(ticket.request_id, "stopping", "the server is stopping"))

    def _turn(self) -> None:
        with suppress(BlockingIOError):
            while self._wakened.recv(4096):
                pass
        for _ in range(_BATCH):
            self._send_answers()
            try:
                frames = self._bound.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            self._take([frame.buffer for frame in frames])
        for ticket in self._pending.overdue(self._clock()):
            self._finish(ticket, error_reply(ticket.request_id, "no-result", "the line gave no answer"))

    def _take(self, frames: list[memoryview]) -> None:
        self._counters["requests"] += 1
        # A REQ socket puts an empty frame before its message, and expects one before the reply.
        length = 2 if len(frames) > 1 and not frames[1].nbytes else 1
        envelope, message = tuple(bytes(frame) for frame in frames[:length]), frames[length:]
        header = bytes(message[0]) if message and message[0].nbytes <= MAX_HEADER_BYTES else b""
        try:
            self._accept(envelope, header, message)
        except Exception as error:
            kind = "refused" if isinstance(error, RefusedError) else "malformed"
            self._counters[kind] += 1
            self._send(envelope, error_of(request_id_in(header), error))

    def _accept(self, envelope: tuple[bytes, ...], header: bytes, message: list[memoryview]) -> None:
        size = sum(frame.nbytes for frame in message)
        if size > self._max_message_bytes:
            raise RefusedError("too-large", f"message: got {size} bytes, allowed: at most {self._max_message_bytes}")
        if message and message[0].nbytes > MAX_HEADER_BYTES:
            raise MessageError(f"header: got {message[0].nbytes} bytes, allowed: at most {MAX_HEADER_BYTES}")
        request = parse_request(header, len(message) - 1)
        ticket = Ticket(envelope, request.request_id, size - len(header), self._clock())
        self._pending.admit(ticket)

        def answer(reply: bytes) -> None:
            self._answers.append((ticket, reply))
            self._wake()

        self._dispatcher.dispatch(request, message[1:], answer)

    def _send_answers(self) -> None:
        while self._answers:
            self._finish(*self._answers.popleft())

    def _finish(self, ticket: Ticket, reply: bytes) -> None:
        if self._pending.remove(ticket):
            self._counters["answered"] += 1
            self._send(ticket.envelope, reply)

    def _send(self, envelope: tuple[bytes, ...], reply: bytes) -> None:
        try:
            self._bound.socket.send_multipart([*envelope, reply], zmq.NOBLOCK)
        except zmq.ZMQError as error:  # the client has left, or does not read its answers
            self._counters["undeliverable"] += 1
            _log.info("control: an answer could not be delivered: %s", error.strerror)

    def _wake(self) -> None:
        # BlockingIOError: it has been wakened often enough; OSError: it is closed, and nobody needs the answer.
        with suppress(OSError):
            self._waker.send(b"\0")
