"""Procedural golden samples: boards, machined parts, weaves, surfaces, prints and photographs.

Every scene is a side x side x 3 uint8 image (BGR) drawn from a seeded generator; nothing is read but the licence-clear
photographs of :mod:`distill.lite.photographs`.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from distill.lite.photographs import photographs

Image = NDArray[np.uint8]
#: Share of scenes that are put together from several.
ASSEMBLY_SHARE = 0.2
#: The smallest scene that every kind can draw, px.
MIN_SIDE_PX = 32
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_PLAIN)


def smooth_noise(rng: Generator, side: int, cells: int) -> NDArray[np.float32]:
    """Band-limited noise of about `cells` bumps a side: (side, side) float32, mean 0, standard deviation about 0.8."""
    lattice = rng.normal(size=(cells + 2, cells + 2)).astype(np.float32)
    return np.asarray(cv2.resize(lattice, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def _point(rng: Generator, side: int) -> tuple[int, int]:
    x, y = (int(v) for v in rng.integers(0, side, 2))
    return x, y


def _colour(rng: Generator) -> tuple[int, int, int]:
    """BGR, every third one grey: the parts of most lines have little colour."""
    if rng.random() < 0.35:
        grey = int(rng.integers(0, 256))
        return grey, grey, grey
    b, g, r = (int(v) for v in rng.integers(0, 256, 3))
    return b, g, r


def _blend(low: tuple[int, ...], high: tuple[int, ...], weight: NDArray[np.float32]) -> Image:
    """From colour `low` where `weight` (side x side) is 0 to colour `high` where it is 1."""
    a, b = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return np.asarray(a + (b - a) * np.clip(weight, 0, 1)[..., None]).astype(np.uint8)


def _traces(rng: Generator, side: int, image: Image, colour: tuple[int, int, int]) -> None:
    """Parallel conductors that run straight, bend by 45 or 90 degrees, and end on pads."""
    width = int(rng.integers(2, 15))
    pitch = width + int(rng.integers(3, 20))
    bend = rng.choice([0, 45, 90, 135])
    start, turn = int(rng.integers(-side // 2, side // 2)), int(rng.integers(0, side))
    vertical = rng.random() < 0.5
    for i in range(int(rng.integers(1, 12))):
        offset = start + i * pitch
        length = {0: 0, 45: side, 90: side, 135: -side}[int(bend)]
        lean = side if bend in (45, 135) else 0
        corner = turn + (i * pitch if bend == 90 else 0)
        points = np.array([[offset, -8], [offset, corner], [offset + length, corner + lean]])
        if bend == 0:
            points[2] = [offset, side + 8]
        if vertical:
            points = points[:, ::-1]
        cv2.polylines(image, [points.astype(np.int32)], False, colour, width)
        if rng.random() < 0.2:
            cv2.circle(image, tuple(int(v) for v in points[1]), width + int(rng.integers(1, 6)), colour, -1)


def board(rng: Generator, side: int) -> Image:
    """A circuit board: conductors, pours with clearances, pads, vias, rows of pins, legends; often pure two-tone."""
    two_tone = rng.random() < 0.6
    ground, copper = ((0, 0, 0), (255, 255, 255)) if two_tone else (_colour(rng), _colour(rng))
    if rng.random() < 0.5:
        ground, copper = copper, ground
    image = np.full((side, side, 3), ground, np.uint8)
    for _ in range(int(rng.integers(0, 3))):
        corners = rng.integers(-20, side + 20, (int(rng.integers(3, 6)), 2)).astype(np.int32)
        cv2.fillPoly(image, [cv2.convexHull(corners)], copper)
    for _ in range(int(rng.integers(0, 4))):
        _traces(rng, side, image, copper if rng.random() < 0.75 else ground)
    pad = int(rng.integers(3, 18))
    if rng.random() < 0.5:  # a regular row or field of pads
        pitch = pad * 2 + int(rng.integers(3, 20))
        x0, y0 = _point(rng, side)
        for ix in range(int(rng.integers(1, 8))):
            for iy in range(int(rng.integers(1, 5))):
                centre = (x0 + ix * pitch, y0 + iy * pitch)
                if rng.random() < 0.5:
                    cv2.circle(image, centre, pad, copper, -1)
                else:
                    cv2.rectangle(image, centre, (centre[0] + pad, centre[1] + pad * 2), copper, -1)
                if rng.random() < 0.6:
                    cv2.circle(image, centre, max(1, pad // 2), ground, -1)
    for _ in range(int(rng.integers(0, 10))):
        centre, radius = _point(rng, side), int(rng.integers(2, 16))
        cv2.circle(image, centre, radius + int(rng.integers(2, 7)), ground if rng.random() < 0.4 else copper, -1)
        cv2.circle(image, centre, radius, copper if rng.random() < 0.4 else ground, -1)
    if rng.random() < 0.25:
        _legend(rng, side, image, copper if two_tone else _colour(rng))
    if not two_tone and rng.random() < 0.8:
        image = _grain(rng, image, 14)
    return image


def _legend(rng: Generator, side: int, image: Image, colour: tuple[int, int, int]) -> None:
    letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUXYZ0123456789-/."), int(rng.integers(1, 9))))
    where = (int(rng.integers(-10, side - 20)), int(rng.integers(10, side)))
    scale = float(rng.uniform(0.3, 1.8))
    cv2.putText(image, letters, where, int(rng.choice(FONTS)), scale, colour, int(rng.integers(1, 4)), cv2.LINE_AA)


def _grain(rng: Generator, image: Image, strength: float) -> Image:
    """Surface relief that belongs to the part (the same in reference and target), unlike sensor noise."""
    side = image.shape[0]
    relief = smooth_noise(rng, side, int(rng.integers(4, side // 2))) * float(rng.uniform(1, strength))
    return np.clip(image + relief[..., None], 0, 255).astype(np.uint8)


def machined(rng: Generator, side: int) -> Image:
    """Metal and plastic parts: plates, bores, rims, turned rings and brushed surfaces under a light gradient."""
    base = int(rng.integers(30, 220))
    brushed = cv2.resize(
        rng.normal(size=(side, max(2, int(side * rng.uniform(0.02, 0.3))))).astype(np.float32), (side, side)
    )
    surface = base + brushed * float(rng.uniform(0, 16))
    y, x = np.mgrid[:side, :side].astype(np.float32)
    surface = surface + (x - side / 2) * float(rng.normal()) * 0.25 + (y - side / 2) * float(rng.normal()) * 0.25
    if rng.random() < 0.4:
        cx, cy = rng.uniform(0, side, 2)
        rings = np.sin(np.hypot(x - cx, y - cy) * float(rng.uniform(0.1, 1.2)))
        surface = surface + rings * float(rng.uniform(2, 30))
    tint = rng.uniform(0.8, 1.2, 3) if rng.random() < 0.5 else np.ones(3)
    image = np.clip(surface[..., None] * tint, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        image = np.ascontiguousarray(np.rot90(image))
    for _ in range(int(rng.integers(1, 9))):
        colour, centre = _colour(rng), _point(rng, side)
        thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, 8))
        kind = rng.integers(0, 4)
        if kind == 0:
            cv2.circle(image, centre, int(rng.integers(3, 60)), colour, thickness, cv2.LINE_AA)
        elif kind == 1:
            size = (float(rng.uniform(6, 90)), float(rng.uniform(6, 90)))
            corners = cv2.boxPoints(((float(centre[0]), float(centre[1])), size, float(rng.uniform(0, 180))))
            cv2.polylines(image, [corners.astype(np.int32)], True, colour, max(1, thickness), cv2.LINE_AA)
            if thickness < 0:
                cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
        elif kind == 2:
            axes = (int(rng.integers(3, 60)), int(rng.integers(3, 40)))
            cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, thickness, cv2.LINE_AA)
        else:
            sides = int(rng.integers(5, 30))
            radius = rng.uniform(0.7, 1.0, sides) * float(rng.uniform(8, 50))
            angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
            outline = np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1)
            cv2.fillPoly(image, [outline.astype(np.int32)], colour, cv2.LINE_AA)
    return _grain(rng, image, 10) if rng.random() < 0.7 else image


def weave(rng: Generator, side: int) -> Image:
    """Periodic surfaces: gratings, cloth, meshes and perforated sheets, with a wandering period."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    wander = smooth_noise(rng, side, int(rng.integers(2, 8))) * float(rng.uniform(0, 4))
    frequency, angle = float(rng.uniform(0.1, 1.3)), float(rng.uniform(0, np.pi))
    along, across = x * np.cos(angle) + y * np.sin(angle) + wander, -x * np.sin(angle) + y * np.cos(angle)
    wave = np.sin(frequency * along)
    if rng.random() < 0.6:
        wave = wave * np.sin(frequency * float(rng.uniform(0.5, 2)) * (across + wander))
    level = (wave > rng.uniform(-0.5, 0.5)).astype(np.float32) if rng.random() < 0.35 else (wave + 1) / 2
    return _grain(rng, _blend(_colour(rng), _colour(rng), level.astype(np.float32)), 20)


def surface(rng: Generator, side: int) -> Image:
    """Irregular surfaces: castings, leather, wood, paint; a sum of noise octaves, sometimes ridged."""
    total = np.zeros((side, side), np.float32)
    for cells in rng.integers(2, side // 2, int(rng.integers(1, 5))):
        total += smooth_noise(rng, side, int(cells)) * float(rng.uniform(0.3, 1))
    if rng.random() < 0.3:
        total = np.abs(total)
    if rng.random() < 0.3:  # wood-like: rings of a stretched field
        total = np.sin(total * float(rng.uniform(2, 10)))
    total = (total - total.min()) / (float(np.ptp(total)) + 1e-6)
    low = _colour(rng)
    high = _colour(rng) if rng.random() < 0.5 else tuple(int(np.clip(v + rng.normal() * 40, 0, 255)) for v in low)
    return _blend(low, high, total)


def printed(rng: Generator, side: int) -> Image:
    """Labels and panels: text, bar codes, frames, keys."""
    image = np.full((side, side, 3), _colour(rng), np.uint8)
    for _ in range(int(rng.integers(1, 7))):
        _legend(rng, side, image, _colour(rng))
    if rng.random() < 0.4:
        bars = np.repeat(rng.integers(0, 2, side), rng.integers(1, 6))[:side]
        top, height = int(rng.integers(0, side - 20)), int(rng.integers(15, 70))
        image[top : top + height, bars.astype(bool)] = _colour(rng)
    for _ in range(int(rng.integers(0, 4))):
        a, b = rng.integers(0, side, 2), rng.integers(0, side, 2)
        cv2.rectangle(image, a.tolist(), b.tolist(), _colour(rng), int(rng.integers(1, 5)))
    return _grain(rng, image, 8) if rng.random() < 0.5 else image


def photograph(rng: Generator, side: int) -> Image:
    """A random crop of a photograph, turned, sometimes grey, inverted or with its channels exchanged."""
    pictures = photographs()
    source = pictures[int(rng.integers(len(pictures)))]
    extent = int(rng.integers(min(96, *source.shape[:2]), min(source.shape[:2]) + 1))
    y, x = (int(rng.integers(0, limit - extent + 1)) for limit in source.shape[:2])
    shrink = cv2.INTER_AREA if extent > side else cv2.INTER_CUBIC
    crop = cv2.resize(source[y : y + extent, x : x + extent], (side, side), interpolation=shrink)
    crop = np.rot90(crop, int(rng.integers(4)))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.3:
        crop = np.repeat(crop[..., 1:2], 3, -1)
    elif rng.random() < 0.3:
        crop = crop[..., rng.permutation(3)]
    if rng.random() < 0.1:
        crop = 255 - crop
    return np.ascontiguousarray(crop)


def assembly(rng: Generator, side: int) -> Image:
    """Components mounted on a carrier: pieces of one scene set into another."""
    image = simple_scene(rng, side)
    for _ in range(int(rng.integers(1, 7))):
        piece = simple_scene(rng, side)
        stencil = np.zeros((side, side), np.uint8)
        centre = (float(rng.uniform(0, side)), float(rng.uniform(0, side)))
        size = (float(rng.uniform(8, 70)), float(rng.uniform(8, 70)))
        if rng.random() < 0.4:
            cv2.ellipse(stencil, (centre, size, float(rng.uniform(0, 180))), 255, -1, cv2.LINE_AA)
        else:
            turn = float(rng.choice([0, 0, 90, rng.uniform(0, 180)]))
            cv2.fillPoly(stencil, [cv2.boxPoints((centre, size, turn)).astype(np.int32)], 255, cv2.LINE_AA)
        if rng.random() < 0.3:  # a cast shadow
            shadow = cv2.GaussianBlur(np.roll(stencil, (3, 3), (0, 1)), (0, 0), 3).astype(np.float32)[..., None] / 255
            image = (image * (1 - 0.5 * shadow)).astype(np.uint8)
        weight = stencil.astype(np.float32)[..., None] / 255
        image = (image * (1 - weight) + piece * weight).astype(np.uint8)
    return image


#: Kinds of scenes of one piece, and their shares. Boards lead: there small things matter most.
SIMPLE_SCENES: tuple[tuple[Callable[[Generator, int], Image], float], ...] = (
    (board, 0.34),
    (machined, 0.16),
    (weave, 0.08),
    (surface, 0.1),
    (printed, 0.08),
    (photograph, 0.24),
)


def simple_scene(rng: Generator, side: int) -> Image:
    """A golden sample of one kind, (side, side, 3) uint8 BGR."""
    draw = SIMPLE_SCENES[int(rng.choice(len(SIMPLE_SCENES), p=[share for _, share in SIMPLE_SCENES]))][0]
    return draw(rng, side)


def scene(rng: Generator, side: int) -> Image:
    """One golden sample, (side, side, 3) uint8 BGR; `side` at least MIN_SIDE_PX."""
    return assembly(rng, side) if rng.random() < ASSEMBLY_SHARE else simple_scene(rng, side)
