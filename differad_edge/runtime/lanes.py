"""Threads for what takes long, so that what is quick never waits behind it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

__all__ = ["Lane"]

_log = logging.getLogger(__name__)


class Lane:
    """Jobs one after the other in each of ``threads`` threads; at most ``capacity`` wait.

    The threads are daemons: a job that hangs must not keep the process from ending.
    """

    def __init__(self, name: str, *, threads: int = 1, capacity: int) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(capacity)
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]

    def start(self) -> None:
        """Start working."""
        for thread in self._threads:
            thread.start()

    def offer(self, job: Callable[[], None]) -> bool:
        """Take a job, which must not raise; False when so many wait already. Returns at once."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    def close(self, timeout_s: float) -> None:
        """Drop what waits; what is being done gets ``timeout_s`` seconds, then it is left to itself."""
        while True:
            try:
                self._jobs.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                _log.exception("a job failed")
            del job  # it may hold images
