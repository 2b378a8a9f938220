"""Messages and judges without ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from differad_edge_ros.judges import Judged

from differad_edge.images import Image
from differad_edge.results import InspectionResult, Timings, Verdict


@dataclass
class Picture:
    """A sensor_msgs/Image as far as it is read."""

    height: int = 0
    width: int = 0
    encoding: str = "bgr8"
    is_bigendian: int = 0
    step: int = 0
    data: Any = b""


@dataclass
class CompressedPicture:
    """A sensor_msgs/CompressedImage as far as it is read."""

    format: str = ""
    data: Any = b""


def picture(pixels: Any, encoding: str = "bgr8", padding: int = 0) -> Picture:
    """A message of HxW or HxWxC uint8; ``padding``: bytes after each row."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return Picture(height, width, encoding, 0, rows.shape[1], rows.tobytes())


def grey(value: int = 90, size: tuple[int, int] = (64, 48)) -> Picture:
    """A bgr8 message of one level."""
    return picture(np.full((size[1], size[0], 3), value, np.uint8))


def ok(product: str, size: tuple[int, int]) -> InspectionResult:
    """As an engine says it."""
    return InspectionResult(
        Verdict.OK, None, 0.1, 0.5, (), Timings({}, 0.0), product, "ref-001", "0" * 64, "scripted", size
    )


@dataclass
class ScriptedJudge:
    """Says OK, or does what ``script`` does; ``gate`` holds it up until it is set."""

    script: Callable[[Image, str], InspectionResult] | None = None
    unproven: Exception | None = None
    name: str = "scripted"
    busy_ms: float = 0.0
    closed: int = 0
    seen: list[int] = field(default_factory=list)
    registered: list[Any] = field(default_factory=list)
    left_ms: list[float | None] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def inspect(self, image: Image, product: str, deadline_ms: float | None) -> Judged:
        self.entered.set()
        self.gate.wait(20)
        self.seen.append(int(image[0, 0, 0]))
        self.left_ms.append(deadline_ms)
        if self.script is not None:
            return Judged(self.script(image, product))
        return Judged(ok(product, (image.shape[1], image.shape[0])))

    def prove(self, product: str) -> None:
        if self.unproven is not None:
            raise self.unproven

    def register(self, product: str, images: Sequence[Any], roi: Sequence[int] | None) -> tuple[str, ...]:
        self.registered.append((product, images, roi))
        return tuple(f"ref-{number:03d}" for number, _ in enumerate(images, 1))

    def close(self) -> None:
        self.closed += 1


__all__ = ["CompressedPicture", "Picture", "ScriptedJudge", "grey", "ok", "picture"]
