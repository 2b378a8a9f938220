"""Planted defects: what goes wrong on real parts, drawn into a golden sample.

Algorithm 1 of the paper (a foreign texture through a thresholded noise mask) is one of the kinds; the others draw what
it does not: opens and shorts, bites and spurs at edges, scratches and cracks, stains, dents, missing, moved and extra
pieces, colour shifts, smears.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from distill.lite.scenes import Image, scene, smooth_noise

Mask = NDArray[np.uint8]


class Planted(NamedTuple):
    """The changed image and where the defect was drawn (side x side, 0 or 1)."""

    image: Image
    shape: Mask


def _extent(rng: Generator, low: float, high: float) -> float:
    """A length in px, small ones as likely per octave as large ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _place(rng: Generator, image: Image, *, on_edge: bool) -> tuple[int, int]:
    """A point (x, y): anywhere, or on one of the image's edges, where opens, bites and spurs happen."""
    side = image.shape[0]
    if on_edge:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        # Not cv2.Canny: in OpenCV 5.0.0 it corrupts the heap on some images.
        slope = cv2.add(
            cv2.convertScaleAbs(cv2.Sobel(grey, cv2.CV_16S, 1, 0)),
            cv2.convertScaleAbs(cv2.Sobel(grey, cv2.CV_16S, 0, 1)),
        )
        edges = np.flatnonzero(slope[6:-6, 6:-6] > 120)
        if len(edges):
            y, x = np.unravel_index(edges[int(rng.integers(len(edges)))], (side - 12, side - 12))
            return int(x) + 6, int(y) + 6
    x, y = rng.integers(6, side - 6, 2)
    return int(x), int(y)


def _blob(rng: Generator, side: int, centre: tuple[int, int], size: float) -> Mask:
    """A rounded irregular spot of about `size` px across."""
    shape = np.zeros((side, side), np.uint8)
    count = int(rng.integers(6, 14))
    stretch = float(np.exp(rng.normal() * 0.35))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.normal() * 0.2
    radius = size / 2 * rng.uniform(0.6, 1.15, count)
    turn = float(rng.uniform(0, np.pi))
    px, py = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    x = centre[0] + px * np.cos(turn) - py * np.sin(turn)
    y = centre[1] + px * np.sin(turn) + py * np.cos(turn)
    cv2.fillPoly(shape, [np.stack([x, y], 1).round().astype(np.int32)], 1)
    return shape


def _stroke(rng: Generator, side: int, start: tuple[int, int], length: float, width: int, wobble: float) -> Mask:
    """A line that wanders: a scratch, hair or crack."""
    shape = np.zeros((side, side), np.uint8)
    steps = max(2, int(length / 6))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(size=steps) * wobble)
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * (length / steps), 0) + start
    points = np.vstack([start, path]).round().astype(np.int32)
    cv2.polylines(shape, [points], False, 1, width)
    if wobble > 0.3 and rng.random() < 0.4:  # a crack forks
        fork = points[int(rng.integers(len(points)))]
        end = fork + rng.normal(size=2) * length / 3
        cv2.line(shape, fork.tolist(), end.astype(int).tolist(), 1, width)
    return shape


def _noise_mask(rng: Generator, side: int) -> Mask:
    """One component of a thresholded noise field (Algorithm 1, step 2 and 3)."""
    field = smooth_noise(rng, side, int(rng.integers(3, 26)))
    count, labels = cv2.connectedComponents((field > np.quantile(field, rng.uniform(0.85, 0.98))).astype(np.uint8))
    return np.asarray(labels == int(rng.integers(1, count))).astype(np.uint8)


def _fill(image: Image, shape: Mask, content: NDArray[np.generic], softness: float) -> Planted:
    """`image` with `content` (a colour (3,) or a picture) inside `shape`, whose rim is `softness` px wide."""
    weight = shape.astype(np.float32)
    if softness > 0:
        weight = np.asarray(cv2.GaussianBlur(weight, (0, 0), softness), np.float32)
    changed = image + (content.astype(np.float32) - image) * weight[..., None]
    return Planted(np.clip(changed, 0, 255).astype(np.uint8), shape)


def _own_colour(rng: Generator, image: Image, near: tuple[int, int], reach: int) -> NDArray[np.uint8]:
    """A colour (3,) that the part itself shows near a point: what an open is filled and a short is drawn with."""
    side = image.shape[0]
    x, y = np.clip(np.array(near) + rng.integers(-reach, reach + 1, 2), 0, side - 1)
    return np.asarray(image[y, x], np.uint8)


def wrong_material(rng: Generator, image: Image) -> Planted:
    """Opens, shorts, bites, spurs, pin holes, specks of copper: the part's own colours where they should not be."""
    side = image.shape[0]
    where = _place(rng, image, on_edge=rng.random() < 0.75)
    size = _extent(rng, 4, 30)
    if rng.random() < 0.65:
        shape = _blob(rng, side, where, size)
    else:
        length = size * 1.5 if rng.random() < 0.6 else _extent(rng, 20, side * 0.8)
        shape = _stroke(rng, side, where, length, int(rng.integers(2, 14)), float(rng.choice([0.02, 0.2])))
    content = _own_colour(rng, image, where, int(size) + 8).astype(np.float32)
    if rng.random() < 0.25:  # a thin layer through which the ground still shows
        content = content + (image - content) * float(rng.uniform(0.3, 0.8))
    return _fill(image, shape, content, float(rng.uniform(0, 0.8)))


def foreign_texture(rng: Generator, image: Image) -> Planted:
    """Algorithm 1: another texture through a noise mask.

    The paper lets 0 to 0.8 of the part show through; beyond 0.7 too little of the texture is left to be seen.
    """
    keep = float(rng.uniform(0, 0.7))
    content = scene(rng, image.shape[0]).astype(np.float32) * (1 - keep) + image.astype(np.float32) * keep
    return _fill(image, _noise_mask(rng, image.shape[0]), content, float(rng.uniform(0.3, 1.2)))


def stain(rng: Generator, image: Image) -> Planted:
    """Dirt, oil, discolouration: lighter, darker or tinted, with soft rims."""
    side = image.shape[0]
    shape = _blob(rng, side, _place(rng, image, on_edge=False), _extent(rng, 5, 90))
    if rng.random() < 0.5:
        shape &= (smooth_noise(rng, side, int(rng.integers(4, 40))) > -0.6).astype(np.uint8)
    shift = _extent(rng, 14, 110) * rng.choice([-1, 1]) * (np.ones(3) if rng.random() < 0.6 else rng.uniform(-1, 1, 3))
    return _fill(image, shape, image.astype(np.float32) + shift, _extent(rng, 0.4, 4))


def scratch(rng: Generator, image: Image) -> Planted:
    """Scratches, hairs, cracks, threads."""
    side = image.shape[0]
    width, wobble = int(rng.choice([1, 1, 2, 2, 3, 4])), float(rng.choice([0.05, 0.2, 0.6]))
    shape = _stroke(rng, side, _place(rng, image, on_edge=False), _extent(rng, 10, 150), width, wobble)
    if rng.random() < 0.5:
        content = image.astype(np.float32) + float(rng.choice([-1, 1]) * _extent(rng, 20, 150))
    else:
        content = rng.integers(0, 256, 3).astype(np.float32)
    return _fill(image, shape, content, float(rng.uniform(0.2, 0.7)))


def dent(rng: Generator, image: Image) -> Planted:
    """A dent or bump: light on one flank, dark on the other, and the pattern bulges."""
    side = image.shape[0]
    (cx, cy), size = _place(rng, image, on_edge=False), _extent(rng, 10, 60)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    dx, dy = (x - cx) / size, (y - cy) / size
    bell = np.exp(-4 * (dx * dx + dy * dy)).astype(np.float32)
    turn = float(rng.uniform(0, 2 * np.pi))
    flank = (dx * np.cos(turn) + dy * np.sin(turn)) * bell * float(rng.uniform(60, 260))
    bulge = float(rng.uniform(-0.35, 0.35)) * size * bell
    moved = cv2.remap(image, x + dx * bulge, y + dy * bulge, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    changed = np.clip(moved + flank[..., None], 0, 255).astype(np.uint8)
    return Planted(changed, (bell > 0.12).astype(np.uint8))


def misplaced(rng: Generator, image: Image) -> Planted:
    """A piece of the part shows up where another belongs (extra, wrong or moved pieces)."""
    side = image.shape[0]
    (x, y), size = _place(rng, image, on_edge=True), _extent(rng, 8, 60)
    shape = _blob(rng, side, (x, y), size)
    if rng.random() < 0.5:
        shape[:] = 0
        half = int(size / 2)
        cv2.rectangle(shape, (x - half, y - int(half * rng.uniform(0.4, 1))), (x + half, y + half), 1, -1)
    offset = rng.integers(8, 60, 2) * rng.choice([-1, 1], 2)
    content = np.roll(image, offset.tolist(), (0, 1))
    if rng.random() < 0.3:
        content = np.ascontiguousarray(content[::-1, ::-1])
    return _fill(image, shape, content, float(rng.uniform(0, 0.8)))


def missing(rng: Generator, image: Image) -> Planted:
    """A piece is gone and the ground around it shows instead."""
    side = image.shape[0]
    (x, y), size = _place(rng, image, on_edge=True), _extent(rng, 8, 70)
    shape = _blob(rng, side, (x, y), size)
    rim = cv2.dilate(shape, np.ones((7, 7), np.uint8)) - shape
    if not rim.any():
        return Planted(image, shape)
    ground = np.median(image[rim.astype(bool)], 0) if rng.random() < 0.6 else _own_colour(rng, image, (x, y), int(size))
    content = ground + smooth_noise(rng, side, side // 3)[..., None] * float(rng.uniform(0, 6))
    return _fill(image, shape, np.broadcast_to(content, image.shape), float(rng.uniform(0, 1)))


def smear(rng: Generator, image: Image) -> Planted:
    """Detail is lost: a smear, glue or an unsharp, unprinted patch."""
    side = image.shape[0]
    shape = _blob(rng, side, _place(rng, image, on_edge=True), _extent(rng, 12, 70))
    content = cv2.GaussianBlur(image, (0, 0), _extent(rng, 2.5, 9))
    return _fill(image, shape, content, float(rng.uniform(0.3, 1.5)))


def wrong_mark(rng: Generator, image: Image) -> Planted:
    """Letters, digits or lines that the golden sample does not carry."""
    side = image.shape[0]
    shape = np.zeros((side, side), np.uint8)
    x, y = _place(rng, image, on_edge=False)
    if rng.random() < 0.6:
        letters = "".join(rng.choice(list("ABCDEFHKLNPRSTXZ0123456789"), int(rng.integers(1, 4))))
        cv2.putText(
            shape, letters, (x - 8, y + 5), cv2.FONT_HERSHEY_SIMPLEX, _extent(rng, 0.3, 1.4), 1, int(rng.integers(1, 4))
        )
    else:
        cv2.circle(shape, (x, y), int(_extent(rng, 3, 25)), 1, int(rng.integers(1, 4)))
    content = rng.integers(0, 256, 3).astype(np.uint8)
    if rng.random() < 0.5:
        content = _own_colour(rng, image, (x, y), side // 2)
    return _fill(image, shape, content, float(rng.uniform(0, 0.6)))


#: Kinds of defects and their shares. Small wrong places lead: they are the ones that boards fail by.
KINDS: tuple[tuple[Callable[[Generator, Image], Planted], float], ...] = (
    (wrong_material, 0.32),
    (foreign_texture, 0.10),
    (stain, 0.11),
    (scratch, 0.12),
    (dent, 0.06),
    (misplaced, 0.09),
    (missing, 0.09),
    (smear, 0.04),
    (wrong_mark, 0.07),
)


def plant(rng: Generator, image: Image) -> Planted:
    """One defect of a random kind."""
    return KINDS[int(rng.choice(len(KINDS), p=[share for _, share in KINDS]))][0](rng, image)
