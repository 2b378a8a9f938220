"""Between the frame of the reference and the target: images there, boxes back."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from differad_edge.geometry import transform_box
from differad_edge.references.features import Floats, as_floats, check_pixels
from differad_edge.results import Box

__all__ = ["GRID_STEP_PX", "MIN_DISPLACEMENT_PX", "inside_target", "sample_grid", "to_target", "warp_to_reference"]

GRID_STEP_PX = 16
"""One node of a displacement field stands in the middle of every 16x16 px of the reference."""

MIN_DISPLACEMENT_PX = 0.25
"""Displacements below this everywhere are not worth a warp: interpolation costs more sharpness than they cost place."""

_HALF_PIXEL = 0.5


def inside_target(matrix: ArrayLike, target_size: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of the reference's frame fall on a pixel of the target: HxW bool for ``size`` (width, height).

    ``matrix``: 2x3 affine, reference pixel centres to target pixel centres; ``target_size``: (width, height).
    """
    affine = _as_affine(matrix)
    width, height = size
    rows = np.arange(height, dtype=np.float64)[:, None]
    columns = np.arange(width, dtype=np.float64)[None, :]
    # Along a row each side of the target allows an interval of columns: no need to look at every pixel.
    low, high = np.full((height, 1), -np.inf), np.full((height, 1), np.inf)
    for slope, offset, side in (
        (affine[0, 0], affine[0, 1] * rows + affine[0, 2], target_size[0]),
        (affine[1, 0], affine[1, 1] * rows + affine[1, 2], target_size[1]),
    ):
        if abs(slope) < 1e-12:
            out = (offset < -_HALF_PIXEL) | (offset > side - _HALF_PIXEL)
            low = np.where(out, np.inf, low)
            continue
        first, last = (-_HALF_PIXEL - offset) / slope, (side - _HALF_PIXEL - offset) / slope
        low, high = np.maximum(low, np.minimum(first, last)), np.minimum(high, np.maximum(first, last))
    start = np.clip(np.ceil(low - 1e-9), 0, width)
    stop = np.clip(np.floor(high + 1e-9), -1, width - 1)
    result: NDArray[np.bool_]
    if not start.any() and (stop == width - 1).all():
        result = np.ones((height, width), bool)
    else:
        result = (columns >= start) & (columns <= stop)
    return result


def warp_to_reference(
    target: NDArray[np.uint8], matrix: ArrayLike, displacement: Floats | None, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The target as the reference would show it, interpolated once, at full resolution.

    ``target``: HxWx3 or HxW uint8; ``matrix``: 2x3 affine (or its 6 values), reference pixel centres to target pixel
    centres; ``displacement``: what LocalAligner.refine returns; ``size``: (width, height) of the reference. Returns the
    new image and an HxW bool mask, False where the target has no pixel (the image repeats the target's edge there).

    Raises ImageFormatError or ImageSizeError for a target that is no such image, ValueError for a matrix or a field of
    another shape.
    """
    check_pixels(target, "target")
    affine = _as_affine(matrix)
    width, height = size
    target_size = (target.shape[1], target.shape[0])
    if displacement is not None:
        displacement = _check_field(displacement, size)
        if float(np.abs(displacement).max()) < MIN_DISPLACEMENT_PX:
            displacement = None
    if displacement is None:
        valid = inside_target(affine, target_size, size)
        if target_size == size and np.array_equal(affine, np.eye(2, 3)):
            return target.copy(), valid
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        wide = _widen(target)
        warped = cv2.warpAffine(wide, affine, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return _narrow(np.asarray(warped, np.uint8), target.ndim), valid
    map_x, map_y = _sampling_maps(affine, displacement, size)
    warped = cv2.remap(_widen(target), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # The field is smooth and small: where the affine map alone stays this far inside, nothing has to be looked at.
    reach = float(np.abs(affine[:, :2]).sum(axis=1).max()) * float(np.abs(displacement).max())
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]]) @ affine.T
    edge = np.array(target_size) - _HALF_PIXEL
    if (corners >= reach - _HALF_PIXEL).all() and (corners <= edge - reach).all():
        valid = np.ones((height, width), bool)
    else:
        valid = (map_x >= -_HALF_PIXEL) & (map_x <= edge[0]) & (map_y >= -_HALF_PIXEL) & (map_y <= edge[1])
    return _narrow(np.asarray(warped, np.uint8), target.ndim), valid


def to_target(box: Box, matrix: ArrayLike, displacement: Floats | None = None) -> Box:
    """A box in pixels of the reference as the tight box around it in pixels of the target (not clipped).

    ``matrix`` and ``displacement`` as in warp_to_reference. Raises ValueError for another matrix, BoxError when it
    flattens the box.
    """
    affine = _as_affine(matrix)
    if displacement is not None:
        corners = np.array([[box.x1, box.y1], [box.x2, box.y1], [box.x1, box.y2], [box.x2, box.y2]])
        moves = sample_grid(as_floats(displacement), as_floats(corners - _HALF_PIXEL))
        moved = corners + moves
        (x1, y1), (x2, y2) = moved.min(axis=0), moved.max(axis=0)
        if x2 <= x1 or y2 <= y1:
            raise AssertionError("a tight box around four distinct corners cannot be empty")
        box = Box(x1, y1, x2, y2)
    # Boxes count from pixel edges, the matrix from pixel centres.
    edges = affine.copy()
    edges[:, 2] += _HALF_PIXEL - affine[:, :2].sum(axis=1) * _HALF_PIXEL
    return transform_box(box, edges)


def sample_grid(displacement: Floats, points: Floats) -> Floats:
    """The field at ``points``: (N, 2) float32 x, y of pixel centres; returns (N, 2) float32 px."""
    nodes = (points + _HALF_PIXEL) / GRID_STEP_PX - _HALF_PIXEL
    spots = as_floats(nodes.reshape(1, -1, 2))
    found = cv2.remap(displacement, spots, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return as_floats(found).reshape(-1, 2)


def _sampling_maps(affine: NDArray[np.float64], displacement: Floats, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Where in the target each pixel of the reference's frame is read: two HxW float32."""
    width, height = size
    # One node more on each side: bilinear enlargement is exact for the affine part only between nodes.
    field = np.pad(displacement, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows, columns = field.shape[:2]
    x = (np.arange(columns) - _HALF_PIXEL) * GRID_STEP_PX - _HALF_PIXEL
    y = (np.arange(rows) - _HALF_PIXEL) * GRID_STEP_PX - _HALF_PIXEL
    moved_x, moved_y = x[None, :] + field[..., 0], y[:, None] + field[..., 1]
    maps = []
    for a, b, c in affine:
        nodes = as_floats(a * moved_x + b * moved_y + c)
        full = cv2.resize(nodes, (columns * GRID_STEP_PX, rows * GRID_STEP_PX), interpolation=cv2.INTER_LINEAR)
        maps.append(as_floats(full)[GRID_STEP_PX : GRID_STEP_PX + height, GRID_STEP_PX : GRID_STEP_PX + width])
    return maps[0], maps[1]


def _widen(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # cv2 interpolates four channels in half the time of three, both conversions included.
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), np.uint8)


def _narrow(image: NDArray[np.uint8], ndim: int) -> NDArray[np.uint8]:
    return image if ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR), np.uint8)


def _as_affine(matrix: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(matrix, np.float64)
    if array.size != 6 or not np.isfinite(array).all():
        raise ValueError(f"matrix: got shape {array.shape}, allowed: 2x3 (or its 6 values row by row), all finite")
    return array.reshape(2, 3)


def _check_field(displacement: Floats, size: tuple[int, int]) -> Floats:
    field = as_floats(displacement)
    expected = (-(-size[1] // GRID_STEP_PX), -(-size[0] // GRID_STEP_PX), 2)
    if field.shape != expected or not np.isfinite(field).all():
        raise ValueError(f"displacement: got shape {field.shape}, allowed: {expected}, all finite")
    return field
