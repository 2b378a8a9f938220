"""What a camera is: open, read with a time limit, close."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # names a type only, and brings OpenCV along
    from differad_edge.images import Image

__all__ = ["Camera", "CameraInfo", "Checked", "Frame", "utc_now"]


def utc_now(age_ns: int = 0) -> str:
    """Now, or ``age_ns`` ago: ISO 8601 with microseconds and Z. Wall time stamps records; it never measures."""
    moment = datetime.now(timezone.utc) - timedelta(microseconds=age_ns / 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture. ``image``: HxWx3 uint8 BGR, not written to by anybody from now on.

    ``sequence``: the camera's own count, rising; a gap is a frame that was lost on the way. The cameras of this package
    go on counting when they are opened again, others may begin anew;
    ``captured_ns``: time.monotonic_ns() when it was captured, or as soon as it was known; ``captured_utc``: a stamp;
    ``pixel_format``: how the device delivered it, such as "BGR8", "Mono8", "MJPG"; ``serial``: of the device.
    """

    image: Image
    sequence: int
    captured_ns: int
    captured_utc: str
    pixel_format: str
    serial: str

    @classmethod
    def now(cls, image: Image, sequence: int, *, pixel_format: str = "BGR8", serial: str) -> Frame:
        """A frame with the stamps of this moment."""
        return cls(image, sequence, time.monotonic_ns(), utc_now(), pixel_format, serial)


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """``serial``: what tells this device from others of its kind, stable over reboots where the device has such.

    ``live``: frames come by themselves, whether somebody reads or not (USB, RTSP); False: a frame comes when it is
    read (files, generated parts, a software trigger). ``triggered``: live, and silent for as long as no signal triggers
    it: no frame within a time says nothing about its health, which it watches over by itself. ``simulated``: its parts
    are not real.
    """

    kind: str
    source: str
    serial: str
    live: bool
    simulated: bool = False
    triggered: bool = False


@runtime_checkable
class Camera(Protocol):
    """One thread at a time uses a camera; `close` may be called from any, and ends a `read` that waits."""

    def open(self) -> CameraInfo:
        """Connect. Raises CameraNotFoundError, CameraLostError; may be called again after `close`."""
        ...

    def read(self, timeout_ms: float) -> Frame:
        """The next frame that has not been read yet; of a live camera the newest, and never one twice.

        Raises CameraTimeoutError, CameraLostError (open again), CameraEndedError (no more frames), TornFrameError.
        """
        ...

    def close(self) -> None:
        """Let go of the device. Never raises; closing twice is closing once."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A camera that can be asked whether it is there while nobody wants a frame of it."""

    def check(self) -> None:
        """Return when it answers. Raises CameraLostError."""
        ...
