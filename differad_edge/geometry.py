"""Boxes: overlap, masks, the 0-1000 grid of the language models, affine maps.

Boxes are Box, or float arrays of shape (N, 4) with columns x1, y1, x2, y2: pixel edges, x2 and y2 exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from differad_edge.errors import BoxError
from differad_edge.results import Box

__all__ = [
    "GRID",
    "clip_box",
    "from_grid",
    "grow_box",
    "invert_affine",
    "iou",
    "iou_matrix",
    "tight_box",
    "to_grid",
    "transform_box",
    "union_box",
]

GRID = 1000
"""Steps of the coordinate grid that language models read and write, along either side of the image."""

_EDGE_TOLERANCE_PX = 1e-3  # rounding left over from affine maps, far below anything visible

BoxesLike = Sequence[Box] | Sequence[Sequence[float]] | NDArray[Any]


def _as_boxes(boxes: BoxesLike) -> NDArray[np.float64]:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4), dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 4:
        raise BoxError(f"boxes: got an array of shape {array.shape}, allowed: (N, 4)")
    return array


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0.0 to 1.0."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return min(1.0, overlap / (a.area + b.area - overlap))


def iou_matrix(a: BoxesLike, b: BoxesLike) -> NDArray[np.float64]:
    """Intersection over union of every box of ``a`` with every box of ``b``: (N, M) float64, 0.0 to 1.0."""
    first, second = _as_boxes(a), _as_boxes(b)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0.0, None), axis=2)
    area_first = np.prod(first[:, 2:] - first[:, :2], axis=1)
    area_second = np.prod(second[:, 2:] - second[:, :2], axis=1)
    union = area_first[:, None] + area_second[None, :] - overlap
    result: NDArray[np.float64] = np.clip(overlap / np.where(union > 0, union, 1.0), 0.0, 1.0)
    return result


def union_box(boxes: BoxesLike) -> Box:
    """The smallest box around all ``boxes``. Raises BoxError when there are none."""
    array = _as_boxes(boxes)
    if len(array) == 0:
        raise BoxError("boxes: got none, allowed: at least one")
    return Box(array[:, 0].min(), array[:, 1].min(), array[:, 2].max(), array[:, 3].max())


def tight_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box around the True pixels of an HxW bool mask, or None when there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def clip_box(box: Box, width: int, height: int) -> Box | None:
    """The part of ``box`` inside an image of ``width`` x ``height`` pixels, or None when it lies outside."""
    x1, y1 = max(0.0, box.x1), max(0.0, box.y1)
    x2, y2 = min(float(width), box.x2), min(float(height), box.y2)
    return Box(x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def grow_box(box: Box, margin_px: float, width: int, height: int) -> Box:
    """``box`` with ``margin_px`` pixels more on each side, cut at the edges of a ``width`` x ``height`` image.

    Raises BoxError for a negative margin, or when nothing of the grown box lies inside the image.
    """
    if not math.isfinite(margin_px) or margin_px < 0:
        raise BoxError(f"margin_px: got {margin_px!r}, allowed: a finite number >= 0")
    grown = Box(box.x1 - margin_px, box.y1 - margin_px, box.x2 + margin_px, box.y2 + margin_px)
    clipped = clip_box(grown, width, height)
    if clipped is None:
        raise BoxError(f"box: got {tuple(box)}, which lies outside the image of {width}x{height} px")
    return clipped


def to_grid(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """``box`` in pixels of a ``width`` x ``height`` image as integers from 0 to 1000: x1, y1, x2, y2.

    A box narrower than a grid step keeps one step, so that it never turns into the "no anomaly" box (0, 0, 0, 0).
    Raises BoxError when the box reaches outside the image: clip it first.
    """
    if (
        box.x1 < -_EDGE_TOLERANCE_PX
        or box.y1 < -_EDGE_TOLERANCE_PX
        or box.x2 > width + _EDGE_TOLERANCE_PX
        or box.y2 > height + _EDGE_TOLERANCE_PX
    ):
        raise BoxError(f"box: got {tuple(box)}, allowed: inside the image of {width}x{height} px")
    x1, x2 = _span_to_grid(box.x1, box.x2, width)
    y1, y2 = _span_to_grid(box.y1, box.y2, height)
    return x1, y1, x2, y2


def _span_to_grid(low: float, high: float, side: int) -> tuple[int, int]:
    # floor(x + 0.5), not round(): Python rounds halves to even, which would make neighbours uneven.
    first = min(GRID, max(0, math.floor(low * GRID / side + 0.5)))
    last = min(GRID, max(0, math.floor(high * GRID / side + 0.5)))
    if last > first:
        return first, last
    start = min(GRID - 1, max(0, math.floor((low + high) / 2 * GRID / side)))
    return start, start + 1


def from_grid(grid: Sequence[int], width: int, height: int) -> Box:
    """Integers from 0 to 1000 (x1, y1, x2, y2) as a box in pixels of a ``width`` x ``height`` image.

    Raises BoxError when they are not four integers in that range, or reversed or empty (as (0, 0, 0, 0) is).
    """
    if len(grid) != 4 or not all(_is_grid_step(value) for value in grid):
        raise BoxError(f"grid: got {tuple(grid)}, allowed: four integers from 0 to {GRID}")
    x1, y1, x2, y2 = (int(value) for value in grid)
    return Box(x1 * width / GRID, y1 * height / GRID, x2 * width / GRID, y2 * height / GRID)


def _is_grid_step(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) <= GRID


def _as_affine(matrix: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape == (6,):
        array = array.reshape(2, 3)
    if array.shape != (2, 3) or not np.isfinite(array).all():
        raise ValueError(f"matrix: got shape {array.shape}, allowed: 2x3 (or its 6 values row by row), all finite")
    return array


def transform_box(box: Box, matrix: ArrayLike) -> Box:
    """The tight axis-aligned box around the four corners of ``box`` after a 2x3 affine (or its 6 values by row).

    Raises ValueError for another shape, BoxError when the map flattens the box.
    """
    affine = _as_affine(matrix)
    x = np.array([box.x1, box.x2, box.x2, box.x1])
    y = np.array([box.y1, box.y1, box.y2, box.y2])
    new_x = affine[0, 0] * x + affine[0, 1] * y + affine[0, 2]
    new_y = affine[1, 0] * x + affine[1, 1] * y + affine[1, 2]
    return Box(new_x.min(), new_y.min(), new_x.max(), new_y.max())


def invert_affine(matrix: ArrayLike) -> NDArray[np.float64]:
    """The inverse of a 2x3 affine (or its 6 values by row), as (2, 3) float64. Raises ValueError when it has none."""
    affine = _as_affine(matrix)
    linear, shift = affine[:, :2], affine[:, 2]
    determinant = linear[0, 0] * linear[1, 1] - linear[0, 1] * linear[1, 0]
    if abs(determinant) < 1e-12:
        raise ValueError(f"matrix: got {affine.tolist()}, which has no inverse")
    inverse = np.array([[linear[1, 1], -linear[0, 1]], [-linear[1, 0], linear[0, 0]]]) / determinant
    return np.column_stack([inverse, -inverse @ shift])
