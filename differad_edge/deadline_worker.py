"""Keep a caller's deadline although the work it waits for cannot be interrupted."""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Generic, TypeAlias, TypeVar

from differad_edge.deadline import Deadline
from differad_edge.errors import DeadlineExceeded

__all__ = ["DeadlineWorker"]

Result = TypeVar("Result")
_Calls: TypeAlias = "queue.SimpleQueue[tuple[Callable[[], Result], Future[Result]] | None]"

OnLate: TypeAlias = "Callable[[Result], None]"

_RETURN_MARGIN_MS = 2.0
"""What waking the caller and writing the answer takes: waiting ends this long before the deadline."""

_EXIT_S = 2.0
_running: weakref.WeakKeyDictionary[threading.Thread, _Calls[Any]] = weakref.WeakKeyDictionary()


def _finish() -> None:
    """Let work that nobody waits for end before the interpreter does, for a while.

    Python ends a daemon thread that comes back from native code by unwinding its stack; C++ between there and here ends
    the process for that ("terminate called without an active exception"), with 134 instead of the program's exit code.
    """
    threads = list(_running.items())
    for _, calls in threads:
        calls.put(None)
    give_up_s = time.monotonic() + _EXIT_S
    for thread, _ in threads:
        thread.join(max(0.0, give_up_s - time.monotonic()))


atexit.register(_finish)


class DeadlineWorker(Generic[Result]):
    """One thread that works through calls in order; callers wait no longer than their deadline.

    Work whose caller has left goes on to its end, its result is dropped, and the next caller waits for it within its
    own deadline. The thread is a daemon: work that hangs for ever does not keep the process alive for long.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: _Calls[Result] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._began_s: float | None = None  # of the call that is being worked on
        self._lock = threading.Lock()  # of the two above: a call must not reach a thread that is about to end

    @property
    def busy_ms(self) -> float:
        """How long the call in hand has been worked on, whether anybody still waits for it; 0.0 without one."""
        began_s = self._began_s
        return 0.0 if began_s is None else (time.monotonic() - began_s) * 1e3

    def call(
        self, work: Callable[[], Result], deadline: Deadline | None, *, on_late: OnLate[Result] | None = None
    ) -> Result:
        """Return what ``work`` returns, or raise what it raises.

        Raises DeadlineExceeded shortly before ``deadline`` when it is not done by then; ``work`` is then not started
        any more if it was still waiting for its turn. What it returns after that goes to ``on_late``, from this
        worker's thread, and to nobody else.
        """
        future: Future[Result] = Future()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, args=(self._calls,), name=self._name, daemon=True)
                _running[self._thread] = self._calls
                self._thread.start()
            self._calls.put((work, future))
        if deadline is None:
            return future.result()
        try:
            return future.result(timeout=max(0.0, deadline.remaining_ms - _RETURN_MARGIN_MS) / 1000)
        except FutureTimeout as error:
            if future.done():  # the work itself may raise a TimeoutError
                return future.result()
            waiting = future.cancel()
            if on_late is not None and not waiting:
                future.add_done_callback(lambda done: done.exception() is None and on_late(done.result()))
            raise DeadlineExceeded(
                f"the deadline of {deadline.budget_ms:g} ms has passed"
                + (" before the comparison could start" if waiting else "")
            ) from error

    def close(self) -> None:
        """Let the thread end after the calls it has been given; a later call starts another one."""
        with self._lock:
            if self._thread is not None:
                self._calls.put(None)
                self._thread, self._calls = None, queue.SimpleQueue()

    def _run(self, calls: _Calls[Result]) -> None:
        while (item := calls.get()) is not None:
            work, future = item
            if not future.set_running_or_notify_cancel():
                continue
            self._began_s = time.monotonic()
            try:
                result = work()
            except BaseException as error:
                self._began_s = None
                future.set_exception(error)
            else:
                self._began_s = None
                future.set_result(result)
            del work, future, item  # a dropped part's image must not live until the next part comes
