"""Seeded pictures of products whose good parts are not the same picture. HxWx3 uint8 BGR; sizes are (width, height)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scenes import Image, noisy, texture

from differad_edge.results import Box

PIN_SPOT = (50.0, 0.0)
"""Where the spot of a flawed pin lies: along and across its length, px of the tile from its middle."""
_TILE, _ZOOM = (520, 240), 0.45
_MIDDLE = np.array([260.0, 120.0])


def felt(seed: int, size: tuple[int, int] = (320, 240)) -> Image:
    """A surface that fills the frame and is another one on each part."""
    return noisy(texture(seed, size), 2.0, seed)


def tray(seed: int, size: tuple[int, int] = (320, 240)) -> Image:
    """Six rings that lie anywhere on a tray."""
    rng = np.random.default_rng(seed)
    image = texture(3, size) // 4 + 40
    for _ in range(6):
        x, y = (int(v) for v in rng.uniform((40, 40), (size[0] - 40, size[1] - 40)))
        cv2.circle(image, (x, y), 22, (60, 140, 190), -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), 8, (20, 30, 30), -1, cv2.LINE_AA)
    return noisy(image, 2.0, seed)


def pin_matrix(centre: tuple[float, float], angle_deg: float, zoom: float = 1.0) -> NDArray[np.float64]:
    """2x3, from px of the pin's tile, counted from its middle, to those of the picture."""
    angle, scale = np.radians(angle_deg), _ZOOM * zoom
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, centre])


def pin(
    centre: tuple[float, float],
    angle_deg: float,
    *,
    size: tuple[int, int] = (400, 300),
    seed: int = 0,
    zoom: float = 1.0,
    spot: bool = False,
) -> Image:
    """A shaft with a head and half a thread, about 180 x 63 px: its middle at ``centre``, its head at the right end."""
    tile = np.full((_TILE[1], _TILE[0], 3), 60, np.uint8)
    cv2.rectangle(tile, (60, 90), (400, 150), (150, 160, 170), -1)
    cv2.rectangle(tile, (380, 50), (460, 190), (190, 195, 200), -1)
    for x in range(80, 240, 16):
        cv2.line(tile, (x, 90), (x + 8, 150), (90, 100, 110), 3)
    if spot:
        cv2.circle(tile, tuple(int(v) for v in _MIDDLE + PIN_SPOT), 14, (20, 20, 20), -1)
    matrix = pin_matrix(centre, angle_deg, zoom)
    matrix[:, 2] -= matrix[:, :2] @ _MIDDLE
    drawn = cv2.warpAffine(cv2.GaussianBlur(tile, (0, 0), 1), matrix, size, borderValue=(60, 60, 60))
    return noisy(np.asarray(drawn, np.uint8), 2.0, seed)


def loose_pin(seed: int, *, spot: bool = False) -> tuple[Image, tuple[float, float]]:
    """(a pin as it fell, where its spot lies or would lie)."""
    rng = np.random.default_rng(seed)
    centre, angle = tuple(rng.uniform((140, 120), (260, 180))), float(rng.uniform(0, 360))
    x, y = pin_matrix(centre, angle) @ (*PIN_SPOT, 1)
    return pin(centre, angle, seed=seed, spot=spot), (float(x), float(y))


def scratched(image: Image) -> tuple[Image, Box]:
    """(with a dark line, its box)."""
    out = image.copy()
    cv2.line(out, (60, 60), (130, 110), (20, 20, 20), 3, cv2.LINE_AA)
    return out, Box(58, 58, 133, 113)


def inside(point: tuple[float, float], box: Box) -> bool:
    """Whether ``point`` lies in ``box``."""
    return box.x1 <= point[0] <= box.x2 and box.y1 <= point[1] <= box.y2
