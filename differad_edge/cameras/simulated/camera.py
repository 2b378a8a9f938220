"""A camera that sees generated parts, and fails as it is told."""

from __future__ import annotations

import threading

import cv2
import numpy as np

from differad_edge.cameras.base import CameraInfo, Frame, utc_now
from differad_edge.cameras.pacing import Clock, MonotonicClock
from differad_edge.cameras.simulated.products import SimulatedPart, SimulatedProduct
from differad_edge.cameras.simulated.script import Fault, FaultScript
from differad_edge.errors import (
    CameraEndedError,
    CameraLostError,
    CameraNotFoundError,
    CameraTimeoutError,
    ConfigError,
    TornFrameError,
)
from differad_edge.images import Image
from differad_edge.results import Box

__all__ = ["LIVE_POOL", "SimulatedCamera"]

LIVE_POOL = 16
"""Parts that a live camera draws when it is opened, unless it is told another number."""


class SimulatedCamera:
    """See `differad_edge.cameras.base.Camera`; a frame's sequence is also the index of its part.

    ``rate_hz``: frames come so often whether they are read or not, as from a live camera; None: each comes when it is
    read. ``count``: so many frames, then CameraEndedError. ``pool``: so many different parts, drawn when the camera is
    first opened and shown in turn; 0: every part is another, drawn when it is read, which takes 50 ms and more and
    counts in no time limit. None: LIVE_POOL with a rate, 0 without one. ``script``: what goes wrong; a frame with a
    fault is never skipped. ``serial``, ``source``: for CameraInfo. Raises ConfigError.
    """

    def __init__(
        self,
        product: SimulatedProduct,
        *,
        rate_hz: float | None = None,
        count: int | None = None,
        pool: int | None = None,
        script: FaultScript | None = None,
        serial: str | None = None,
        source: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if rate_hz is not None and not 0 < rate_hz <= 1000:
            raise ConfigError(f"rate_hz: got {rate_hz}, allowed: above 0, at most 1000")
        if count is not None and count < 1:
            raise ConfigError(f"count: got {count}, allowed: at least 1")
        chosen = pool if pool is not None else 0 if rate_hz is None else LIVE_POOL
        if chosen < 0 or (chosen == 0 and rate_hz is not None):
            raise ConfigError(f"pool: got {chosen}, allowed: at least 1, and 0 without rate_hz")
        self.product = product
        self._pool = chosen if count is None else min(chosen, count)
        self._period_ns = None if rate_hz is None else round(1e9 / rate_hz)
        self._count = count
        self._script = script or FaultScript()
        self._serial = serial or f"sim-{product.name}-{product.seed}"
        self._source = source or f"sim:{product.name}"
        self._clock = clock or MonotonicClock()
        self._parts: list[SimulatedPart] = []
        self._last: tuple[int, SimulatedPart] | None = None
        self._stop: threading.Event | None = None
        self._next = 0
        self._anchor = (0, 0)  # a frame, and when it is due
        self._asked: tuple[int, int] | None = None  # the same without a rate: when it was asked for
        self._again: Frame | None = None
        self._came: set[Fault] = set()
        self._found_from_ns: int | None = None
        self._open_serial = self._serial

    def open(self) -> CameraInfo:
        """Draw the pool and begin with the frame that comes next. Raises CameraNotFoundError."""
        self.close()
        now = self._clock.now_ns()
        if self._found_from_ns is None:
            absent = self._script.at("absent", 0)
            self._found_from_ns = now + round(absent.seconds * 1e9) if absent else now
        if now < self._found_from_ns:
            raise CameraNotFoundError(f"camera {self._source!r}: is not connected")
        for fault in self._script.of("hang-open"):
            if fault.frame <= self._next:
                self._hang(fault)
        while len(self._parts) < self._pool:
            part = self.product.part(len(self._parts))
            part.image.flags.writeable = False  # it will be shown again
            self._parts.append(part)
        other = self._script.since("serial", self._next)
        self._open_serial = other.text if other else self._serial
        self._anchor = (self._next, self._clock.now_ns())
        self._asked = self._again = None
        self._stop = threading.Event()
        return CameraInfo("sim", self._source, self._open_serial, live=self._period_ns is not None, simulated=True)

    def read(self, timeout_ms: float) -> Frame:
        """The next frame, or the one that a fault makes of it."""
        stop = self._stop
        if stop is None:
            raise CameraLostError(f"camera {self._source!r}: is not open")
        if self._again is not None:
            frame, self._again = self._again, None
            return frame
        end_ns = self._clock.now_ns() + round(timeout_ms * 1e6)
        index = self._choose()
        if self._count is not None and index >= self._count:
            raise CameraEndedError(f"camera {self._source!r}: its {self._count} frames have been read")
        self._break_off(index)
        if (hang := self._script.at("hang", index)) is not None:
            self._hang(hang)
        captured_ns = self._wait_for(index, end_ns, stop)
        if stop.is_set():
            raise CameraLostError(f"camera {self._source!r}: was closed")
        self._next = index + 1
        if self._script.at("torn", index):
            raise TornFrameError(f"camera {self._source!r}: frame {index} is incomplete", index)
        frame = self._frame(index, captured_ns)
        self._again = frame if self._script.at("duplicate", index) else None
        return frame

    def close(self) -> None:
        """End a read that waits."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.set()

    def truth(self, sequence: int) -> SimulatedPart:
        """What the frame with this number shows: its image, the kind of its defect, its boxes in pixels."""
        frozen = self._script.at("freeze", sequence)
        part = self._part(sequence if frozen is None else max(frozen.frame - 1, 0))
        size, style = self._script.since("size", sequence), self._script.since("format", sequence)
        if size is not None and size.size_px is not None:
            part = _resized(part, *size.size_px)
        if style is not None and style.text == "Mono8":
            grey = cv2.cvtColor(part.image, cv2.COLOR_BGR2GRAY)
            part = SimulatedPart(np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8), part.boxes, part.defect)
        return part

    def golden_samples(self, count: int) -> list[Image]:
        """The golden sample of the product, and good parts that do not come along in the stream."""
        return [self.product.golden(), *(self.product.good(index) for index in range(count - 1))]

    def _choose(self) -> int:
        """The frame to read: the next one, of a live camera the newest, but none beyond a frame with a fault."""
        if self._period_ns is not None:
            first, due_ns = self._anchor
            newest = first + (self._clock.now_ns() - due_ns) // self._period_ns
            faults = [fault.frame for fault in self._script.faults if fault.frame >= self._next]
            if self._count is not None:
                faults.append(self._count - 1)
            self._next = max(self._next, min([newest, *faults]))
        while (lost := self._script.at("lose", self._next)) is not None:
            self._next = lost.frame + lost.count
        return self._next

    def _break_off(self, index: int) -> None:
        fault = self._script.at("unplug", index)
        if fault is not None and fault not in self._came:
            self._came.add(fault)
            self._found_from_ns = self._clock.now_ns() + round(fault.seconds * 1e9)
            self.close()
            raise CameraLostError(f"camera {self._source!r}: was unplugged")

    def _hang(self, fault: Fault) -> None:
        if fault not in self._came:
            self._came.add(fault)
            self._clock.wait(threading.Event(), fault.seconds)

    def _wait_for(self, index: int, end_ns: int, stop: threading.Event) -> int:
        """Wait until the frame has arrived; when it was captured. Raises CameraTimeoutError."""
        if self._period_ns is not None:
            first, due_ns = self._anchor
            captured_ns = due_ns + (index - first) * self._period_ns
        else:
            if self._asked is None or self._asked[0] != index:
                self._part(index)  # a part is drawn first and then captured
                self._asked = (index, self._clock.now_ns())
            captured_ns = self._asked[1]
        late = self._script.at("late", index)
        arrives_ns = captured_ns + (round(late.seconds * 1e9) if late else 0)
        now = self._clock.now_ns()
        if now < arrives_ns:
            self._clock.wait(stop, max(0, min(arrives_ns, end_ns) - now) / 1e9)
            if arrives_ns > end_ns and not stop.is_set():
                raise CameraTimeoutError(f"camera {self._source!r}: frame {index} did not come in time")
        return captured_ns

    def _frame(self, index: int, captured_ns: int) -> Frame:
        age_ns = self._clock.now_ns() - captured_ns
        if (back := self._script.at("back", index)) is not None:
            captured_ns -= round(back.seconds * 1e9)
            age_ns += round(back.seconds * 1e9)
        style = self._script.since("format", index)
        return Frame(
            self.truth(index).image,
            index,
            captured_ns,
            utc_now(age_ns),
            "BGR8" if style is None else style.text,
            self._open_serial,
        )

    def _part(self, index: int) -> SimulatedPart:
        if self._pool and len(self._parts) == self._pool:
            return self._parts[index % self._pool]
        # Drawn where it is asked for: the one that was drawn last is often asked for again.
        if self._last is None or self._last[0] != index:
            self._last = (index, self.product.part(index % self._pool if self._pool else index))
        return self._last[1]


def _resized(part: SimulatedPart, width: int, height: int) -> SimulatedPart:
    old_height, old_width = part.image.shape[:2]
    image = np.asarray(cv2.resize(part.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    x, y = width / old_width, height / old_height
    boxes = tuple(Box(box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y) for box in part.boxes)
    return SimulatedPart(image, boxes, part.defect)
