"""The result stream: every message to every subscriber, and never a wait for a slow one."""

from __future__ import annotations

import threading
from pathlib import Path

from differad_edge.runtime.binding import BoundSocket
from differad_edge.runtime.wire import MAX_HEADER_BYTES
from differad_edge.runtime.zeromq import zmq

__all__ = ["Publisher"]

_LAST_WORDS_MS = 500  # how long what was published may take to leave after close()


class Publisher:
    """A PUB socket that any thread may send to.

    ``endpoint``: tcp://host:port or ipc://path, port * or 0 for any that is free; the property `endpoint` says which;
    ``keys``: folder made by `differad-edge keys`; ``high_water_mark``: messages that wait for one slow subscriber, who
    misses those beyond it. Raises ConfigError, AddressInUseError.
    """

    def __init__(self, endpoint: str, *, keys: Path | None = None, high_water_mark: int = 2000) -> None:
        # What subscribers send are subscriptions: short.
        options = {zmq.SNDHWM: high_water_mark, zmq.MAXMSGSIZE: MAX_HEADER_BYTES}
        self._bound = BoundSocket("publish", zmq.PUB, endpoint, keys=keys, options=options)
        self._lock = threading.Lock()
        self._closed = False

    @property
    def endpoint(self) -> str:
        """Where it is bound."""
        return self._bound.endpoint

    def send(self, message: bytes) -> None:
        """One message as one frame; from any thread, returns at once. After `close` nothing happens."""
        with self._lock:
            if not self._closed:
                self._bound.socket.send(message, zmq.NOBLOCK)

    def close(self) -> None:
        """Let go of the address; what was sent before still leaves, for half a second at the most."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._bound.close(_LAST_WORDS_MS)
