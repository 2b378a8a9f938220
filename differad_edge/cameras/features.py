"""The features of a GenICam camera: set as a source asks for it, or refused with what the camera would take.

pylon and GenApi have the same nodes under names that are spelled differently, which is all that is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from differad_edge.cameras.device import DeviceSettings
from differad_edge.cameras.pixel_formats import PIXEL_FORMATS
from differad_edge.errors import CameraNotFoundError

__all__ = ["Features"]


@dataclass(frozen=True)
class Features:
    """``find``: the node of this name, None when the camera has none; ``writable``: whether it can be set now;
    ``spell``: the name of a node's property from its lower-case one; ``error``: what the library raises.

    Every method raises CameraNotFoundError for what the camera does not take, and ``error``.
    """

    source: str
    find: Callable[[str], Any]
    writable: Callable[[Any], bool]
    spell: Callable[[str], str]
    error: type[Exception]

    def apply(self, settings: DeviceSettings) -> tuple[int, str]:
        """Set all of it. The code and the name of the pixel format that frames come in."""
        self.switch("AcquisitionMode", "Continuous")
        if settings.pixel_format is not None:
            self.put("format", ("PixelFormat",), settings.pixel_format)
        node = self.find("PixelFormat")
        pixel_format = str(self.get(node, "value"))
        if pixel_format not in PIXEL_FORMATS:
            raise self.refused("format", pixel_format, ", ".join(PIXEL_FORMATS))
        if settings.size_px is not None:
            self._cut(settings.size_px)
        if settings.exposure_us is not None:
            self.switch("ExposureAuto", "Off")
            self.put("exposure_us", ("ExposureTime", "ExposureTimeAbs"), settings.exposure_us)
        if settings.gain is not None:
            self.switch("GainAuto", "Off")
            self.put("gain", ("Gain", "GainRaw"), settings.gain)
        self._trigger(settings)
        if settings.trigger == "free" and settings.rate_hz is not None:
            self.switch("AcquisitionFrameRateEnable", True)
            self.put("rate_hz", ("AcquisitionFrameRate", "AcquisitionFrameRateAbs"), settings.rate_hz)
        return int(self.get(node, "get_int_value")()), pixel_format

    def number(self, name: str) -> int:
        """0 where the camera has no such feature."""
        node = self.find(name)
        return 0 if node is None else int(self.get(node, "value"))

    def switch(self, name: str, value: str | bool) -> None:
        """Set it where it is there."""
        node = self.find(name)
        if node is not None and self.writable(node):
            self._set(node, value)

    def put(self, setting: str, names: Sequence[str], value: str | float) -> None:
        """Set the first of these features that the camera has; ``setting``: how the message calls it."""
        nodes = [node for node in map(self.find, names) if node is not None and self.writable(node)]
        if not nodes:
            raise self.refused(setting, value, "no value: this camera cannot be set so")
        try:
            whole = isinstance(self.get(nodes[0], "value"), int)
            self._set(nodes[0], int(value) if whole else value)
        except self.error as error:
            raise self.refused(setting, value, self._allowed(nodes[0])) from error

    def refused(self, setting: str, value: str | float, allowed: str) -> CameraNotFoundError:
        """The error to raise."""
        return CameraNotFoundError(f"camera {self.source!r}: {setting}: got {value}, allowed: {allowed}")

    def get(self, node: Any, name: str) -> Any:
        """A property or a method of a node."""
        return getattr(node, self.spell(name))

    def _set(self, node: Any, value: str | float) -> None:
        setattr(node, self.spell("value"), value)

    def _allowed(self, node: Any) -> str:
        if hasattr(node, self.spell("symbolics")):
            return ", ".join(self.get(node, "symbolics"))
        if hasattr(node, self.spell("min")):
            return f"from {self.get(node, 'min'):g} to {self.get(node, 'max'):g}"
        return "what the camera takes"

    def _trigger(self, settings: DeviceSettings) -> None:
        """Whatever the camera was set to wait for before, it waits for FrameStart alone, or for nothing."""
        selector = self.find("TriggerSelector")
        for name in () if selector is None else self.get(selector, "symbolics"):
            with suppress(self.error):  # some of them are there in some modes only
                self._set(selector, name)
                self.switch("TriggerMode", "Off")
        if selector is None:
            self.switch("TriggerMode", "Off")
        if settings.trigger != "free":
            if selector is not None:
                self.put("trigger", ("TriggerSelector",), "FrameStart")
            self.put("trigger", ("TriggerMode",), "On")
            self.put("trigger", ("TriggerSource",), settings.line or "Software")

    def _cut(self, size_px: tuple[int, int]) -> None:
        for name, offset, value in (("Width", "OffsetX", size_px[0]), ("Height", "OffsetY", size_px[1])):
            node = self.find(offset)
            movable = node is not None and self.writable(node)
            if movable:
                self._set(node, 0)  # an offset would leave less room
            self.put("size", (name,), value)
            if movable:
                step = max(1, self.get(node, "inc"))
                self._set(node, self.get(node, "max") // 2 // step * step)
