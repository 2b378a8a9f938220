"""What Basler, GigE Vision, USB3 Vision and GenTL cameras have in common: settings, triggers, and how they fail.

A device says what came in each of its buffers; what follows from that is decided here, once for all of them. A buffer
that was not filled is a torn frame. A number that is missing is a frame that was lost. A frame that answers an earlier
trigger is never taken for the answer to this one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NoReturn, Protocol

from differad_edge.cameras.base import Camera, CameraInfo, Frame, utc_now
from differad_edge.cameras.live import Grabbed, LiveCamera
from differad_edge.cameras.pixel_formats import MOST_SHIFT, PIXEL_FORMATS, RawImage, to_bgr
from differad_edge.cameras.pulled import PulledCamera
from differad_edge.cameras.source import Query
from differad_edge.cameras.timeline import Timeline
from differad_edge.errors import CameraLostError, CameraTimeoutError, ConfigError, TornFrameError
from differad_edge.images import Image

__all__ = ["Block", "ConnectDevice", "Device", "DeviceSettings", "device_camera"]

_POLL_MS = 100.0  # how soon a closing is noticed
_SILENCE_S = 1.0  # after so long without a frame the device is asked whether it is there
_MOST_UNANSWERED = 3  # software triggers in a row
_MOST_UNASKED = 3  # frames that nobody triggered, before a trigger; and triggers in a row before which there were any
_LINES = tuple(f"line{number}" for number in range(10))


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a device is told when it is opened; None: as it is set.

    ``trigger``: "free", "software", or the input that a signal comes in by ("line1"); ``exposure_us``; ``gain``: in the
    device's unit, dB with most; ``pixel_format``: see `pixel_formats`; ``shift``: see `to_bgr`; ``size_px``: width and
    height that are cut out of the middle of the sensor; ``rate_hz``: of free-running frames, and
    the most of software triggers.
    """

    trigger: str = "free"
    exposure_us: float | None = None
    gain: float | None = None
    pixel_format: str | None = None
    shift: int | None = None
    size_px: tuple[int, int] | None = None
    rate_hz: float | None = None

    @classmethod
    def read(cls, query: Query) -> DeviceSettings:
        """From what stands behind the "?" of a source. Raises ConfigError."""
        shift = query.whole("shift", -1, least=0, most=MOST_SHIFT)
        read = cls(
            trigger=query.one_of("trigger", ("free", "software", *_LINES), "free"),
            exposure_us=query.number("exposure_us", None, above=0, to=1e8),
            gain=query.number("gain", None, above=-1000, to=100_000),
            pixel_format=query.one_of("format", PIXEL_FORMATS) or None,
            shift=None if shift < 0 else shift,
            size_px=query.size("size"),
            rate_hz=query.number("rate_hz", None, above=0, to=1000),
        )
        if read.line is not None and read.rate_hz is not None:
            raise ConfigError(
                f"rate_hz: got {read.rate_hz:g} with trigger={read.trigger}, allowed: the signal's own rate"
            )
        return read

    @property
    def line(self) -> str | None:
        """The input as GenICam calls it ("Line1"), None without one."""
        return self.trigger.capitalize() if self.trigger in _LINES else None


@dataclass(frozen=True, slots=True)
class Block:
    """What a buffer held. ``picture``: its bytes, which stay as they are, or why there is none.

    ``number``: the device's own count, None when it has none, or none that can be trusted, as with most that is
    incomplete; ``stamp_ns``: by the device's own clock, 0: it has none.
    """

    picture: RawImage | str
    number: int | None
    stamp_ns: int


class Device(Protocol):
    """A camera that is open and set up, with its buffers queued. Its methods raise CameraLostError.

    ``serial``, ``simulated``: see CameraInfo.
    """

    serial: str
    simulated: bool

    def fire(self, timeout_ms: float) -> None:
        """Give the software trigger, as soon as the device takes one. Raises CameraTimeoutError."""
        ...

    def next(self, timeout_ms: float) -> Block | None:
        """What the next buffer holds; None: none was filled in time."""
        ...

    def restart(self) -> None:
        """Throw away whatever is under way, and begin anew."""
        ...

    def check(self) -> None:
        """Return when the device answers."""
        ...

    def release(self) -> None:
        """Let go of the device."""
        ...


ConnectDevice = Callable[[], Device]
"""Opens the device. Raises CameraError."""


def device_camera(
    kind: str, source: str, connect: ConnectDevice, settings: DeviceSettings, *, open_timeout_ms: float
) -> Camera:
    """A camera that takes a picture when it is read, with a software trigger, or one that sends them by itself."""
    if settings.trigger == "software":
        return SoftwareTriggeredCamera(kind, source, connect, settings)
    return LiveCamera(
        kind,
        source,
        lambda: _Streaming(connect(), source, settings.shift),
        open_timeout_ms=open_timeout_ms,
        triggered=settings.line is not None,
    )


class _Streaming:
    """A `differad_edge.cameras.live.Driver` on a device."""

    def __init__(self, device: Device, source: str, shift: int | None) -> None:
        self.serial, self.simulated = device.serial, device.simulated
        self._device, self._source, self._shift = device, source, shift
        self._timeline = Timeline()
        self._heard_s = time.monotonic()

    def grab(self) -> Grabbed | None:
        block = self._device.next(_POLL_MS)
        arrived_ns = time.monotonic_ns()
        if block is None:
            # No driver can be trusted to tell that a camera was unplugged.
            if arrived_ns / 1e9 - self._heard_s > _SILENCE_S:
                self._device.check()
                self._heard_s = time.monotonic()
            return None
        self._heard_s = arrived_ns / 1e9
        skipped, fault = _placed(self._timeline, block)
        captured_ns: int | None = arrived_ns
        image, name = None, ""
        if isinstance(block.picture, RawImage):
            captured_ns = self._timeline.captured_ns(block.stamp_ns, arrived_ns)
            name = block.picture.pixel_format
            if fault is None and captured_ns is None:
                fault = "its time stamp is no later than that of the frame before"
            if fault is None:
                try:
                    image = to_bgr(block.picture, self._source, shift=self._shift)
                except TornFrameError as error:
                    return Grabbed(None, arrived_ns, utc_now(), name, skipped, str(error))
        if captured_ns is None:
            captured_ns = arrived_ns
        fault = None if fault is None else f"camera {self._source!r}: {fault}"
        return Grabbed(image, captured_ns, utc_now(time.monotonic_ns() - captured_ns), name, skipped, fault)

    def release(self) -> None:
        self._device.release()


def _placed(timeline: Timeline, block: Block) -> tuple[int, str | None]:
    """How many frames are missing before this one, and what is wrong with it."""
    missed = timeline.missed(block.number)
    if isinstance(block.picture, str):
        return missed or 0, block.picture
    return missed or 0, f"frame {block.number} came twice" if missed is None else None


class SoftwareTriggeredCamera(PulledCamera):
    """Each read triggers the device and takes the frame that answers. See `differad_edge.cameras.base.Camera`.

    A frame's ``captured_ns`` is the moment of its trigger. A trigger without an answer is a timeout; the device then
    begins anew, so that a late answer goes to nobody, and counts as lost after the third in a row.
    """

    kind: ClassVar[str] = "device"

    def __init__(self, kind: str, source: str, connect: ConnectDevice, settings: DeviceSettings) -> None:
        super().__init__(source, "", rate_hz=settings.rate_hz)
        self._kind, self._connect_device, self._shift = kind, connect, settings.shift
        self._device: Device | None = None
        self._timeline = Timeline()
        self._unanswered = self._unasked = 0
        self._fired_ns, self._fired_utc = 0, ""
        self._number = 0

    def check(self) -> None:
        """See `differad_edge.cameras.base.Checked`."""
        with self._in_use:
            if self._device is None:
                raise CameraLostError(f"camera {self._source!r}: is not open")
            self._device.check()

    def _connect(self) -> None:
        self._disconnect()
        self._device = self._connect_device()
        self._serial, self._unanswered, self._timeline = self._device.serial, 0, Timeline()
        self._unasked = 0

    def _info(self) -> CameraInfo:
        simulated = self._device is not None and self._device.simulated
        return CameraInfo(self._kind, self._source, self._serial, live=False, simulated=simulated)

    def _next(self, timeout_ms: float, stop: threading.Event) -> tuple[Image, str]:
        device = self._device
        if device is None:
            raise CameraLostError(f"camera {self._source!r}: is not open")
        end_ns = time.monotonic_ns() + round(timeout_ms * 1e6)
        if self._unanswered:
            device.restart()
            self._timeline = Timeline()
        self._let_go_of_unasked(device)
        self._unanswered += 1  # until it is answered
        try:
            device.fire(timeout_ms)
        except CameraTimeoutError:
            self._no_answer(device, timeout_ms)
        self._fired_ns, self._fired_utc = time.monotonic_ns(), utc_now()
        while (block := device.next(min(_POLL_MS, max(0.0, (end_ns - time.monotonic_ns()) / 1e6)))) is None:
            self._check(stop)
            if time.monotonic_ns() >= end_ns:
                self._no_answer(device, timeout_ms)
        self._unanswered = 0
        missed, fault = _placed(self._timeline, block)
        self._sequence += missed
        self._number = self._sequence
        self._sequence += 1
        if isinstance(block.picture, RawImage):
            if self._timeline.captured_ns(block.stamp_ns, time.monotonic_ns()) is None:
                fault = fault or "its time stamp is no later than that of the frame before"
            if fault is None:
                try:
                    return to_bgr(block.picture, self._source, shift=self._shift), block.picture.pixel_format
                except TornFrameError as error:
                    raise TornFrameError(str(error), self._number) from error
        raise TornFrameError(f"camera {self._source!r}: {fault}", self._number)

    def _frame(self, image: Image, pixel_format: str) -> Frame:
        return Frame(image, self._number, self._fired_ns, self._fired_utc, pixel_format, self._serial)

    def _let_go_of_unasked(self, device: Device) -> None:
        """Frames that lie there before the trigger show another part. They are a gap in the numbers."""
        for unasked in range(_MOST_UNASKED):
            block = device.next(0.0)
            if block is None:
                self._unasked = self._unasked + 1 if unasked else 0
                if self._unasked < _MOST_UNASKED:
                    return
                break
            self._sequence += 1 + (self._timeline.missed(block.number) or 0)
        raise CameraLostError(f"camera {self._source!r}: sends frames without a trigger")

    def _no_answer(self, device: Device, timeout_ms: float) -> NoReturn:
        device.check()
        if self._unanswered >= _MOST_UNANSWERED:
            raise CameraLostError(f"camera {self._source!r}: did not answer {self._unanswered} triggers in a row")
        raise CameraTimeoutError(f"camera {self._source!r}: did not answer its trigger within {timeout_ms:g} ms")

    def _disconnect(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.release()
