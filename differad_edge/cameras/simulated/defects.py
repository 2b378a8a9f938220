"""Damage that is painted on a finished canvas: scratches, stains, lumps, cracks and tears."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.random import Generator

from differad_edge.cameras.simulated.canvas import Canvas, Colour, Floats, Point, smooth_noise

__all__ = ["SURFACE_DEFECTS", "Surface"]


class Surface(Protocol):
    """What damage needs to know about the thing it happens to."""

    scratch_colour: Colour
    stain_colour: Colour
    blob_colour: Colour

    def surface(self, rng: Generator) -> Point:
        """A point on the part, with some room around it."""
        ...

    def covers(self, point: Point) -> bool:
        """Whether the part has material at ``point``."""
        ...

    def edge(self, rng: Generator) -> tuple[Point, float]:
        """A point on the part's edge, and the direction inwards in radians."""
        ...


def _scratch(canvas: Canvas, surface: Surface, rng: Generator) -> None:
    points = _arc(surface.surface(rng), rng)
    while not all(surface.covers(point) for point in points):
        points = _arc(surface.surface(rng), rng)
    width = float(rng.uniform(0.003, 0.005))
    canvas.line([(px + width * 0.6, py + width * 0.6) for px, py in points], width * 0.7, (56, 56, 58))
    canvas.line(points, width, surface.scratch_colour)


def _arc(middle: Point, rng: Generator) -> list[Point]:
    heading, bend, length = rng.uniform(0, math.pi), rng.uniform(-0.6, 0.6), float(rng.uniform(0.09, 0.17))
    points: list[Point] = []
    for step in np.linspace(-0.5, 0.5, 24):
        turned, reach = float(heading + bend * step), length * float(step)
        points.append((middle[0] + reach * math.cos(turned), middle[1] + reach * math.sin(turned)))
    return points


def _stain(canvas: Canvas, surface: Surface, rng: Generator) -> None:
    centre, radius = surface.surface(rng), float(rng.uniform(0.022, 0.042))
    around = canvas.near(centre, radius * 2)
    cover = _blot(around, centre, radius, rng)
    opacity = float(rng.uniform(0.55, 0.75))
    rim = np.clip(cover - around.soften(cover, radius * 0.12), 0, 1)
    around.blend(np.asarray(np.clip(cover * opacity + rim * 0.5, 0, 1), np.float32), surface.stain_colour)


def _blot(around: Canvas, centre: Point, radius: float, rng: Generator) -> Floats:
    """The coverage of an irregular spot of about ``radius``."""
    x, y = around.grid()
    distance = np.hypot(x - centre[0], (y - centre[1]) * float(rng.uniform(0.8, 1.25)))
    wobble = smooth_noise(rng, around.shape, (7, 7)) * 0.16
    soft = max(0.06, 2.0 / (radius * around.frame_px))
    return np.asarray(np.clip((1.0 + wobble - distance / radius) / soft, 0, 1), np.float32)


def _blob(canvas: Canvas, surface: Surface, rng: Generator) -> None:
    centre, radius = surface.surface(rng), float(rng.uniform(0.013, 0.022))
    around = canvas.near(centre, radius * 3)
    cover = _blot(around, centre, radius, rng)
    around.shadow(cover, (radius * 0.35, radius * 0.5), radius * 0.3, 0.8)
    x, y = around.grid()
    # Lit from the upper left, as everything here: a bright spot there, dark at the far rim.
    towards = ((centre[0] - x) + 1.4 * (centre[1] - y)) / (1.72 * radius)
    level = np.clip(0.78 + 0.34 * towards, 0.35, 1.15)
    shine = np.exp(
        -(np.square(x - centre[0] + radius * 0.3) + np.square(y - centre[1] + radius * 0.42)) / (0.09 * radius**2)
    )
    body = np.asarray(surface.blob_colour, np.float32)[None, None] * level[..., None] + shine[..., None] * 110
    around.blend(cover, np.asarray(body, np.float32))


def _jagged(start: Point, heading: float, length: float, rng: Generator) -> list[Point]:
    points, steps = [start], 11
    for _ in range(steps):
        turned = heading + float(rng.uniform(-0.75, 0.75))
        x, y = points[-1]
        points.append((x + length / steps * math.cos(turned), y + length / steps * math.sin(turned)))
    return points


def _crack(canvas: Canvas, surface: Surface, rng: Generator) -> None:
    start, inwards = surface.edge(rng)
    heading, length = inwards + float(rng.uniform(-0.4, 0.4)), float(rng.uniform(0.10, 0.15))
    trunk = _jagged(start, heading, length, rng)
    branch = _jagged(trunk[6], heading + float(rng.choice([-0.9, 0.9])), length * 0.4, rng)
    for points, width in ((trunk, 0.0042), (branch, 0.003)):
        # Thinner towards the tip, with a lit edge on the side that is turned to the light.
        for first in range(len(points) - 1):
            thin = width * (1.25 - 0.9 * first / len(points))
            piece = points[first : first + 2]
            canvas.line([(x + thin * 0.7, y + thin * 0.7) for x, y in piece], thin * 0.6, (214, 218, 220))
            canvas.line(piece, thin, (30, 28, 28))


def _tear(canvas: Canvas, surface: Surface, rng: Generator) -> None:
    (x, y), inwards = surface.edge(rng)
    depth, half = float(rng.uniform(0.05, 0.09)), float(rng.uniform(0.018, 0.03))
    outside = (x - 0.006 * math.cos(inwards), y - 0.006 * math.sin(inwards))
    tip = (
        outside[0] + depth * math.cos(inwards),
        outside[1] + depth * math.sin(inwards) + float(rng.uniform(-half, half)),
    )
    corners: list[Point] = [(outside[0], outside[1] - half)]
    for share in (0.3, 0.55, 0.8):
        corners.append(_between(corners[0], tip, share, rng))
    corners.append(tip)
    below = (outside[0], outside[1] + half)
    corners += [_between(below, tip, share, rng) for share in (0.75, 0.5, 0.25)]
    corners.append(below)
    hole = canvas.stencil(corners)
    fibres = canvas.soften(np.asarray(hole, np.float32), 0.004)
    canvas.blend(np.asarray(np.clip(fibres * 2.2, 0, 1), np.float32), (252, 252, 252))
    canvas.blend(hole, (108, 148, 182))
    canvas.blend(np.asarray(hole * np.clip(1 - canvas.soften(hole, 0.005), 0, 1) * 0.6, np.float32), (52, 70, 88))


def _between(start: Point, end: Point, share: float, rng: Generator) -> Point:
    x, y = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return x, y + float(rng.uniform(-0.004, 0.004))


SURFACE_DEFECTS: dict[str, Callable[[Canvas, Surface, Generator], None]] = {
    "scratch": _scratch,
    "stain": _stain,
    "extra blob": _blob,
    "crack": _crack,
    "tear": _tear,
}
"""Painters by kind; each changes the canvas at a place of its own choice."""
