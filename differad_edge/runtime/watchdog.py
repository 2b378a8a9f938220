"""Looks after the line: heartbeats, hanging engines and cameras, products that changed on disk."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from differad_edge.deadline import Clock

__all__ = ["Occasional", "Periodic", "RestartBudget", "Supervisor", "tell_systemd"]

_log = logging.getLogger(__name__)

_TICK_S = 0.02


class RestartBudget:
    """So many restarts within a sliding window, and no more: what fails at once every time needs a person."""

    def __init__(self, restarts: int, window_s: float, *, clock: Clock = time.monotonic) -> None:
        self._restarts = restarts
        self._window_s = window_s
        self._clock = clock
        self._spent: deque[float] = deque()

    def spend(self) -> bool:
        """Take one; False when none is left."""
        now_s = self._clock()
        while self._spent and now_s - self._spent[0] > self._window_s:
            self._spent.popleft()
        if len(self._spent) >= self._restarts:
            return False
        self._spent.append(now_s)
        return True

    def renew(self) -> None:
        """A person has looked at it."""
        self._spent.clear()


class Periodic:
    """Something to do every ``period_s`` seconds; what it raises is logged and does not end it."""

    def __init__(self, period_s: float, work: Callable[[], object], *, clock: Clock = time.monotonic) -> None:
        self._period_s = period_s
        self._work = work
        self._clock = clock
        self._due_s = clock()

    def tick(self) -> None:
        """Do it if it is due."""
        now_s = self._clock()
        if now_s < self._due_s:
            return
        # Ticks that a stalled machine slept through are not made up for.
        on_schedule_s = self._due_s + self._period_s
        self._due_s = on_schedule_s if on_schedule_s > now_s else now_s + self._period_s
        try:
            self._work()
        except Exception:  # the one who looks after everything else must not fall
            _log.exception("supervision")


class Occasional:
    """Long work in a thread of its own, once at a time."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it is at it still."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()


class Supervisor:
    """One thread for everything periodic; a duty that takes long belongs into an `Occasional`."""

    def __init__(self, *duties: Periodic) -> None:
        self._duties = duties
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.wait(_TICK_S):
            for duty in self._duties:
                duty.tick()


def tell_systemd(message: str) -> None:
    """READY=1, WATCHDOG=1, STOPPING=1, STATUS=...: see sd_notify(3). Without systemd nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
            to_systemd.connect("\0" + address[1:] if address.startswith("@") else address)
            to_systemd.send(message.encode())
    except OSError as error:
        _log.debug("systemd does not listen: %s", error)
