"""Whether a frame is a new picture of what is in front of the camera now.

A dead camera that keeps giving its last frame would let every part pass that comes after a good one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

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
    """``frame``: as it is to be used, never stamped in the future; ``drop``: the cause for which it must not be used at
    all; ``fault``: it is this part's picture, but cannot be compared; ``missed``: frames that were lost on the way
    here; ``broken``: the camera must be opened again.
    """

    frame: Frame
    fingerprint: str
    drop: str | None = None
    fault: Fault | None = None
    missed: SequenceRange | None = None
    broken: str | None = None


class Freshness:
    """Judges the frames of one camera, in the order they come, over all its connections.

    ``size_px``: (width, height) that frames must have, None for that of the first one. ``frozen_after``: so many
    identical frames of a live camera, whose sensor is never without noise, mean that it is frozen; of files nothing
    follows from two equal pictures.
    """

    def __init__(
        self,
        *,
        size_px: tuple[int, int] | None,
        frozen_after: int,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._size_px = size_px
        self._frozen_after = frozen_after
        self._clock_ns = clock_ns
        self._info: CameraInfo | None = None
        self._last: tuple[int, int] | None = None  # sequence and stamp, of this connection
        self._last_fingerprint = ""
        self._same = 1

    @property
    def frozen(self) -> bool:
        """Whether the last thing that was seen of the camera is a picture that did not change."""
        return self._same >= self._frozen_after

    def connect(self, info: CameraInfo) -> None:
        """A new connection: numbers and stamps may begin anew. The last picture is remembered: to open a camera again
        does not make an old picture new."""
        self._info = info
        self._last = None

    def torn(self, sequence: int | None) -> None:
        """The frame of this number arrived in pieces: it is not missing."""
        if sequence is not None and self._last is not None and sequence == self._last[0] + 1:
            self._last = (sequence, self._last[1])

    def judge(self, frame: Frame) -> Judgement:
        """Call it once for each frame."""
        now_ns = self._clock_ns()
        if frame.captured_ns > now_ns:  # a device's own clock; what is here now was captured by now
            frame = replace(frame, captured_ns=now_ns)
        mark = fingerprint(frame.image)
        missed = None
        if self._last is not None:
            sequence, stamp_ns = self._last
            if frame.sequence <= sequence:
                return Judgement(frame, mark, drop="duplicate")
            if frame.captured_ns < stamp_ns:
                self._last = (frame.sequence, stamp_ns)  # it is not missing
                return Judgement(frame, mark, drop="stale")
            if frame.sequence > sequence + 1:
                missed = (sequence + 1, frame.sequence - 1)
        self._last = (frame.sequence, frame.captured_ns)
        if self._info is not None and frame.serial != self._info.serial:
            broken = f"frames of device {frame.serial!r} come in place of {self._info.serial!r}"
            return Judgement(frame, mark, drop="wrong-camera", missed=missed, broken=broken)
        if mark == self._last_fingerprint and self._info is not None and self._info.live:
            self._same += 1
            frozen = f"{self._same} identical frames in a row" if self.frozen else None
            return Judgement(frame, mark, drop="frozen", missed=missed, broken=frozen)
        self._same, self._last_fingerprint = 1, mark
        return Judgement(frame, mark, fault=self._wrong_size(frame), missed=missed)

    def _wrong_size(self, frame: Frame) -> Fault | None:
        size_px = (frame.image.shape[1], frame.image.shape[0])
        if self._size_px is None:
            # Later connections must bring the same: a camera that comes back otherwise set shows another part.
            self._size_px = size_px
        if size_px == self._size_px:
            return None
        wanted = f"{self._size_px[0]}x{self._size_px[1]}"
        return Fault(
            Reason.BAD_FRAME,
            f"the frame is {size_px[0]}x{size_px[1]} px, allowed: {wanted}, as this camera gave before",
        )
