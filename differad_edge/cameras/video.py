"""Video files, frame by frame."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import cv2

from differad_edge.cameras.opencv import Capture, fourcc_name, open_capture
from differad_edge.cameras.pacing import Clock
from differad_edge.cameras.pixels import as_bgr
from differad_edge.cameras.pulled import PulledCamera
from differad_edge.errors import CameraEndedError, CameraLostError, CameraNotFoundError, TornFrameError
from differad_edge.images import Image

__all__ = ["VideoCamera"]


class VideoCamera(PulledCamera):
    """A file of a format that FFmpeg reads. ``loop``: begin again at the end, instead of CameraEndedError."""

    kind: ClassVar[str] = "video"

    def __init__(
        self, path: Path, *, loop: bool = False, rate_hz: float | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(str(path), path.name, rate_hz=rate_hz, clock=clock)
        self._path, self._loop = path, loop
        self._capture: Capture | None = None
        self._pixel_format = ""
        self._read_any = False

    def _connect(self) -> None:
        self._disconnect()
        if not self._path.is_file():  # asked beforehand: OpenCV would only complain on standard error
            raise CameraNotFoundError(f"camera {self._source!r}: no such file, allowed: a video file")
        capture = open_capture(str(self._path), cv2.CAP_FFMPEG, ())
        if capture is None:
            raise CameraNotFoundError(f"camera {self._source!r}: is no video, or of a kind that FFmpeg cannot read")
        self._capture, self._pixel_format, self._read_any = capture, fourcc_name(capture), False

    def _next(self, timeout_ms: float, stop: threading.Event) -> tuple[Image, str]:
        if not self._grab() and self._loop and self._read_any:
            self._connect()
            self._grab()
        if self._capture is None:
            raise CameraEndedError(f"camera {self._source!r}: the video has ended")
        self._read_any = True
        _, raw = self._capture.retrieve()
        try:
            return as_bgr(raw, self._source), self._pixel_format
        except TornFrameError:
            self._count()
            raise

    def _grab(self) -> bool:
        """Whether there is another frame; without one the file is let go of."""
        if self._capture is not None and self._capture.grab():
            return True
        if self._capture is not None and not self._read_any:
            raise CameraLostError(f"camera {self._source!r}: no frame of the video can be decoded")
        self._disconnect()
        return False

    def _disconnect(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()
