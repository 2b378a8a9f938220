"""Basler cameras through pylon. Its emulated cameras (PYLON_CAMEMU=2 in the environment) are as good as real ones here.

Every exception of pylon becomes a CameraError in this file.
"""

from __future__ import annotations

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
    from pypylon import genicam, pylon
except ModuleNotFoundError as error:
    raise MissingExtraError("cameras", "pypylon") from error

__all__ = ["BaslerDevice", "basler_camera", "basler_serials"]

_BUFFERS = 16
_EMULATED = "BaslerCamEmu"
_TICKS_PER_S = 1_000_000_000  # where the camera does not say another number


def basler_serials() -> list[str]:
    """The serial numbers of all that are connected. Raises CameraLostError when pylon fails."""
    with _pylon("basler:", "cannot look for cameras", CameraLostError):
        return [info.GetSerialNumber() for info in pylon.TlFactory.GetInstance().EnumerateDevices()]


def basler_camera(
    source: str, serial: str, settings: DeviceSettings, *, images: Path | None = None, open_timeout_ms: float
) -> Camera:
    """``serial``: of the camera, "": the only one that is connected; ``images``: what an emulated one shows."""
    return device_camera(
        "basler",
        source,
        lambda: BaslerDevice(source, serial, settings, images),
        settings,
        open_timeout_ms=open_timeout_ms,
    )


class BaslerDevice:
    """A `differad_edge.cameras.device.Device`. Raises CameraNotFoundError, CameraLostError."""

    def __init__(self, source: str, serial: str, settings: DeviceSettings, images: Path | None = None) -> None:
        self._source = source
        info = _find(source, serial)
        self.serial: str = info.GetSerialNumber()
        self.simulated: bool = info.GetDeviceClass() == _EMULATED
        with _pylon(source, "cannot be opened; another program may be using it", CameraLostError):
            self.camera = pylon.InstantCamera(pylon.TlFactory.GetInstance().CreateDevice(info))
            self.camera.Open()
        try:
            with _pylon(source, "cannot be set up", CameraLostError):
                self._features = Features(source, self._node, genicam.IsWritable, _spelled, genicam.GenericException)
                self._show(images)
                self.camera.MaxNumBuffer.Value = _BUFFERS
                self._pixel_format = self._features.apply(settings)
                self._ticks_per_s = self._features.number("GevTimestampTickFrequency") or _TICKS_PER_S
            with _pylon(source, "gives no frames", CameraLostError):
                self._start()
        except CameraError:
            self.release()
            raise

    def fire(self, timeout_ms: float) -> None:
        """See `Device`."""
        with _pylon(self._source, "cannot be triggered", CameraLostError):
            # pylon takes whole milliseconds; with 0 it asks once.
            if not self.camera.WaitForFrameTriggerReady(round(timeout_ms), pylon.TimeoutHandling_Return):
                raise CameraTimeoutError(f"camera {self._source!r}: takes no trigger within {timeout_ms:g} ms")
            self.camera.ExecuteSoftwareTrigger()

    def next(self, timeout_ms: float) -> Block | None:
        """See `Device`."""
        with _pylon(self._source, "broke off", CameraLostError):
            self._there()
            with self.camera.RetrieveResult(round(timeout_ms), pylon.TimeoutHandling_Return) as result:
                return self._block(result) if result.IsValid() else None

    def restart(self) -> None:
        """See `Device`."""
        with _pylon(self._source, "cannot begin anew", CameraLostError):
            self.camera.StopGrabbing()
            self._start()

    def check(self) -> None:
        """See `Device`: pylon may not know yet that it is gone, so that a register is read."""
        with _pylon(self._source, "does not answer", CameraLostError):
            self._there()
            self.camera.GetNodeMap().InvalidateNodes()
            self._features.number("Width")

    def release(self) -> None:
        """See `Device`."""
        with suppress(genicam.GenericException):
            self.camera.StopGrabbing()
        with suppress(genicam.GenericException):
            self.camera.Close()
        with suppress(genicam.GenericException):
            self.camera.DestroyDevice()

    def _there(self) -> None:
        if self.camera.IsCameraDeviceRemoved():
            raise CameraLostError(f"camera {self._source!r}: was unplugged")
        if not self.camera.IsGrabbing():
            raise CameraLostError(f"camera {self._source!r}: was stopped from outside")

    def _start(self) -> None:
        self.camera.StartGrabbing(pylon.GrabStrategy_OneByOne)

    def _block(self, result: Any) -> Block:
        if not result.GrabSucceeded():
            why = f"the frame is incomplete: {result.GetErrorDescription()} ({result.GetErrorCode():#x})"
            return Block(why, None, 0)
        number = result.BlockID
        number = None if number >= 2**63 else int(number)  # pylon's way to say that there is none
        stamp_ns = int(result.TimeStamp) * 1_000_000_000 // self._ticks_per_s
        size_px = (int(result.Width), int(result.Height))
        code, name = self._pixel_format
        pixel_format = name if result.PixelType == code else f"{result.PixelType:#x}"
        known, row_bytes = result.GetStride()
        # Padding is what the transport adds behind a row; packed rows without it may end within a byte.
        padded = known and result.PaddingX > 0
        data = memoryview(result.GetBuffer())[: int(result.ImageSize)]
        return Block(RawImage(data, size_px, pixel_format, int(row_bytes) if padded else None), number, stamp_ns)

    def _show(self, images: Path | None) -> None:
        if images is None:
            return
        if not self.simulated:
            raise self._features.refused("images", str(images), "an emulated camera (PYLON_CAMEMU)")
        if not images.is_dir():
            raise self._features.refused("images", str(images), "a folder")
        self._features.put("images", ("ImageFilename",), str(images))
        self._features.put("images", ("ImageFileMode",), "On")
        self._features.put("images", ("TestImageSelector",), "Off")

    def _node(self, name: str) -> Any:
        node = self.camera.GetNodeMap().GetNode(name)
        return node if node is not None and genicam.IsAvailable(node) else None


def _spelled(name: str) -> str:
    """get_int_value -> GetIntValue"""
    return "".join(word.capitalize() for word in name.split("_"))


def _find(source: str, serial: str) -> Any:
    with _pylon(source, "cannot look for cameras", CameraLostError):
        there = list(pylon.TlFactory.GetInstance().EnumerateDevices())
        found = [info for info in there if serial in ("", info.GetSerialNumber())]
        if len(found) == 1:
            return found[0]
        names = ", ".join(sorted(info.GetSerialNumber() for info in there)) or "none is connected"
    if not found:
        raise CameraNotFoundError(f"camera {source!r}: is not there, allowed: a connected camera ({names})")
    raise CameraNotFoundError(f"camera {source!r}: several are connected, allowed: one of basler:SERIAL ({names})")


@contextmanager
def _pylon(source: str, what: str, error_type: type[CameraError]) -> Iterator[None]:
    try:
        yield
    except genicam.GenericException as error:
        # Its text goes on with the place in pylon's own source.
        text = str(error).partition(" : ")[0]
        raise error_type(f"camera {source!r}: {what}: {text}") from error
