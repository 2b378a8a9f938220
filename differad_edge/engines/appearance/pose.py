"""Where an elongated part lies and how it is turned, so that screws may lie as they fall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.images import Image

__all__ = ["Outline", "PoseFrame", "find_outline", "frame_of"]

Affine = NDArray[np.float64]

_WORK_SIDE_PX = 384
_BORDER_SHARE = 0.03
_LEAST_CONTRAST = 8.0  # grey levels between part and background
_MOST_ON_BORDER = 0.05  # of the image's rim: a part that leaves the picture has no pose
_ELONGATED = 1.5  # length against width: below, the main axis is a matter of chance
_MARGIN = 0.06  # of the part's length, around it
_LARGEST_ZOOM = 1.5  # more invents pixels
_LEAST_SIDE_PX = 64


@dataclass(frozen=True)
class Outline:
    """A part on its background, in pixels of the image.

    ``centre``: (x, y); ``along``: unit vector of its main axis, towards the end that reaches farther from the centre of
    mass; ``lengthwise``, ``crosswise``: how far it reaches (least, most) from the centre on that axis and across.
    ``elongation``: spread along against spread across, at least 1; ``on_border``: share of the image's rim it covers.
    """

    centre: NDArray[np.float64]
    along: NDArray[np.float64]
    lengthwise: tuple[float, float]
    crosswise: tuple[float, float]
    elongation: float
    on_border: float

    @property
    def across(self) -> NDArray[np.float64]:
        """Unit vector across, a quarter turn from ``along``."""
        return np.array([-self.along[1], self.along[0]])

    @property
    def has_pose(self) -> bool:
        """Whether the main axis says how the part is turned."""
        return self.elongation >= _ELONGATED and self.on_border <= _MOST_ON_BORDER


@dataclass(frozen=True)
class PoseFrame:
    """The frame in which parts are compared: x along the part, its origin at the part's centre.

    ``lengthwise``, ``crosswise``: the extent shown, px of the image; ``zoom``: px of the frame for one of the image.
    """

    lengthwise: tuple[float, float]
    crosswise: tuple[float, float]
    zoom: float

    def size(self, multiple: int) -> tuple[int, int]:
        """(width, height) px, multiples of ``multiple``."""
        spans = (self.lengthwise[1] - self.lengthwise[0], self.crosswise[1] - self.crosswise[0])
        width, height = (max(multiple, round(span * self.zoom / multiple) * multiple) for span in spans)
        return width, height

    def to_image(self, outline: Outline) -> Affine:
        """2x3 affine from pixel centres of the frame to pixel centres of the image."""
        step_x, step_y = outline.along / self.zoom, outline.across / self.zoom
        origin = outline.centre + outline.along * self.lengthwise[0] + outline.across * self.crosswise[0]
        return np.column_stack([step_x, step_y, origin + (step_x + step_y) / 2])


def frame_of(outlines: Sequence[Outline | None], work_area_px: float) -> PoseFrame | None:
    """A frame of about ``work_area_px`` that shows every outline, or None where some part has no pose."""
    found = [outline for outline in outlines if outline is not None and outline.has_pose]
    if not found or len(found) != len(outlines):
        return None
    # The median, for the parts are of one kind: one bad outline must not set the frame.
    spans = np.array([[*outline.lengthwise, *outline.crosswise] for outline in found])
    x1, x2, y1, y2 = (float(v) for v in np.median(spans, 0))
    margin = _MARGIN * (x2 - x1)
    x1, x2, y1, y2 = x1 - margin, x2 + margin, y1 - margin, y2 + margin
    zoom = min(_LARGEST_ZOOM, math.sqrt(work_area_px / ((x2 - x1) * (y2 - y1))))
    if min(x2 - x1, y2 - y1) * zoom < _LEAST_SIDE_PX:
        return None  # a hair is no part
    return PoseFrame((x1, x2), (y1, y2), zoom)


def find_outline(image: Image) -> Outline | None:
    """The largest thing that stands out from an even background, or None where there is none.

    ``image``: HxWx3 uint8 BGR. The background is taken from the image's rim as a quadratic of the place, so that light
    may fall off towards a side.
    """
    scale = min(1.0, _WORK_SIDE_PX / max(image.shape[:2]))
    work = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image, work, interpolation=cv2.INTER_AREA) if scale < 1 else image
    height, width = small.shape[:2]
    rim_px = max(3, int(_BORDER_SHARE * max(height, width)))
    rim = np.ones((height, width), bool)
    rim[rim_px:-rim_px, rim_px:-rim_px] = False
    contrast = _contrast(np.asarray(small, np.float32), rim)
    noise = float(np.quantile(contrast[rim], 0.9))
    otsu, _ = cv2.threshold(np.clip(contrast, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    apart = (contrast > max(2.5 * noise, 0.6 * otsu, _LEAST_CONTRAST)).astype(np.uint8)
    closed = cv2.morphologyEx(apart, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    mask = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    largest = (np.asarray(labels) == 1 + int(np.asarray(stats)[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    contours, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(largest, contours, -1, 1, -1)  # a hole is part of the part
    return _outline(largest, float(largest[rim].mean()), scale)


def _contrast(image: NDArray[np.float32], rim: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel from the background that the rim extrapolates to, the largest over the channels."""
    height, width = rim.shape
    y, x = (np.mgrid[:height, :width] / max(height, width)).astype(np.float32)
    terms: NDArray[np.float32] = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
    farthest = np.zeros((height, width), np.float32)
    places = terms[rim]
    for channel in cv2.split(image):
        values = np.asarray(channel, np.float32)[rim]
        off = np.abs(values - places @ _fit(places, values))
        calm = off <= np.quantile(off, 0.8)  # without the part where it touches the rim
        np.maximum(farthest, np.abs(channel - terms @ _fit(places[calm], values[calm])), out=farthest)
    return farthest


def _fit(places: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Least squares by normal equations: six well-scaled terms, thousands of places."""
    moments = places.T.astype(np.float64) @ places
    return np.linalg.solve(moments + 1e-6 * len(places) * np.eye(len(moments)), places.T @ values).astype(np.float32)


def _outline(mask: NDArray[np.uint8], on_border: float, scale: float) -> Outline | None:
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows], 1).astype(np.float64)
    if len(points) < 16:
        return None
    centre = points.mean(0)
    spread, axes = np.linalg.eigh(np.cov((points - centre).T))
    if spread[0] <= 0:
        return None
    along = axes[:, 1]
    reach = (points - centre) @ along
    if float((reach**3).mean()) < 0:
        along, reach = -along, -reach
    across = (points - centre) @ np.array([-along[1], along[0]])
    return Outline(
        centre=(centre + 0.5) / scale - 0.5,
        along=along,
        lengthwise=(float(reach.min()) / scale, float(reach.max()) / scale),
        crosswise=(float(across.min()) / scale, float(across.max()) / scale),
        elongation=math.sqrt(spread[1] / spread[0]),
        on_border=on_border,
    )
