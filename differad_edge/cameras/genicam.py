"""Cameras of any make that bring a GenTL producer (a .cti file) along, through Harvesters.

Every exception of Harvesters, GenTL and GenApi becomes a CameraError in this file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from differad_edge.cameras.base import Camera
from differad_edge.cameras.device import Block, DeviceSettings, device_camera
from differad_edge.cameras.features import Features
from differad_edge.cameras.pixel_formats import RawImage
from differad_edge.errors import (
    CameraError,
    CameraLostError,
    CameraNotFoundError,
    CameraTimeoutError,
    MissingExtraError,
)

try:
    from genicam import genapi, gentl
    from harvesters.core import Callback, Harvester, ImageAcquirer
except ModuleNotFoundError as error:
    raise MissingExtraError("cameras", "harvesters") from error

__all__ = ["GenicamDevice", "genicam_camera"]

_BUFFERS = 16
_SHORTEST_S = 0.001  # Harvesters takes 0 for without end
# Harvesters itself raises these two for what it cannot use.
_ERRORS = (genapi.GenericException, gentl.GenericException, ValueError, AttributeError)


def genicam_camera(
    source: str, producer: Path, serial: str, settings: DeviceSettings, *, open_timeout_ms: float
) -> Camera:
    """``producer``: the .cti file; ``serial``: of the camera, "": the only one that the producer knows."""
    return device_camera(
        "genicam",
        source,
        lambda: GenicamDevice(source, producer, serial, settings),
        settings,
        open_timeout_ms=open_timeout_ms,
    )


class _Incomplete(Callback):  # type: ignore[misc]  # Harvesters has no types
    """Counts the buffers that Harvesters throws away because they were not filled."""

    def __init__(self) -> None:
        self.count = 0

    def emit(self, context: object = None) -> None:
        self.count += 1


class GenicamDevice:
    """A `differad_edge.cameras.device.Device`. Raises CameraNotFoundError, CameraLostError."""

    simulated = False

    def __init__(self, source: str, producer: Path, serial: str, settings: DeviceSettings) -> None:
        self._source = source
        self._acquirer: Any = None
        self._incomplete = _Incomplete()
        if not producer.is_file():
            raise CameraNotFoundError(f"camera {source!r}: no such file, allowed: the .cti file of a GenTL producer")
        self._harvester = Harvester()
        try:
            with _genicam(source, "cannot look for cameras", CameraLostError):
                self._harvester.add_file(str(producer))
                self._harvester.update()
                self.serial = self._find(serial)
            with _genicam(source, "cannot be opened; another program may be using it", CameraLostError):
                self._acquirer = self._harvester.create({"serial_number": self.serial})
            with _genicam(source, "cannot be set up", CameraLostError):
                self._acquirer.num_buffers = max(_BUFFERS, self._acquirer.min_num_buffers)
                self._acquirer.add_callback(ImageAcquirer.Events.INCOMPLETE_BUFFER, self._incomplete)
                self._nodes = self._acquirer.remote_device.node_map
                self._features = Features(source, self._node, genapi.is_writable, str, genapi.GenericException)
                self._pixel_format = self._features.apply(settings)
            with _genicam(source, "gives no frames", CameraLostError):
                self._acquirer.start()
        except CameraError:
            self.release()
            raise

    def fire(self, timeout_ms: float) -> None:
        """See `Device`."""
        end_s = time.monotonic() + timeout_ms / 1e3
        with _genicam(self._source, "cannot be triggered", CameraLostError):
            command = self._nodes.get_node("TriggerSoftware")
            command.execute()
            while not command.is_done():
                if time.monotonic() > end_s:
                    raise CameraTimeoutError(f"camera {self._source!r}: takes no trigger within {timeout_ms:g} ms")
                time.sleep(_SHORTEST_S)

    def next(self, timeout_ms: float) -> Block | None:
        """See `Device`."""
        before = self._incomplete.count
        with _genicam(self._source, "broke off", CameraLostError):
            raw = self._acquirer.try_fetch(timeout=max(timeout_ms / 1e3, _SHORTEST_S), is_raw=True)
            if raw is None:
                if self._incomplete.count > before:
                    return Block("the frame is incomplete", None, 0)
                return None
            try:
                return self._block(raw)
            finally:
                raw.parent.queue_buffer(raw)

    def restart(self) -> None:
        """See `Device`."""
        with _genicam(self._source, "cannot begin anew", CameraLostError):
            self._acquirer.stop()
            self._acquirer.start()

    def check(self) -> None:
        """See `Device`."""
        with _genicam(self._source, "does not answer", CameraLostError):
            self._nodes.poll(0)  # forgets what it remembers of the camera
            self._features.number("Width")

    def release(self) -> None:
        """See `Device`."""
        acquirer, self._acquirer = self._acquirer, None
        with suppress(*_ERRORS):
            if acquirer is not None:
                acquirer.destroy()
        with suppress(*_ERRORS):
            self._harvester.reset()

    def _find(self, serial: str) -> str:
        there = [str(info.serial_number) for info in self._harvester.device_info_list]
        found = [each for each in there if serial in ("", each)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(sorted(there)) or "none: is it a GenTL producer for this machine?"
        allowed = f"serial=one of those that the producer knows ({names})"
        raise CameraNotFoundError(f"camera {self._source!r}: serial: got {serial!r}, allowed: {allowed}")

    def _node(self, name: str) -> Any:
        if not self._nodes.has_node(name):
            return None
        node = self._nodes.get_node(name)
        return node if genapi.is_available(node) else None

    def _block(self, raw: Any) -> Block:
        number, stamp_ns = _said(raw, "frame_id"), _said(raw, "timestamp_ns") or 0
        width, height = int(raw.width), int(raw.height)
        code = int(raw.pixel_format)
        name = self._pixel_format[1] if code == self._pixel_format[0] else f"{code:#x}"
        bits = code >> 16 & 0xFF  # GenICam's codes hold the size of a pixel
        padding = _said(raw, "padding_x") or 0
        row_bytes = math.ceil(width * bits / 8) + padding if padding else None
        whole = row_bytes * height if row_bytes else math.ceil(width * height * bits / 8)
        begin = _said(raw, "image_offset") or 0
        if raw.size_filled < begin + whole:
            return Block(f"the frame is incomplete: {raw.size_filled} of {begin + whole} bytes", None, 0)
        data = raw.raw_buffer[begin : begin + whole]
        return Block(RawImage(data, (width, height), name, row_bytes), number, stamp_ns)


def _said(raw: Any, name: str) -> int | None:
    """What a producer says about a buffer, if it says it."""
    try:
        return int(getattr(raw, name))
    except gentl.GenericException:
        return None


@contextmanager
def _genicam(source: str, what: str, error_type: type[CameraError]) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise error_type(f"camera {source!r}: {what}: {type(error).__name__}: {error}") from error
