"""Whether a frame is a new picture of what is in front of the camera now.

A dead camera that keeps giving its last frame would let every part pass that comes after a good one.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from differad_edge.cameras.base import CameraInfo, Frame
from differad_edge.images import Image
from differad_edge.results import Reason
from differad_edge.runtime.job import Fault
from differad_edge.runtime.record import SequenceRange

__all__ = ["Freshness", "Judgement", "fingerprint"]


def fingerprint(image: Image) -> str:
    """ "xxh3-128:<hex>" over shape and pixels: tells frames apart at memory speed; it proves nothing to a forger."""
    digest = xxhash.xxh3_128(repr((image.shape, image.dtype.str)).encode())
    digest.update(image.data if image.flags.c_contiguous else image.tobytes())
    return f"xxh3-128:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """``drop``: the cause for which the frame must not be used at all; ``fault``: it is this part's picture, but cannot
    be compared; ``missed``: frames that were lost on the way here; ``broken``: the camera must be opened again.
    """

    fingerprint: str
    drop: str | None = None
    fault: Fault | None = None
    missed: SequenceRange | None = None
    broken: str | None = None


class Freshness:
    """Judges the frames of one connection to a camera, in the order they come.

    ``size_px``: (width, height) that frames must have, None for any. ``frozen_after``: so many identical frames of a
    live camera, whose sensor is never without noise, mean that it is frozen; of files nothing follows from two equal
    pictures.
    """

    def __init__(self, info: CameraInfo, *, size_px: tuple[int, int] | None, frozen_after: int) -> None:
        self._live = info.live
        self._serial = info.serial
        self._size_px = size_px
        self._frozen_after = frozen_after
        self._last: Frame | None = None
        self._last_fingerprint = ""
        self._same = 1

    def judge(self, frame: Frame) -> Judgement:
        """Call it once for each frame."""
        mark = fingerprint(frame.image)
        last = self._last
        if last is not None:
            if frame.sequence <= last.sequence:
                return Judgement(mark, drop="duplicate")
            if frame.captured_ns < last.captured_ns:
                return Judgement(mark, drop="stale")
        missed = None
        if last is not None and frame.sequence > last.sequence + 1:
            missed = (last.sequence + 1, frame.sequence - 1)
        self._last = frame
        if frame.serial != self._serial:
            broken = f"frames of device {frame.serial!r} come in place of {self._serial!r}"
            return Judgement(mark, drop="wrong-camera", missed=missed, broken=broken)
        if mark == self._last_fingerprint and self._live:
            self._same += 1
            frozen = f"{self._same} identical frames in a row" if self._same >= self._frozen_after else None
            return Judgement(mark, drop="frozen", missed=missed, broken=frozen)
        self._same, self._last_fingerprint = 1, mark
        height, width = frame.image.shape[:2]
        if self._size_px is not None and (width, height) != self._size_px:
            wanted = f"{self._size_px[0]}x{self._size_px[1]}"
            fault = Fault(
                Reason.BAD_FRAME, f"the frame is {width}x{height} px, allowed: {wanted}, as this camera gave before"
            )
            return Judgement(mark, fault=fault, missed=missed)
        return Judgement(mark, missed=missed)
