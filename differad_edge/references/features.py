"""What alignment looks at: small grey images with brightness and contrast taken out, and the points that tell most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import ImageFormatError, ImageSizeError

__all__ = [
    "MIN_SIDE_PX",
    "Floats",
    "Points",
    "as_floats",
    "check_pixels",
    "gradients",
    "halve",
    "normalise",
    "select_points",
    "shrink_grey",
]

Floats: TypeAlias = NDArray[np.float32]

MIN_SIDE_PX = 16

_BLUR_SIGMA_PX = 1.0  # pixels of the small image: bilinear sampling and binarised edges need a slope to work on
_WINDOW_CELLS = 7  # local mean and contrast over 7x7 cells of 4 px: 28 px of the small image
_CELL_PX = 4
_CONTRAST_FLOOR = 4.0  # grey levels; sensor noise in a flat area must not be blown up to texture


def as_floats(array: object) -> Floats:
    """What cv2 returns, with the type it has."""
    result: Floats = np.asarray(array, np.float32)
    return result


def check_pixels(image: NDArray[np.uint8], name: str) -> None:
    """Raise ImageFormatError unless HxW or HxWx3 uint8, ImageSizeError unless both sides are at least 16 px."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageFormatError(f"{name}: got {kind}, allowed: a uint8 array")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ImageFormatError(f"{name}: got shape {image.shape}, allowed: HxW or HxWx3")
    if min(image.shape[:2]) < MIN_SIDE_PX:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ImageSizeError(f"{name}: got {size} px, allowed: sides of at least {MIN_SIDE_PX} px")


def shrink_grey(image: NDArray[np.uint8], factor: int) -> Floats:
    """Grey levels averaged over blocks of ``factor`` x ``factor`` px: (H // factor) x (W // factor) float32, 0 to 255.

    What does not fill a block at the right and the bottom is left out, because whole blocks are several times faster.
    """
    height, width = image.shape[0] // factor, image.shape[1] // factor
    small: object = image
    if factor > 1:
        whole = image[: height * factor, : width * factor]
        small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    if image.ndim == 3:
        small = cv2.cvtColor(np.asarray(small), cv2.COLOR_BGR2GRAY)
    return as_floats(small)


def halve(image: Floats) -> Floats:
    """Every other level of a pyramid: 2x2 blocks averaged. Both sides must be even."""
    height, width = image.shape
    return as_floats(cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA))


def normalise(grey: Floats) -> Floats:
    """Local brightness and contrast taken out: HxW float32, about -2 to 2, near 0 where nothing is to be seen.

    Both sides must be multiples of 4. Local mean and contrast come from a quarter of the resolution: they are smooth,
    and this is what makes them cheap.
    """
    height, width = grey.shape
    smooth = cv2.GaussianBlur(grey, (5, 5), _BLUR_SIGMA_PX)
    cells = (width // _CELL_PX, height // _CELL_PX)
    window = (_WINDOW_CELLS, _WINDOW_CELLS)
    mean = cv2.blur(cv2.resize(smooth, cells, interpolation=cv2.INTER_AREA), window)
    square = cv2.blur(cv2.resize(cv2.multiply(smooth, smooth), cells, interpolation=cv2.INTER_AREA), window)
    contrast = np.sqrt(np.maximum(np.asarray(square) - np.square(mean), 0.0))
    gain = 1.0 / (contrast + _CONTRAST_FLOOR)
    detail = cv2.subtract(smooth, cv2.resize(mean, (width, height)))
    return as_floats(cv2.multiply(detail, cv2.resize(as_floats(gain), (width, height))))


def gradients(image: Floats) -> tuple[Floats, Floats]:
    """Central differences along x and y, per pixel, slightly smoothed across: two HxW float32."""
    # Scharr weights (3, 10, 3) / 16 across, (-1, 0, 1) / 2 along.
    along_x = cv2.Scharr(image, cv2.CV_32F, 1, 0, scale=1 / 32)
    along_y = cv2.Scharr(image, cv2.CV_32F, 0, 1, scale=1 / 32)
    return as_floats(along_x), as_floats(along_y)


@dataclass(frozen=True)
class Points:
    """The pixels with the steepest slopes, ``per_cell`` from every cell, cells row by row.

    ``x``, ``y``: (cells, per_cell) float32, pixel centres; ``value``, ``slope_x``, ``slope_y``: the image and its
    gradient there; ``weight``: 0 where the pixel is not to be used, else 1. ``cells``: (rows, columns).
    """

    x: Floats
    y: Floats
    value: Floats
    slope_x: Floats
    slope_y: Floats
    weight: Floats
    cells: tuple[int, int]


def select_points(
    image: Floats, usable: NDArray[np.bool_] | None, *, cell_px: int, per_cell: int, min_slope: float
) -> Points:
    """Choose points from every cell of ``cell_px`` x ``cell_px`` pixels; ``usable``: HxW bool, None for everywhere.

    The choice is spread over the image on purpose: a defect may be the steepest thing in it. What does not fill a cell
    at the right and the bottom is left out.
    """
    rows, columns = image.shape[0] // cell_px, image.shape[1] // cell_px
    per_cell = min(per_cell, cell_px * cell_px)
    slope_x, slope_y = gradients(image)
    steepness = np.hypot(slope_x, slope_y)
    if usable is not None:
        steepness = np.where(usable, steepness, 0.0)
    # The outermost pixels have half a neighbourhood, and their slope is the border rule's.
    steepness[[0, -1], :] = 0.0
    steepness[:, [0, -1]] = 0.0
    inside = steepness[: rows * cell_px, : columns * cell_px]
    by_cell = inside.reshape(rows, cell_px, columns, cell_px).swapaxes(1, 2).reshape(rows * columns, -1)
    best = np.argpartition(-by_cell, per_cell - 1, axis=1)[:, :per_cell]
    cell = np.arange(rows * columns)[:, None]
    y = (cell // columns) * cell_px + best // cell_px
    x = (cell % columns) * cell_px + best % cell_px
    return Points(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        value=image[y, x],
        slope_x=slope_x[y, x],
        slope_y=slope_y[y, x],
        weight=(steepness[y, x] >= min_slope).astype(np.float32),
        cells=(rows, columns),
    )
