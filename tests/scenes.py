"""Seeded pictures of parts for tests: scenes, motions whose matrix is known, light, and defects whose box is known.

Images are HxWx3 uint8 BGR. Sizes are (width, height). Matrices are 2x3 and take pixel edges of the reference to pixel
edges of the target, as boxes count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.geometry import clip_box, transform_box
from differad_edge.results import Box

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]

_MARGIN_PX = 120  # drawn beyond the frame, so that a moved scene shows scene and no border


class Scene:
    """A part larger than the frame. ``size``: (width, height) of what the reference shows of it."""

    def __init__(self, seed: int, size: tuple[int, int] = (320, 240), kind: str = "board") -> None:
        self.size = size
        self.whole = _drawn(seed, (size[0] + 2 * _MARGIN_PX, size[1] + 2 * _MARGIN_PX), kind)

    @property
    def reference(self) -> Image:
        """What the reference shows."""
        return self.seen()

    def with_defect(self, box: Box, kind: str = "extra") -> Scene:
        """The same part with a defect that fills ``box`` (pixels of the reference)."""
        other = Scene.__new__(Scene)
        other.size = self.size
        other.whole = planted(self.whole, Box(*(np.array(box) + _MARGIN_PX)), kind)
        return other

    def seen(
        self,
        *,
        shift: tuple[float, float] = (0.0, 0.0),
        angle_deg: float = 0.0,
        scale: float = 1.0,
        size: tuple[int, int] | None = None,
    ) -> Image:
        """The part as a camera sees it that moved by ``motion`` of the same arguments."""
        matrix = motion(self.size, shift=shift, angle_deg=angle_deg, scale=scale, target_size=size)
        sampled = matrix.copy()
        sampled[:, 2] -= matrix[:, :2] @ np.array([_MARGIN_PX, _MARGIN_PX])
        sampled[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5  # cv2 counts from pixel centres
        target_size = self.size if size is None else size
        out = cv2.warpAffine(self.whole, sampled, target_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(out, np.uint8)


def motion(
    size: tuple[int, int],
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    angle_deg: float = 0.0,
    scale: float = 1.0,
    target_size: tuple[int, int] | None = None,
) -> Matrix:
    """Scale, turn (counter-clockwise as seen) about the centre, then shift by px of the target.

    With ``target_size`` the reference's centre comes to that of the target and ``scale`` is that of the pixels.
    """
    middle = np.array(size) / 2
    goal = middle if target_size is None else np.array(target_size) / 2
    cos, sin = scale * np.cos(np.radians(angle_deg)), scale * np.sin(np.radians(angle_deg))
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, goal + np.array(shift) - linear @ middle])


def corner_error_px(found: object, wanted: Matrix, size: tuple[int, int]) -> float:
    """How far the worst corner of the reference is taken to the wrong place, in pixels of the target."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1]], np.float64)
    difference = np.asarray(found, np.float64).reshape(2, 3) - wanted
    return float(np.linalg.norm(corners @ difference.T, axis=1).max())


def moved_box(box: Box, matrix: Matrix, size: tuple[int, int]) -> Box:
    """Where ``box`` of the reference lies in a target of ``size``."""
    clipped = clip_box(transform_box(box, matrix), *size)
    assert clipped is not None
    return clipped


Bend = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""(x, y) of places in the target -> how far (px) they lie from where the reference shows the same."""


def bend(size: tuple[int, int], largest_px: float, seed: int) -> Bend:
    """A smooth field of up to ``largest_px`` with about one and a half waves along the longer side."""
    a, b, c, d = np.random.default_rng(seed).uniform(0, 2 * np.pi, 4)
    rate = 2 * np.pi / (1.6 * max(size))
    return lambda x, y: (
        largest_px * np.sin(rate * y + a) * np.cos(rate * x + b),
        largest_px * np.cos(rate * x + c) * np.sin(rate * y + d),
    )


def bent(scene: Scene, field: Bend) -> tuple[Image, NDArray[np.float64]]:
    """(the part bent by ``field``, HxWx2 px: what the reference shows at p, the target shows at p + that)."""
    width, height = scene.size
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    dx, dy = field(x, y)
    map_x, map_y = (x - dx + _MARGIN_PX).astype(np.float32), (y - dy + _MARGIN_PX).astype(np.float32)
    target = cv2.remap(scene.whole, map_x, map_y, cv2.INTER_LINEAR)
    true_x, true_y = np.zeros_like(x), np.zeros_like(y)
    for _ in range(12):  # the field is given at the target's places and wanted at the reference's
        true_x, true_y = field(x + true_x, y + true_y)
    return np.asarray(target, np.uint8), np.dstack([true_x, true_y])


# -- scenes -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _drawn(seed: int, size: tuple[int, int], kind: str) -> Image:
    image = {"board": board, "two-tone": two_tone, "texture": texture, "photo": photo}[kind](seed, size)
    image.flags.writeable = False
    return image


def board(seed: int, size: tuple[int, int]) -> Image:
    """A circuit board in colour: bent traces, pads, parts, a little sensor noise."""
    rng = np.random.default_rng(seed)
    image = np.full((size[1], size[0], 3), (60, 95, 40), np.uint8)
    area = size[0] * size[1] / 1e4
    for _ in range(int(6 * area)):
        start = rng.integers(0, size, 2)
        points = [start]
        for _ in range(3):
            direction = np.array([(1, 0), (0, 1), (1, 1), (1, -1)][rng.integers(4)]) * rng.choice([-1, 1])
            points.append(points[-1] + direction * rng.integers(15, 60))
        cv2.polylines(image, [np.array(points, np.int32)], False, (70, 150, 90), int(rng.integers(2, 6)), cv2.LINE_AA)
    for _ in range(int(4 * area)):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        cv2.circle(image, (x, y), int(rng.integers(3, 8)), (150, 190, 200), -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), 2, (30, 40, 30), -1, cv2.LINE_AA)
    for _ in range(int(1.5 * area)):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        w, h = (int(v) for v in rng.integers(10, 34, 2))
        shade = int(rng.integers(20, 90))
        cv2.rectangle(image, (x, y), (x + w, y + h), (shade, shade, shade + 10), -1)
    return noisy(cv2.GaussianBlur(image, (0, 0), 0.6), 2.0, seed)


def two_tone(seed: int, size: tuple[int, int]) -> Image:
    """Black structures on white, pure two-tone, as binarising inspection machines deliver boards."""
    rng = np.random.default_rng(seed)
    image = np.full((size[1], size[0]), 255, np.uint8)
    area = size[0] * size[1] / 1e4
    for _ in range(int(5 * area)):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        length, width = int(rng.integers(40, 160)), int(rng.integers(6, 14))
        end = (x + length, y) if rng.random() < 0.5 else (x, y + length)
        cv2.line(image, (x, y), end, 0, width)
        cv2.circle(image, (x, y), width + 3, 0, -1)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)


def texture(seed: int, size: tuple[int, int]) -> Image:
    """A cast surface: noise of several scales."""
    rng = np.random.default_rng(seed)
    grey = np.full((size[1], size[0]), 120.0, np.float32)
    for sigma, strength in ((2.0, 70.0), (5.0, 160.0), (14.0, 260.0)):
        noise = rng.normal(0, 1, grey.shape).astype(np.float32)
        grey += strength * cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.asarray(cv2.cvtColor(np.clip(grey, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8)


def photo(seed: int, size: tuple[int, int]) -> Image:
    """Overlapping soft and hard shapes in many shades, as photographs have."""
    rng = np.random.default_rng(seed)
    image = texture(seed, size) // 4 + 60
    for _ in range(int(3 * size[0] * size[1] / 1e4)):
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        axes = tuple(int(v) for v in rng.integers(6, 40, 2))
        shade = tuple(int(v) for v in rng.integers(20, 235, 3))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, shade, -1, cv2.LINE_AA)
    return noisy(cv2.GaussianBlur(image, (0, 0), 0.8), 2.0, seed)


def grating(size: tuple[int, int], period_px: int, seed: int = 0) -> Image:
    """Vertical bars: shifts by whole periods cannot be told apart but at the ends."""
    x = np.arange(size[0])
    row = np.where(x % period_px < period_px // 2, 60, 190).astype(np.uint8)
    image = np.repeat(np.repeat(row[None], size[1], 0)[:, :, None], 3, 2)
    return noisy(image, 1.5, seed)


def noisy(image: Image, sigma: float, seed: int) -> Image:
    """Sensor noise of ``sigma`` grey levels."""
    noise = np.random.default_rng(seed + 1000).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


# -- light and defects ------------------------------------------------------------------------------------------------


def relit(image: Image, gain: float = 1.0, bias: float = 0.0, gradient: float = 0.0) -> Image:
    """Another exposure, and light that changes by ``gradient`` (share) from the left side to the right."""
    slope = 1 + gradient * (np.arange(image.shape[1]) / image.shape[1] - 0.5)
    return np.clip(image * gain * slope[None, :, None] + bias, 0, 255).astype(np.uint8)


def planted(image: Image, box: Box, kind: str = "extra") -> Image:
    """``image`` with a defect whose tight box is ``box`` (integer pixels)."""
    x1, y1, x2, y2 = (int(v) for v in box)
    out = image.copy()
    inside = out[y1:y2, x1:x2]
    yy, xx = np.mgrid[: y2 - y1, : x2 - x1]
    ellipse = ((xx + 0.5) / (x2 - x1) * 2 - 1) ** 2 + ((yy + 0.5) / (y2 - y1) * 2 - 1) ** 2 <= 1.0
    # As far from what is there as can be: the defect must be plain.
    shade = np.where(inside.mean(axis=(0, 1)) > 127, 15, 240)
    if kind == "extra":
        inside[ellipse] = shade
    elif kind == "block":
        inside[:] = shade
    else:
        raise ValueError(kind)
    return out
