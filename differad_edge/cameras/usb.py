"""USB cameras on Linux: which device a name stands for, and which camera it is."""

from __future__ import annotations

import sys
from pathlib import Path

from differad_edge.errors import CameraNotFoundError

__all__ = ["device_path", "usb_serial"]

_DEV, _SYS = Path("/dev"), Path("/sys")


def device_path(name: str, *, dev: Path = _DEV) -> Path:
    """The device file of an index ("0"), a path, or a link below /dev/v4l. Raises CameraNotFoundError."""
    link = dev / f"video{int(name)}" if name.isdecimal() else Path(name)
    device = link.resolve()
    if not device.exists():
        there = ", ".join(_names(dev)) or "none is connected"
        raise CameraNotFoundError(f"camera {name!r}: {link} is not there, allowed: a connected camera ({there})")
    return device


def usb_serial(name: str, *, dev: Path = _DEV, sysfs: Path = _SYS) -> str:
    """What tells the camera from others: the serial in its USB descriptor, else its by-id name, else ``name``."""
    if not sys.platform.startswith("linux"):
        return name
    device = device_path(name, dev=dev)
    # `device` leads to the USB interface; its parent is the camera.
    interface = (sysfs / "class" / "video4linux" / device.name / "device").resolve()
    try:
        serial = (interface.parent / "serial").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        serial = ""
    if serial:
        return serial
    links = sorted(link.name for link in _links(dev / "v4l" / "by-id") if link.resolve() == device)
    return links[0] if links else name


def _names(dev: Path) -> list[str]:
    stable = [str(link) for link in _links(dev / "v4l" / "by-id")]
    return sorted(stable) or sorted(str(path) for path in dev.glob("video*"))


def _links(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
