"""A canvas in product units: the frame of the camera is the square from (0, 0) to (1, 1), y points down.

Around the frame lies a margin, so that a part may shift and turn without leaving a blank edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.images import Image

__all__ = ["MARGIN", "Canvas", "Colour", "Floats", "Point", "smooth_noise"]

MARGIN = 0.06
"""Width of the margin on each side, as a share of the frame's side."""

_FRACTION_BITS = 4  # OpenCV draws at sixteenths of a pixel

Colour: TypeAlias = tuple[int, int, int]
"""Blue, green, red; 0 to 255."""
Point: TypeAlias = tuple[float, float]
"""(x, y) in product units."""
Floats: TypeAlias = NDArray[np.float32]


class Canvas:
    """``pixels``: HxWx3 uint8 BGR; ``frame_px``: side of the camera's frame in pixels of this canvas."""

    def __init__(self, frame_px: int, pixels: Image | None = None, origin_px: tuple[int, int] = (0, 0)) -> None:
        side = round(frame_px * (1 + 2 * MARGIN))
        self.frame_px = frame_px
        self.pixels: Image = np.zeros((side, side, 3), np.uint8) if pixels is None else pixels
        self._origin_px = origin_px

    def copy(self) -> Canvas:
        """An independent canvas with the same pixels."""
        return Canvas(self.frame_px, self.pixels.copy(), self._origin_px)

    def near(self, centre: Point, reach: float) -> Canvas:
        """The square of ``reach`` around ``centre`` as a canvas that shares its pixels: small things are quick."""
        height, width = self.pixels.shape[:2]
        (x1, y1), (x2, y2) = (
            (self._fixed([(centre[0] + sign * reach, centre[1] + sign * reach)])[0] >> _FRACTION_BITS)
            for sign in (-1, 1)
        )
        left, top = max(0, int(x1)), max(0, int(y1))
        right, bottom = min(width, max(left + 1, int(x2) + 1)), min(height, max(top + 1, int(y2) + 1))
        origin = (self._origin_px[0] + left, self._origin_px[1] + top)
        return Canvas(self.frame_px, self.pixels[top:bottom, left:right], origin)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    # -- coordinates ---------------------------------------------------------------------------------------------------

    def px(self, length: float) -> int:
        """A length in whole pixels, at least 1."""
        return max(1, round(length * self.frame_px))

    def grid(self) -> tuple[Floats, Floats]:
        """x of each column as (1, W) and y of each row as (H, 1), in product units."""
        height, width = self.shape
        x, y = (
            (np.arange(start, start + length, dtype=np.float32) + 0.5) / self.frame_px - np.float32(MARGIN)
            for start, length in zip(self._origin_px, (width, height), strict=True)
        )
        return x[None, :], y[:, None]

    def _fixed(self, points: Sequence[Point]) -> NDArray[np.int32]:
        pixels = (np.asarray(points, np.float64) + MARGIN) * self.frame_px - 0.5 - np.array(self._origin_px)
        return np.asarray(np.round(pixels * (1 << _FRACTION_BITS)), np.int32)

    # -- opaque shapes -------------------------------------------------------------------------------------------------

    def fill(self, colour: Colour) -> None:
        """All of it."""
        self.pixels[:] = colour

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        x, y = (int(v) for v in self._fixed([centre])[0])
        reach = round(radius * self.frame_px * (1 << _FRACTION_BITS))
        cv2.circle(self.pixels, (x, y), reach, colour, -1, cv2.LINE_AA, _FRACTION_BITS)

    def circle(self, centre: Point, radius: float, width: float, colour: Colour) -> None:
        """An outline of ``width``."""
        x, y = (int(v) for v in self._fixed([centre])[0])
        reach = round(radius * self.frame_px * (1 << _FRACTION_BITS))
        cv2.circle(self.pixels, (x, y), reach, colour, self.px(width), cv2.LINE_AA, _FRACTION_BITS)

    def polygon(self, corners: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        cv2.fillPoly(self.pixels, [self._fixed(corners)], colour, cv2.LINE_AA, _FRACTION_BITS)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """An open polyline with round ends."""
        cv2.polylines(self.pixels, [self._fixed(points)], False, colour, self.px(width), cv2.LINE_AA, _FRACTION_BITS)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, radius: float = 0.0) -> None:
        """A filled upright rectangle with its upper left corner at (x, y), its corners rounded by ``radius``."""
        self.polygon(rounded(x, y, width, height, radius), colour)

    def frame(self, x: float, y: float, width: float, height: float, line: float, colour: Colour) -> None:
        """The outline of an upright rectangle."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        self.line(corners, line, colour)

    def text(
        self,
        words: str,
        left: float,
        baseline: float,
        height: float,
        colour: Colour,
        weight: int = 500,
        align: str = "",
    ) -> None:
        """Words that start at (left, baseline); ``align``: "centre" or "right" to place their middle or end there."""
        size = self.px(height)
        face = cv2.FontFace("sans")
        place = self._fixed([(left, baseline)])[0] / (1 << _FRACTION_BITS)
        if align:
            extent = cv2.getTextSize((4000, 4000), words, (0, 0), face, size, weight)
            place[0] -= extent[2] * (0.5 if align == "centre" else 1.0)
        cv2.putText(self.pixels, words, (round(place[0]), round(place[1])), colour, face, size, weight)

    # -- light and matter that let something through -------------------------------------------------------------------

    def stencil(self, corners: Sequence[Point]) -> Floats:
        """HxW coverage, 0 to 1, of a polygon."""
        mask = np.zeros(self.shape, np.uint8)
        cv2.fillPoly(mask, [self._fixed(corners)], 255, cv2.LINE_AA, _FRACTION_BITS)
        return np.asarray(mask / np.float32(255), np.float32)

    def soften(self, coverage: Floats, radius: float) -> Floats:
        """Blur a coverage by ``radius``."""
        return np.asarray(cv2.GaussianBlur(coverage, (0, 0), max(0.3, radius * self.frame_px)), np.float32)

    def blend(self, coverage: Floats, colour: Colour | Floats) -> None:
        """Mix in ``colour`` (one, or HxWx3 float32) by ``coverage``, HxW in 0 to 1; only where there is any."""
        window = _window(coverage)
        if window is None:
            return
        weight = coverage[window][..., None]
        there = self.pixels[window].astype(np.float32)
        aim = colour[window] if isinstance(colour, np.ndarray) else np.asarray(colour, np.float32)
        self.pixels[window] = np.clip(there + (aim - there) * weight + 0.5, 0, 255).astype(np.uint8)

    def shade(self, gain: Floats) -> None:
        """Multiply by ``gain``, HxW: below 1 darkens, above 1 brightens."""
        self.pixels[:] = np.clip(self.pixels * gain[..., None] + 0.5, 0, 255).astype(np.uint8)

    def shadow(self, coverage: Floats, offset: Point, blur: float, strength: float) -> None:
        """The soft shadow that a thing of this ``coverage`` casts on what is painted so far."""
        shift = np.array([[1, 0, offset[0] * self.frame_px], [0, 1, offset[1] * self.frame_px]], np.float64)
        moved = np.asarray(cv2.warpAffine(coverage, shift, self.shape[::-1]), np.float32)
        self.blend(self.soften(moved, blur) * strength, (12, 10, 10))


def rounded(x: float, y: float, width: float, height: float, radius: float) -> list[Point]:
    """Corners of an upright rectangle with rounded corners."""
    if radius <= 0:
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    radius = min(radius, width / 2, height / 2)
    centres = [(x + width - radius, y + radius), (x + width - radius, y + height - radius)]
    centres += [(x + radius, y + height - radius), (x + radius, y + radius)]
    return [
        (cx + radius * float(np.cos(angle)), cy + radius * float(np.sin(angle)))
        for quarter, (cx, cy) in enumerate(centres)
        for angle in np.linspace((quarter - 1) * np.pi / 2, quarter * np.pi / 2, 9)
    ]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """(height, width) noise of about ``cells`` (rows, columns) bumps, zero mean, standard deviation about 1."""
    lattice = rng.standard_normal((max(2, cells[0]), max(2, cells[1])), dtype=np.float32)
    grown = cv2.resize(lattice, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown, np.float32)


def _window(coverage: Floats) -> tuple[slice, slice] | None:
    present = coverage > 1 / 512
    rows, columns = np.flatnonzero(present.any(1)), np.flatnonzero(present.any(0))
    if rows.size == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
