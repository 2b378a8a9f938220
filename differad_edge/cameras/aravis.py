"""GigE Vision and USB3 Vision cameras of any make through Aravis, a system library (see scripts/system-packages).

Every exception of Aravis becomes a CameraError in this file.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from differad_edge.cameras.base import Camera
from differad_edge.cameras.device import Block, DeviceSettings, device_camera
from differad_edge.cameras.pixel_formats import PIXEL_FORMATS, RawImage
from differad_edge.errors import CameraError, CameraLostError, CameraNotFoundError, MissingSystemPackageError

try:
    import gi

    gi.require_version("Aravis", "0.8")
    from gi.repository import Aravis, GLib
except (ImportError, ValueError) as error:
    remedy = "scripts/system-packages (apt-get install gir1.2-aravis-0.8 python3-gi, linked into the environment)"
    raise MissingSystemPackageError("Aravis 0.8 with python3-gi", remedy) from error

__all__ = ["AravisDevice", "aravis_camera", "aravis_ids"]

_BUFFERS = 16
_FAKE = "Aravis"  # the vendor of the camera that Aravis plays itself


def aravis_ids() -> list[str]:
    """The ids of all that are connected. Raises CameraLostError when Aravis fails."""
    with _aravis("aravis:", "cannot look for cameras", CameraLostError):
        Aravis.update_device_list()
        return [Aravis.get_device_id(index) for index in range(Aravis.get_n_devices())]


def aravis_camera(
    source: str, name: str, settings: DeviceSettings, *, packet_bytes: int | None = None, open_timeout_ms: float
) -> Camera:
    """``name``: id, serial number or address of the camera, "": the only one that is connected.

    ``packet_bytes``: of a GigE camera's packets; None: the largest that the network is found to carry.
    """
    return device_camera(
        "aravis",
        source,
        lambda: AravisDevice(source, name, settings, packet_bytes),
        settings,
        open_timeout_ms=open_timeout_ms,
    )


class AravisDevice:
    """A `differad_edge.cameras.device.Device`. Raises CameraNotFoundError, CameraLostError."""

    def __init__(self, source: str, name: str, settings: DeviceSettings, packet_bytes: int | None = None) -> None:
        self._source = source
        device_id = _find(source, name)
        self._lost = lost = threading.Event()
        with _aravis(source, "cannot be opened; another program may be using it", CameraLostError):
            self._camera = Aravis.Camera.new(device_id)
        self._stream: Any = None
        try:
            with _aravis(source, "cannot be set up", CameraLostError):
                self.serial: str = self._camera.get_device_serial_number() or device_id
                self.simulated: bool = self._camera.get_vendor_name() == _FAKE
                # Not a method of this object: the camera would never be freed, and nobody else could have it.
                self._camera.get_device().connect("control-lost", lambda _: lost.set())
                self._apply(settings, packet_bytes)
            with _aravis(source, "gives no frames", CameraLostError):
                self._stream = self._camera.create_stream(None, None)
                payload = self._camera.get_payload()
                for _ in range(_BUFFERS):
                    self._stream.push_buffer(Aravis.Buffer.new_allocate(payload))
                self._camera.start_acquisition()
        except CameraError:
            self.release()
            raise

    def fire(self, timeout_ms: float) -> None:
        """See `Device`."""
        self._there()
        with self._answering("cannot be triggered"):
            self._camera.software_trigger()

    def next(self, timeout_ms: float) -> Block | None:
        """See `Device`."""
        self._there()
        stream = self._stream
        buffer = stream.timeout_pop_buffer(round(timeout_ms * 1e3)) if timeout_ms > 0 else stream.try_pop_buffer()
        if buffer is None:
            return None
        try:
            return self._block(buffer)
        finally:
            stream.push_buffer(buffer)

    def restart(self) -> None:
        """See `Device`."""
        self._there()
        with self._answering("cannot begin anew"):
            self._camera.stop_acquisition()
            late = iter(self._stream.try_pop_buffer, None)
            for buffer in list(late):
                self._stream.push_buffer(buffer)
            self._camera.start_acquisition()

    def check(self) -> None:
        """See `Device`."""
        self._there()
        with self._answering("does not answer"):
            self._camera.get_integer("Width")

    def release(self) -> None:
        """See `Device`. The last reference frees the camera for others."""
        camera, self._camera = self._camera, None
        if camera is not None and self._stream is not None and not self._lost.is_set():
            with suppress(GLib.Error):
                camera.stop_acquisition()
        self._stream = None

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        try:
            with _aravis(self._source, what, CameraLostError):
                yield
        except CameraLostError:
            self._lost.set()  # each further command would take seconds
            raise

    def _there(self) -> None:
        if self._lost.is_set() or self._camera is None:
            raise CameraLostError(f"camera {self._source!r}: was unplugged, or another program took it")

    def _block(self, buffer: Any) -> Block:
        status = buffer.get_status()
        if status != Aravis.BufferStatus.SUCCESS:
            # Where its first packet was lost, number and stamp are those of a frame that the buffer held before.
            return Block(f"the frame is incomplete: {status.value_nick}", None, 0)
        number, stamp_ns = int(buffer.get_frame_id()), int(buffer.get_timestamp())
        kind = buffer.get_payload_type()
        if kind not in (Aravis.BufferPayloadType.IMAGE, Aravis.BufferPayloadType.EXTENDED_CHUNK_DATA):
            return Block(f"the frame is no picture: {kind.value_nick}", number, stamp_ns)
        width, height = buffer.get_image_width(), buffer.get_image_height()
        code = buffer.get_image_pixel_format()
        name = self._pixel_format[1] if code == self._pixel_format[0] else f"{code:#x}"
        bits = code >> 16 & 0xFF  # GenICam's codes hold the size of a pixel
        x_padding, _ = buffer.get_image_padding()
        row_bytes = (width * bits + 7) // 8 + x_padding if x_padding else None
        whole = row_bytes * height if row_bytes else (width * height * bits + 7) // 8
        return Block(RawImage(buffer.get_image_data()[:whole], (width, height), name, row_bytes), number, stamp_ns)

    # -- setting up ---------------------------------------------------------------------------------------------------

    def _apply(self, settings: DeviceSettings, packet_bytes: int | None) -> None:
        camera = self._camera
        camera.set_acquisition_mode(Aravis.AcquisitionMode.CONTINUOUS)
        if packet_bytes is not None and camera.is_gv_device():
            camera.gv_set_packet_size(packet_bytes)
        if settings.pixel_format is not None:
            there = camera.dup_available_pixel_formats_as_strings()
            if settings.pixel_format not in there:
                raise self._refused("format", settings.pixel_format, ", ".join(there))
            camera.set_pixel_format_from_string(settings.pixel_format)
        self._pixel_format = (camera.get_pixel_format(), camera.get_pixel_format_as_string())
        if self._pixel_format[1] not in PIXEL_FORMATS:
            raise self._refused("format", self._pixel_format[1], ", ".join(PIXEL_FORMATS))
        if settings.size_px is not None:
            self._cut(*settings.size_px)
        if settings.exposure_us is not None:
            if camera.is_exposure_auto_available():
                camera.set_exposure_time_auto(Aravis.Auto.OFF)
            self._within("exposure_us", settings.exposure_us, camera.get_exposure_time_bounds())
            camera.set_exposure_time(settings.exposure_us)
        if settings.gain is not None:
            if camera.is_gain_auto_available():
                camera.set_gain_auto(Aravis.Auto.OFF)
            self._within("gain", settings.gain, camera.get_gain_bounds())
            camera.set_gain(settings.gain)
        self._trigger(settings)

    def _trigger(self, settings: DeviceSettings) -> None:
        """Whatever the camera was set to wait for before, it waits for FrameStart alone, or for nothing."""
        camera = self._camera
        camera.clear_triggers()
        if settings.trigger != "free":
            source = settings.line or "Software"
            there = camera.dup_available_trigger_sources()
            if source not in there:
                raise self._refused("trigger", source, ", ".join(there))
            camera.set_trigger(source)
        elif settings.rate_hz is not None:
            self._within("rate_hz", settings.rate_hz, camera.get_frame_rate_bounds())
            camera.set_frame_rate(settings.rate_hz)

    def _cut(self, width: int, height: int) -> None:
        camera = self._camera
        if camera.is_region_offset_available():
            _, _, old_width, old_height = _tuple(camera.get_region())
            camera.set_region(0, 0, old_width, old_height)  # an offset would leave less room
        self._within("size", width, camera.get_width_bounds())
        self._within("size", height, camera.get_height_bounds())
        camera.set_region(0, 0, width, height)
        if camera.is_region_offset_available():
            x_step, y_step = camera.get_x_offset_increment(), camera.get_y_offset_increment()
            sensor_width, sensor_height = camera.get_sensor_size()
            x = min((sensor_width - width) // 2, camera.get_x_offset_bounds()[1]) // x_step * x_step
            y = min((sensor_height - height) // 2, camera.get_y_offset_bounds()[1]) // y_step * y_step
            camera.set_region(x, y, width, height)
        given = _tuple(camera.get_region())[2:]
        if given != (width, height):
            raise self._refused("size", f"{width}x{height}", f"what it has, such as {given[0]}x{given[1]}")

    def _within(self, setting: str, value: float, bounds: Any) -> None:
        least, most = bounds
        if not least <= value <= most:
            raise self._refused(setting, value, f"from {least:g} to {most:g}")

    def _refused(self, setting: str, value: str | float, allowed: str) -> CameraNotFoundError:
        return CameraNotFoundError(f"camera {self._source!r}: {setting}: got {value}, allowed: {allowed}")


def _tuple(region: Any) -> tuple[int, int, int, int]:
    x, y, width, height = region
    return int(x), int(y), int(width), int(height)


def _find(source: str, name: str) -> str:
    there = aravis_ids()
    if not name:
        if len(there) == 1:
            return there[0]
        names = ", ".join(sorted(there)) or "none is connected"
        raise CameraNotFoundError(f"camera {source!r}: allowed without an id: exactly one connected camera ({names})")
    found = [
        device_id
        for index, device_id in enumerate(there)
        if name in (device_id, Aravis.get_device_serial_nbr(index), Aravis.get_device_address(index))
    ]
    if len(set(found)) > 1:  # makers number their cameras by themselves
        raise CameraNotFoundError(f"camera {source!r}: got {name!r}, allowed: one of {', '.join(sorted(found))}")
    if found:
        return found[0]
    with suppress(ValueError):  # one behind a router does not hear the search
        return str(ipaddress.ip_address(name))
    names = ", ".join(sorted(there)) or "none is connected"
    raise CameraNotFoundError(f"camera {source!r}: is not there, allowed: a connected camera ({names})")


@contextmanager
def _aravis(source: str, what: str, error_type: type[CameraError]) -> Iterator[None]:
    try:
        yield
    except GLib.Error as error:
        raise error_type(f"camera {source!r}: {what}: {error.message}") from error
