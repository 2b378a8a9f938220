"""Cameras that send frames by themselves: a thread takes every one, the reader gets the newest.

The thread makes `read` keep its time limit whatever the driver does, drains the driver's queue so that no frame is old
when it is read, and sees the end of a stream at once. It alone touches the driver, from connecting to releasing. A
driver that hangs is left behind with its thread, which lets go of the device as soon as the driver returns.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from differad_edge.cameras.base import CameraInfo, Frame
from differad_edge.cameras.pixels import as_bgr
from differad_edge.errors import CameraError, CameraLostError, CameraTimeoutError, TornFrameError

__all__ = ["Connect", "Driver", "Grabbed", "LiveCamera"]

_CLOSE_LIMIT_S = 1.0
_MOST_HANGING = 3  # threads that a camera leaves behind before it refuses to start more


@dataclass(frozen=True, slots=True)
class Grabbed:
    """A picture as the driver gave it (see `pixels.as_bgr`), with the moment it arrived.

    ``skipped``: frames that the device counted before this one and that never came; ``fault``: why the picture cannot
    be used, None when it can.
    """

    image: NDArray[Any] | None
    captured_ns: int
    captured_utc: str
    pixel_format: str
    skipped: int = 0
    fault: str | None = None


class Driver(Protocol):
    """A connected device. Only one thread uses it. ``serial``, ``simulated``: see CameraInfo."""

    serial: str
    simulated: bool

    def grab(self) -> Grabbed | None:
        """Wait for the next frame; None: none came and the device is alive. Raises CameraError when it is not."""
        ...

    def release(self) -> None:
        """Let go of the device."""
        ...


Connect = Callable[[], Driver]
"""Opens the device. Raises CameraError."""


class LiveCamera:
    """A camera behind a `Driver`; see `differad_edge.cameras.base.Camera` for the methods.

    ``kind``, ``source``, ``triggered``: for CameraInfo, and how messages call it; ``open_timeout_ms``: how long
    connecting may take.
    """

    def __init__(
        self, kind: str, source: str, connect: Connect, *, open_timeout_ms: float = 10_000.0, triggered: bool = False
    ) -> None:
        self._kind, self._source, self._connect, self._triggered = kind, source, connect, triggered
        self._open_timeout_s = open_timeout_ms / 1e3
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._hanging: list[_Session] = []
        self._sequence = 0

    def open(self) -> CameraInfo:
        """Connect within the time that was given. Raises CameraNotFoundError, CameraLostError."""
        self.close()
        with self._lock:
            self._hanging = [session for session in self._hanging if session.is_alive]
            if len(self._hanging) >= _MOST_HANGING:
                raise CameraLostError(
                    f"camera {self._source!r}: its driver still hangs in {len(self._hanging)} earlier sessions"
                )
            session = self._session = _Session(self._source, self._connect, self._sequence)
        try:
            serial, simulated = session.connected(self._open_timeout_s)
        except CameraError:
            self.close()
            raise
        return CameraInfo(self._kind, self._source, serial, True, simulated, self._triggered)

    def read(self, timeout_ms: float) -> Frame:
        """The newest frame that has not been read yet, at the latest after ``timeout_ms``."""
        session = self._session
        if session is None:
            raise CameraLostError(f"camera {self._source!r}: is not open")
        return session.newest(timeout_ms)

    def close(self) -> None:
        """End the session; a driver that does not answer within a second is left to its thread."""
        with self._lock:
            session, self._session = self._session, None
            if session is None:
                return
            self._sequence = session.stop()
        if not session.ended_within(_CLOSE_LIMIT_S):
            with self._lock:
                self._hanging.append(session)


class _Session:
    """One connection and its thread. It keeps no reference to the camera: what comes too late ends here."""

    def __init__(self, source: str, connect: Connect, sequence: int) -> None:
        self._source, self._connect = source, connect
        self._sequence = sequence
        self._changed = threading.Condition()
        self._device: tuple[str, bool] | None = None
        self._newest: Frame | TornFrameError | None = None
        self._end: CameraError | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"camera {source}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def connected(self, timeout_s: float) -> tuple[str, bool]:
        """The serial, and whether it is simulated, once the device is there."""
        with self._changed:
            self._changed.wait_for(lambda: self._device is not None or self._end is not None, timeout_s)
            if self._end is not None:
                raise _fresh(self._end)
            if self._device is None:
                raise CameraLostError(f"camera {self._source!r}: did not open within {timeout_s * 1e3:.0f} ms")
            return self._device

    def newest(self, timeout_ms: float) -> Frame:
        with self._changed:
            self._changed.wait_for(
                lambda: self._newest is not None or self._end is not None,
                min(max(timeout_ms, 0.0) / 1e3, threading.TIMEOUT_MAX),
            )
            newest, self._newest = self._newest, None
            if self._end is not None and (newest is None or self._stopped):
                raise _fresh(self._end)
        if newest is None:
            raise CameraTimeoutError(f"camera {self._source!r}: no frame within {timeout_ms:g} ms")
        if isinstance(newest, TornFrameError):
            raise newest
        return newest

    def stop(self) -> int:
        """End it, and whoever waits for it. The number that the next frame would have had."""
        with self._changed:
            self._stopped = True
            self._end = CameraLostError(f"camera {self._source!r}: was closed")
            self._changed.notify_all()
            return self._sequence

    def ended_within(self, seconds: float) -> bool:
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            driver = self._connect()
        except Exception as error:
            self._finish(error)
            return
        try:
            with self._changed:
                self._device = (driver.serial, driver.simulated)
                self._changed.notify_all()
            while not self._stopped:
                grabbed = driver.grab()
                if grabbed is not None:
                    self._offer(grabbed, driver.serial)
        except Exception as error:
            self._finish(error)
        finally:
            with contextlib.suppress(Exception):  # there is nobody left to tell
                driver.release()

    def _offer(self, grabbed: Grabbed, serial: str) -> None:
        newest: Frame | TornFrameError
        sequence = self._sequence + grabbed.skipped
        try:
            if grabbed.fault is not None:
                raise TornFrameError(grabbed.fault)
            image = as_bgr(grabbed.image, self._source)
            newest = Frame(image, sequence, grabbed.captured_ns, grabbed.captured_utc, grabbed.pixel_format, serial)
        except TornFrameError as error:
            newest = TornFrameError(str(error), sequence)
        with self._changed:
            if not self._stopped:
                self._sequence = sequence + 1
                self._newest = newest
                self._changed.notify_all()

    def _finish(self, error: Exception) -> None:
        if not isinstance(error, CameraError):  # cv2.error, OSError, or whatever a driver throws
            lost = CameraLostError(f"camera {self._source!r}: its driver failed: {type(error).__name__}: {error}")
            lost.__cause__ = error
            error = lost
        with self._changed:
            if self._end is None:
                self._end = error
            self._changed.notify_all()


def _fresh(error: CameraError) -> CameraError:
    """The same error once more: one that is raised repeatedly would gather tracebacks without end."""
    copy = type(error)(str(error))
    copy.__cause__ = error.__cause__
    return copy
