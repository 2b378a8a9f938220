"""A sentence about a finding, made only from what was measured: where, how large, which shape, how it differs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.images import Image
from differad_edge.results import Box

__all__ = ["describe"]

_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")
_VISIBLE_GREY_LEVELS = 8.0
_VISIBLE_CHROMA = 12.0
_ELONGATED = 3.0
_ROUND = 1.5
_STRUCTURE_RATIO = 1.8


def describe(reference: Image, target: Image, box: Box, mask: NDArray[np.bool_] | None) -> str:
    """Describe the place ``box`` (pixels of both images, HxWx3 uint8 BGR, aligned to each other).

    ``mask``: bool of the box's integer extent, the pixels that differ; None: all of the box. The words:

    - where: thirds of the image; size: of the box, in pixels of the compared image;
    - line-like / elongated / round: ratio of the principal axes of the mask's pixels, from 3 and up to 1.5;
    - darker / brighter: mean grey difference on the mask, from 8 grey levels; of another colour: mean chroma
      difference (Lab a, b), from 12;
    - extra / missing: the target (the reference) shows 1.8 times as much local contrast as the other there.
    """
    height, width = target.shape[:2]
    x1, y1 = max(0, int(box.x1)), max(0, int(box.y1))
    x2, y2 = min(width, int(np.ceil(box.x2))), min(height, int(np.ceil(box.y2)))
    place = _place((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
    where, window = _window(x1, y1, x2, y2, width, height)
    inside = np.zeros((window[0].stop - window[0].start, window[1].stop - window[1].start), bool)
    if mask is None:
        inside[where] = True
    else:
        shown = mask[: y2 - y1, : x2 - x1]
        inside[where][: shown.shape[0], : shown.shape[1]] = shown
    if not inside.any():
        inside[where] = True
    before, after = _grey_and_chroma(reference[window]), _grey_and_chroma(target[window])
    words = [_presence(before[..., 0], after[..., 0], inside), _shape(inside), "difference"]
    size = f"{round(box.width)}x{round(box.height)} px"
    change = _change(before, after, inside)
    return " ".join(word for word in words if word) + f", {size}, {place}" + (f": {change}" if change else "")


def _place(x: float, y: float) -> str:
    row, column = _ROWS[min(2, int(y * 3))], _COLUMNS[min(2, int(x * 3))]
    return "in the centre" if (row, column) == ("middle", "centre") else f"{row} {column}"


def _window(
    x1: int, y1: int, x2: int, y2: int, width: int, height: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """(the box within the window, the window): the box and as much around it as it is large, at least 8 px."""
    margin = max(8, (x2 - x1 + y2 - y1) // 4)
    left, top = max(0, x1 - margin), max(0, y1 - margin)
    window = (slice(top, min(height, y2 + margin)), slice(left, min(width, x2 + margin)))
    return (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left)), window


def _grey_and_chroma(image: Image) -> NDArray[np.float32]:
    """HxWx3: grey level 0 to 255, then a and b of CIE Lab."""
    image = np.ascontiguousarray(image)
    # As float: the 8-bit conversion builds tables for 0.4 s at its first call, in the middle of somebody's deadline.
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    return np.dstack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), lab[..., 1], lab[..., 2]]).astype(np.float32)


def _presence(before: NDArray[np.float32], after: NDArray[np.float32], inside: NDArray[np.bool_]) -> str:
    around = ~inside if (~inside).any() else inside
    stood_out = abs(float(before[inside].mean() - before[around].mean())) + float(before[inside].std())
    stands_out = abs(float(after[inside].mean() - after[around].mean())) + float(after[inside].std())
    if max(stood_out, stands_out) < _VISIBLE_GREY_LEVELS:
        return ""
    if stands_out > _STRUCTURE_RATIO * stood_out:
        return "extra"
    return "missing" if stood_out > _STRUCTURE_RATIO * stands_out else ""


def _shape(inside: NDArray[np.bool_]) -> str:
    points = np.argwhere(inside).astype(np.float64)
    if len(points) < 6:
        return "point-like"
    # A filled disc of one pixel's area has this variance: it keeps thin lines from an infinite ratio.
    minor, major = np.linalg.eigvalsh(np.cov(points.T) + np.eye(2) / 12)
    ratio = float(np.sqrt(major / minor))
    if ratio >= 2 * _ELONGATED:
        return "line-like"
    if ratio >= _ELONGATED:
        return "elongated"
    return "round" if ratio <= _ROUND else ""


def _change(before: NDArray[np.float32], after: NDArray[np.float32], inside: NDArray[np.bool_]) -> str:
    difference = after[inside].mean(0) - before[inside].mean(0)
    grey, chroma = float(difference[0]), float(np.hypot(difference[1], difference[2]))
    parts = []
    if abs(grey) >= _VISIBLE_GREY_LEVELS:
        parts.append(f"{abs(grey):.0f} grey levels {'darker' if grey < 0 else 'brighter'}")
    if chroma >= _VISIBLE_CHROMA:
        parts.append("of another colour")
    return " and ".join(parts) + (" than the reference" if parts else "")
