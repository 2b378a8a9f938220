"""What goes wrong with a simulated camera, and when: ``unplug@10:2s,freeze@20:5,torn@30,size@40:320x240``.

    unplug@10:2s        frame 10 does not come: the camera is lost, and not found again for 2 s
    absent:2s           not there for the first 2 s after it was first opened
    freeze@20:5         frames 20 to 24 show what frame 19 showed, with new numbers and stamps
    duplicate@30        frame 30 is delivered twice, the same number and stamps
    torn@30             frame 30 arrives incomplete
    lose@30:3           frames 30 to 32 are lost on the way
    late@30:300ms       frame 30 arrives 300 ms after it was captured
    back@30:5s          the stamps of frame 30 lie 5 s in the past
    size@40:320x240     frames from 40 on have this size
    format@40:Mono8     frames from 40 on are of this pixel format: Mono8 (grey) or BGR8
    serial@40:B7        from frame 40 on, once it is opened again, the camera is another one
    hang@50:3s          reading frame 50 takes 3 s, whatever the time limit, even when the camera is closed
    hang-open@50:3s     so does opening, the next time after frame 49; hang-open:3s at the start

Frames count from 0. Times are written 2s or 300ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from differad_edge.errors import ConfigError

__all__ = ["Fault", "FaultScript"]

_FAULT = re.compile(r"(?P<kind>[a-z-]+)(?:@(?P<frame>\d{1,9}))?(?::(?P<argument>[^,]+))?")
_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s)")
_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")


@dataclass(frozen=True)
class Fault:
    """One line of the list above; of the arguments only the one that belongs to ``kind`` counts."""

    kind: str
    frame: int = 0
    seconds: float = 0.0
    count: int = 1
    size_px: tuple[int, int] | None = None
    text: str = ""


@dataclass(frozen=True)
class FaultScript:
    """Faults in any order."""

    faults: tuple[Fault, ...] = ()

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        object.__setattr__(self, "faults", tuple(sorted(faults, key=lambda fault: fault.frame)))
        for fault in self.faults:
            if fault.kind not in _ARGUMENTS:
                raise ConfigError(f"script: got the fault {fault.kind!r}, allowed: {', '.join(_ARGUMENTS)}")

    @classmethod
    def parse(cls, text: str) -> FaultScript:
        """Read the written form. Raises ConfigError, which names the fault that it cannot read."""
        return cls(_parse(part.strip()) for part in text.split(",") if part.strip())

    def of(self, kind: str) -> tuple[Fault, ...]:
        """The faults of a kind, by frame."""
        return tuple(fault for fault in self.faults if fault.kind == kind)

    def at(self, kind: str, frame: int) -> Fault | None:
        """The fault that covers ``frame``."""
        return next((f for f in self.of(kind) if f.frame <= frame < f.frame + f.count), None)

    def since(self, kind: str, frame: int) -> Fault | None:
        """The last fault that began at ``frame`` or before."""
        return next((fault for fault in reversed(self.of(kind)) if fault.frame <= frame), None)


def _seconds(fault: str, argument: str) -> Fault:
    match = _TIME.fullmatch(argument)
    if not match:
        raise ConfigError(f"script: {fault}: got {argument!r}, allowed: a time such as 2s or 300ms")
    return Fault("", seconds=float(match[1]) / (1000 if match[2] == "ms" else 1))


def _count(fault: str, argument: str) -> Fault:
    if not re.fullmatch(r"[1-9]\d{0,8}", argument):
        raise ConfigError(f"script: {fault}: got {argument!r}, allowed: a number of frames")
    return Fault("", count=int(argument))


def _size(fault: str, argument: str) -> Fault:
    match = _SIZE.fullmatch(argument)
    if not match or not (int(match[1]) and int(match[2])):
        raise ConfigError(f"script: {fault}: got {argument!r}, allowed: WIDTHxHEIGHT such as 320x240")
    return Fault("", size_px=(int(match[1]), int(match[2])))


def _format(fault: str, argument: str) -> Fault:
    if argument not in ("Mono8", "BGR8"):
        raise ConfigError(f"script: {fault}: got {argument!r}, allowed: Mono8, BGR8")
    return Fault("", text=argument)


def _text(fault: str, argument: str) -> Fault:
    return Fault("", text=argument)


# Kind -> how its argument is read; None: it has none.
_ARGUMENTS: dict[str, Callable[[str, str], Fault] | None] = {
    "unplug": _seconds,
    "absent": _seconds,
    "freeze": _count,
    "duplicate": None,
    "torn": None,
    "lose": _count,
    "late": _seconds,
    "back": _seconds,
    "size": _size,
    "format": _format,
    "serial": _text,
    "hang": _seconds,
    "hang-open": _seconds,
}
_WITHOUT_FRAME = ("absent", "hang-open")


def _parse(written: str) -> Fault:
    match = _FAULT.fullmatch(written)
    if not match:
        raise ConfigError(f"script: got {written!r}, allowed: FAULT@FRAME:ARGUMENT such as unplug@10:2s")
    kind, frame, argument = match["kind"], match["frame"], match["argument"]
    if kind not in _ARGUMENTS:
        raise ConfigError(f"script: got the fault {kind!r}, allowed: {', '.join(_ARGUMENTS)}")
    if frame is None and kind not in _WITHOUT_FRAME:
        raise ConfigError(f"script: got {written!r}, allowed: {kind}@FRAME, such as {kind}@10")
    read = _ARGUMENTS[kind]
    if (read is None) != (argument is None):
        wanted = "no argument" if read is None else "an argument behind a colon"
        raise ConfigError(f"script: got {written!r}, allowed: {wanted}")
    given = Fault("") if read is None or argument is None else read(kind, argument)
    return Fault(kind, int(frame or 0), given.seconds, given.count, given.size_px, given.text)
