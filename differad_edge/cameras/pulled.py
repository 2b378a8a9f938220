"""Cameras whose frames come when they are read: video files and folders."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import ClassVar

from differad_edge.cameras.base import CameraInfo, Frame
from differad_edge.cameras.pacing import Clock, MonotonicClock, Pace
from differad_edge.errors import CameraLostError
from differad_edge.images import Image

__all__ = ["PulledCamera"]

_CLOSE_LIMIT_S = 1.0


class PulledCamera(ABC):
    """See `differad_edge.cameras.base.Camera`.

    ``source`` and ``serial``: for CameraInfo; ``rate_hz``: frames come no faster. A picture on a disk that does not
    answer is beyond any time limit; `close` then leaves the letting go to the thread that reads.
    """

    kind: ClassVar[str]

    def __init__(self, source: str, serial: str, *, rate_hz: float | None = None, clock: Clock | None = None) -> None:
        self._source, self._serial, self._rate_hz = source, serial, rate_hz
        self._clock = clock or MonotonicClock()
        self._in_use = threading.Lock()
        self._stop: threading.Event | None = None
        self._pace = Pace(None, self._clock)
        self._sequence = 0

    def open(self) -> CameraInfo:
        """Begin at the first frame. Raises CameraNotFoundError, CameraLostError."""
        self.close()
        if not self._in_use.acquire(timeout=_CLOSE_LIMIT_S):
            raise CameraLostError(f"camera {self._source!r}: an earlier read still hangs")
        try:
            self._connect()
            self._pace = Pace(self._rate_hz, self._clock)
            self._stop = threading.Event()
        finally:
            self._in_use.release()
        return self._info()

    def read(self, timeout_ms: float) -> Frame:
        """The next frame. Raises CameraTimeoutError, CameraLostError, CameraEndedError, TornFrameError."""
        with self._in_use:
            stop = self._stop
            if stop is None:
                raise CameraLostError(f"camera {self._source!r}: is not open")
            try:
                self._pace.wait(timeout_ms, stop)
                self._check(stop)
                image, pixel_format = self._next(timeout_ms, stop)
                self._check(stop)
            finally:
                if stop.is_set():
                    self._disconnect()
            return self._frame(image, pixel_format)

    def close(self) -> None:
        """End a read that waits, and let go."""
        self._end()
        if self._in_use.acquire(timeout=_CLOSE_LIMIT_S):
            try:
                self._end()  # of an open that was under way
                self._disconnect()
            finally:
                self._in_use.release()

    @abstractmethod
    def _connect(self) -> None:
        """Raises CameraNotFoundError, CameraLostError."""

    @abstractmethod
    def _next(self, timeout_ms: float, stop: threading.Event) -> tuple[Image, str]:
        """The next picture and its pixel format. A torn one is counted with `_count` before it is raised."""

    def _info(self) -> CameraInfo:
        """Once it is connected."""
        return CameraInfo(self.kind, self._source, self._serial, live=False)

    def _frame(self, image: Image, pixel_format: str) -> Frame:
        """Of what `_next` gave."""
        return Frame.now(image, self._count(), pixel_format=pixel_format, serial=self._serial)

    def _disconnect(self) -> None:  # noqa: B027  # not everything has something to let go of
        """May be called twice."""

    def _end(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.set()

    def _count(self) -> int:
        """The number of the frame at hand."""
        self._sequence += 1
        return self._sequence - 1

    def _check(self, stop: threading.Event) -> None:
        if stop.is_set():
            raise CameraLostError(f"camera {self._source!r}: was closed")
