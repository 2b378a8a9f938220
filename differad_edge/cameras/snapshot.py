"""A few pictures from a camera, for golden samples."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

from differad_edge.cameras.base import Camera
from differad_edge.errors import CameraTimeoutError, TornFrameError
from differad_edge.images import Image

__all__ = ["GoldenSource", "golden_samples"]

_SETTLE_MS = 1000.0  # a camera that has just been opened is still finding its exposure
_MOST_TORN = 10


@runtime_checkable
class GoldenSource(Protocol):
    """A camera that knows its golden samples, as a simulated one does."""

    def golden_samples(self, count: int) -> list[Image]:
        """``count`` >= 1 sound samples, the best one first."""
        ...


def golden_samples(camera: Camera, count: int, *, timeout_ms: float = 5000.0) -> list[Image]:
    """``count`` pictures of the part that lies before ``camera`` (not open); a GoldenSource gives its own.

    Frames of a live camera's first second are left out. ``timeout_ms``: for each frame. Raises CameraError.
    """
    if isinstance(camera, GoldenSource):
        return camera.golden_samples(count)
    try:
        if camera.open().live:
            _let_settle(camera, timeout_ms)
        return [_sound_frame(camera, timeout_ms) for _ in range(count)]
    finally:
        camera.close()


def _let_settle(camera: Camera, timeout_ms: float) -> None:
    end = time.monotonic() + _SETTLE_MS / 1e3
    while time.monotonic() < end:
        _sound_frame(camera, timeout_ms)


def _sound_frame(camera: Camera, timeout_ms: float) -> Image:
    for _ in range(_MOST_TORN):
        try:
            return camera.read(timeout_ms).image
        except TornFrameError as error:
            torn = error
    raise CameraTimeoutError(f"{_MOST_TORN} frames in a row cannot be used: {torn}") from torn
