"""What both clients share: settings, sockets, words for what went wrong. Waiting is theirs."""

from __future__ import annotations

import itertools
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from differad_edge.client.calls import Call
from differad_edge.client.stream import Arrival, Follower, Gap
from differad_edge.errors import ConfigError, NoAnswerError, WireError
from differad_edge.runtime.keys import ClientKeys
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.zeromq import HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, zmq

__all__ = ["MAX_MESSAGE_BYTES", "ClientCore", "OnGap", "OnMessage", "slice_ms"]

SLOW_TIMEOUT_MS = 120_000.0
SLICE_MS = 100
"""So long at the most goes by until a waiting thread or task sees that the client was closed."""

_RECONNECT_MS = 100
_RECONNECT_MAX_MS = 2_000
_WAITING_RESULTS = 2_000
_MAX_ANSWER_BYTES = 256 << 20
MAX_MESSAGE_BYTES = 64 << 20
"""As a server takes them unless its settings say otherwise."""

_ADDRESS = re.compile(r"tcp://[^\s/]+:(?P<port>\d{1,5})|ipc://.+")

OnGap = Callable[[Gap], None]
OnMessage = Callable[[dict[str, Any]], None]

Socket = TypeVar("Socket", bound="zmq.Socket[Any]")
Lock = TypeVar("Lock")


def _wrong_address(name: str, endpoint: object) -> ConfigError:
    return ConfigError(f"{name}: got {endpoint!r}, allowed: tcp://host:port or ipc://path")


def _check_ms(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name}: got {value!r}, allowed: a finite number above 0")


def slice_ms(until_s: float) -> int:
    """The time until a moment of the monotonic clock in whole milliseconds, SLICE_MS at the most."""
    return math.ceil(min(SLICE_MS, max(0.0, 1000.0 * (until_s - time.monotonic()))))


class ClientCore(Generic[Socket, Lock]):
    """Not for direct use: see InspectionClient and AsyncInspectionClient, which say how to make what they wait with."""

    _new_context: Callable[[], Any]
    _new_lock: Callable[[], Lock]

    def __init__(
        self,
        control: str = "tcp://127.0.0.1:5571",
        results: str | None = "tcp://127.0.0.1:5570",
        *,
        keys: str | os.PathLike[str] | None = None,
        timeout_ms: float = 5000.0,
        recover: bool = True,
        on_gap: OnGap | None = None,
        on_message: OnMessage | None = None,
        wait_for_server: bool = False,
        after: int | None = None,
        silence_ms: float | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        _check_ms("timeout_ms", timeout_ms)
        if silence_ms is not None:
            _check_ms("silence_ms", silence_ms)
        self.control = control
        self.results_address = results
        self.timeout_ms = timeout_ms
        self.max_message_bytes = max_message_bytes
        self.recover = recover
        self.wait_for_server = wait_for_server
        self._keys_file = keys
        self._keys = None if keys is None else ClientKeys.load(keys)
        self._on_gap = on_gap
        self._on_message = on_message
        self._context = self._new_context()
        self._reading = self._new_lock()
        self._request_ids = itertools.count(1)
        self._request_prefix = os.urandom(6).hex()
        self._idle: list[Socket] = []
        self._borrowed = 0
        self._guard = threading.Lock()
        self._closed = False
        self._ready: deque[ResultRecord] = deque()
        self._follower = Follower(time.monotonic(), after=after, silence_ms=silence_ms, connect_ms=timeout_ms)
        self._stream: Socket | None = None
        try:
            self._idle.append(self._connect_control())
            if results is not None:
                self._stream = self._connect(zmq.SUB, "results", results)
        except BaseException:
            self._close_idle()
            self._context.term()
            raise

    @property
    def missed(self) -> int:
        """Results that did not arrive and could not be fetched from the journal."""
        return self._follower.missed

    @property
    def last_heartbeat(self) -> dict[str, Any] | None:
        """The newest that was read from the result stream; None before the first."""
        return self._follower.last_heartbeat

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    # -- requests -----------------------------------------------------------------------------------------------------

    def _new_request_id(self) -> str:
        return f"{self._request_prefix}-{next(self._request_ids)}"

    def _limit_ms(self, call: Call[Any], timeout_ms: float | None) -> float:
        if timeout_ms is not None:
            _check_ms("timeout_ms", timeout_ms)
            return timeout_ms
        return max(self.timeout_ms, SLOW_TIMEOUT_MS) if call.slow else self.timeout_ms

    def _borrow(self) -> Socket:
        """A socket for one request; each is used by one request at a time, so calls do not wait for each other."""
        with self._guard:
            self._check_open()
            self._borrowed += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._connect_control()
        except BaseException:
            with self._guard:
                self._borrowed -= 1
            raise

    def _give_back(self, socket: Socket, *, answered: bool) -> None:
        """A socket whose request was not answered is closed: a late answer must find nobody, least of all the next."""
        with self._guard:
            if answered and not self._closed:
                self._idle.append(socket)
            else:
                socket.close(0)
            self._borrowed -= 1

    def _not_connected(self, limit_ms: float) -> NoAnswerError:
        keys = "no keys were given" if self._keys_file is None else f"given: {os.fspath(self._keys_file)}"
        return NoAnswerError(
            f"control {self.control}: no connection within {limit_ms:g} ms; is the server running, is the address "
            f"right, and are the keys those of this server ({keys})?"
        )

    def _not_answered(self, call: Call[Any], limit_ms: float) -> NoAnswerError:
        return NoAnswerError(
            f"control {self.control}: no answer to {call.op!r} within {limit_ms:g} ms; the server is there, but busy "
            "or stuck, or it was stopped meanwhile, or the message was far larger than it allows"
        )

    # -- the result stream --------------------------------------------------------------------------------------------

    def _stream_socket(self) -> Socket:
        self._check_open()
        if self._stream is None:
            raise ConfigError("results: got None, allowed: the address of the result stream, to follow it")
        return self._stream

    def _stream_wait_ms(self, give_up_s: float | None) -> int:
        """How long to wait for the next message before looking around."""
        silent_s = time.monotonic() + self._follower.silence_left_s(time.monotonic())
        return slice_ms(silent_s if give_up_s is None else min(silent_s, give_up_s))

    def _check_silence(self) -> None:
        """Raise NoAnswerError when the server has said nothing for too long."""
        now_s = time.monotonic()
        if self._follower.silence_left_s(now_s) <= 0:
            self._follower.listen_anew(now_s)
            raise NoAnswerError(
                f"results {self.results_address}: the server is silent; is it running, is the address right, and are "
                "the keys those of this server?"
            )

    def _take(self, frames: list[bytes]) -> Arrival:
        return self._follower.take(b"".join(frames), time.monotonic())

    def _fill(self, gap: Gap, found: list[ResultRecord], cause: str) -> None:
        records, lost = self._follower.fill(gap, found, cause)
        self._follower.listen_anew(time.monotonic())  # asking took its time, and that is no silence of the server
        self._ready.extend(records)
        if self._on_gap is not None:
            for piece in lost:
                self._on_gap(piece)

    def _deliver(self, arrival: Arrival) -> None:
        if arrival.record is not None:
            self._ready.append(arrival.record)
        if arrival.message is not None and self._on_message is not None:
            self._on_message(arrival.message)

    # -- sockets ------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise WireError("the client is closed")

    def _connect_control(self) -> Socket:
        return self._connect(zmq.DEALER, "control", self.control)

    def _connect(self, kind: int, name: str, endpoint: str) -> Socket:
        # ZeroMQ looks at some parts of an address only when it connects, and then goes on trying without a word.
        match = _ADDRESS.fullmatch(endpoint) if isinstance(endpoint, str) else None
        if match is None or (match["port"] is not None and not 0 < int(match["port"]) < 65536):
            raise _wrong_address(name, endpoint)
        socket: Socket = self._context.socket(kind)
        try:
            options: dict[zmq.SocketOption, int] = {
                zmq.LINGER: 0,
                zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
                zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
                zmq.RECONNECT_IVL: _RECONNECT_MS,
                zmq.RECONNECT_IVL_MAX: _RECONNECT_MAX_MS,
                zmq.RCVHWM: _WAITING_RESULTS,
                zmq.MAXMSGSIZE: _MAX_ANSWER_BYTES,
                zmq.IPV6: int(endpoint.startswith("tcp://[")),
                # Nothing is sent before the server has answered the handshake: a request that waits for a server that
                # is not there would be done when it comes, long after its sender has given up.
                zmq.IMMEDIATE: int(kind == zmq.DEALER),
            }
            for option, value in options.items():
                socket.setsockopt(option, value)
            if self._keys is not None:
                socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server_public)
                socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
                socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
            if kind == zmq.SUB:
                socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            raise _wrong_address(name, endpoint) from error
        except BaseException:
            socket.close(0)
            raise
        return socket

    def _close_idle(self) -> None:
        with self._guard:
            idle, self._idle = self._idle, []
        for socket in idle:
            socket.close(0)
