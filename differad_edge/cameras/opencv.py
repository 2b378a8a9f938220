"""USB cameras and network streams (RTSP, HTTP) through cv2.VideoCapture."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import cv2
from numpy.typing import NDArray

from differad_edge.cameras.base import utc_now
from differad_edge.cameras.live import Grabbed, LiveCamera
from differad_edge.cameras.source import shown
from differad_edge.cameras.usb import device_path, usb_serial
from differad_edge.errors import CameraLostError, CameraNotFoundError

__all__ = ["Capture", "OpenCapture", "UsbSettings", "fourcc_name", "network_camera", "open_capture", "usb_camera"]

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_WAITED_SHARE = 0.25  # of the time between two frames: less was no waiting
_BACKLOG_LIMIT_S = 2.0
_SELECT_TIMEOUT_S = 5.0  # a failed grab that took longer is OpenCV's own limit for V4L2 (10 s) and no unplugging


class Capture(Protocol):
    """What is used of cv2.VideoCapture."""

    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, NDArray[Any] | None]: ...
    def read(self) -> tuple[bool, NDArray[Any] | None]: ...
    def get(self, property_id: int, /) -> float: ...
    def set(self, property_id: int, value: float, /) -> bool: ...
    def release(self) -> None: ...


OpenCapture = Callable[["str | int", int, Sequence[int]], "Capture | None"]
"""(file, URL or index, backend, parameters) -> an opened capture, None when it cannot be opened."""


def open_capture(source: str | int, backend: int, parameters: Sequence[int]) -> Capture | None:
    """cv2.VideoCapture, or None. Nothing of the environment is changed: RTSP goes over TCP by OpenCV's own default."""
    capture = cv2.VideoCapture()
    return capture if capture.open(source, backend, list(parameters)) else None


def fourcc_name(capture: Capture) -> str:
    """The four letters of the delivered format ("MJPG", "YUYV", "h264"), "BGR8" when the device does not say."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    name = code.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ")
    return name if len(name) >= 3 and name.isalnum() else "BGR8"


@dataclass(frozen=True)
class UsbSettings:
    """What a USB camera is told when it is opened; None: what it chooses. ``pixel_format``: four letters, "MJPG"."""

    size_px: tuple[int, int] | None = None
    rate_hz: float | None = None
    pixel_format: str | None = None


def usb_camera(
    name: str,
    settings: UsbSettings,
    *,
    open_timeout_ms: float,
    capture: OpenCapture = open_capture,
) -> LiveCamera:
    """``name``: index, device path or by-id path."""

    def connect() -> _CaptureDriver:
        device: Path | None = None
        if sys.platform.startswith("linux"):
            device = device_path(name)  # asked beforehand: OpenCV would only complain on standard error
            opened = capture(str(device), cv2.CAP_V4L2, ())
        else:
            opened = capture(int(name) if name.isdecimal() else name, cv2.CAP_ANY, ())
        if opened is None:
            raise CameraLostError(f"camera {name!r}: cannot be opened; another program may be using it")
        try:
            _apply(opened, settings, name)
        except CameraNotFoundError:
            opened.release()
            raise
        return _CaptureDriver(opened, name, usb_serial(name), device)

    return LiveCamera("usb", name, connect, open_timeout_ms=open_timeout_ms)


def network_camera(
    url: str, *, open_timeout_ms: float, read_timeout_ms: float, capture: OpenCapture = open_capture
) -> LiveCamera:
    """``url``: rtsp, rtsps, http or https. A stream that is silent for ``read_timeout_ms`` is given up."""
    source = shown(url)
    # One decoding thread: with more, FFmpeg holds back as many frames as it has threads.
    parameters = (
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(open_timeout_ms)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(read_timeout_ms)),
        *(cv2.CAP_PROP_N_THREADS, 1),
    )

    def connect() -> _CaptureDriver:
        _knock(url, source, open_timeout_ms)
        opened = capture(url, cv2.CAP_FFMPEG, parameters)
        if opened is None:
            raise CameraLostError(
                f"camera {source!r}: the server answers, but gives no stream within {open_timeout_ms:g} ms; "
                "check path, user and password"
            )
        driver = _CaptureDriver(opened, source, source, None)
        try:
            driver.skip_backlog()
        except CameraLostError:
            driver.release()
            raise
        return driver

    # The camera's own limit comes after the driver's, which gives the better reason.
    return LiveCamera(urlsplit(url).scheme.lower(), source, connect, open_timeout_ms=2 * open_timeout_ms + 500)


class _CaptureDriver:
    """A `differad_edge.cameras.live.Driver` on a capture."""

    simulated = False

    def __init__(self, capture: Capture, source: str, serial: str, device: Path | None) -> None:
        self.serial = serial
        self._capture, self._source, self._device = capture, source, device
        self._pixel_format = fourcc_name(capture)
        self._at_hand = False

    def skip_backlog(self) -> None:
        """Drop what the stream sent while its format was being found out: near a second of frames.

        They come without waiting; the first that had to be waited for is a fresh one.
        """
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        waiting_s = _WAITED_SHARE / (rate_hz if 1 <= rate_hz <= 240 else 25.0)
        end = time.monotonic() + _BACKLOG_LIMIT_S
        took_s = 0.0
        while took_s < waiting_s and time.monotonic() < end:
            began = time.monotonic()
            if not self._capture.grab():
                raise CameraLostError(f"camera {self._source!r}: the stream broke off at its beginning")
            took_s = time.monotonic() - began
        self._at_hand = True

    def grab(self) -> Grabbed | None:
        began = time.monotonic()
        if self._at_hand:
            self._at_hand = False
        elif not self._capture.grab():
            waited = time.monotonic() - began
            if waited >= _SELECT_TIMEOUT_S and self._device is not None and self._device.exists():
                return None  # a camera that waits for its hardware trigger
            # Not asked again: after an unplugging the next answer may be yes, with an old picture.
            raise CameraLostError(f"camera {self._source!r}: the stream broke off after {waited * 1e3:.0f} ms")
        now, utc = time.monotonic_ns(), utc_now()
        got, image = self._capture.retrieve()
        return Grabbed(image if got else None, now, utc, self._pixel_format)

    def release(self) -> None:
        self._capture.release()


def _knock(url: str, source: str, timeout_ms: float) -> None:
    """Reach the server first.

    A refused connection or an unknown name has a precise error here, and a dead camera does not keep the others
    waiting: OpenCV opens one stream at a time.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or _PORTS[parts.scheme.lower()])
    try:
        socket.create_connection(address, timeout_ms / 1e3).close()
    except (OSError, UnicodeError) as error:
        raise CameraNotFoundError(f"camera {source!r}: cannot be reached: {error}") from error


def _apply(capture: Capture, settings: UsbSettings, name: str) -> None:
    """Set, and ask: a camera takes no notice of what it does not have."""
    if settings.pixel_format is not None:  # first: sizes and rates depend on it
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.pixel_format))
        _agree(name, "format", settings.pixel_format.upper(), fourcc_name(capture).upper())
    if settings.size_px is not None:
        width, height = settings.size_px
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        given = (round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        _agree(name, "size", f"{width}x{height}", f"{given[0]}x{given[1]}")
    if settings.rate_hz is not None:
        capture.set(cv2.CAP_PROP_FPS, settings.rate_hz)


def _agree(name: str, setting: str, wanted: str, given: str) -> None:
    if wanted != given:
        raise CameraNotFoundError(f"camera {name!r}: {setting}: got {wanted}, allowed: what it has, such as {given}")
