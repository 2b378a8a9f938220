"""A turned steel flange with bolt holes on a dark mat."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from differad_edge.cameras.simulated.canvas import Canvas, Colour, Floats, Point, smooth_noise

__all__ = ["Gasket"]

_CENTRE = (0.5, 0.5)
_OUTER, _BORE, _GROOVE = 0.415, 0.15, 0.2
_BOLT_CIRCLE, _BOLT, _BOLTS = 0.325, 0.036, 6
_LIGHT_DEG = -125.0  # where the light comes from: above, slightly from the left


class Gasket:
    """See differad_edge.cameras.simulated.products.Scene."""

    name = "gasket"
    kinds: tuple[str, ...] = ("missing hole", "scratch", "stain", "extra blob", "crack")
    varies = False
    scratch_colour: Colour = (232, 236, 238)
    stain_colour: Colour = (28, 44, 58)
    blob_colour: Colour = (150, 158, 164)

    def paint(self, canvas: Canvas, rng: Generator, flaw: str | None) -> None:
        """Draw the part; ``flaw`` may be "missing hole"; ``rng`` chooses which, and is used for nothing else."""
        missing = int(rng.integers(_BOLTS)) if flaw == "missing hole" else None
        holes = [hole for index, hole in enumerate(_holes()) if index != missing]
        grain = np.random.default_rng(7)  # the mat and the metal belong to the golden sample and to all parts
        x, y = canvas.grid()
        _mat(canvas, grain, x, y)
        dx, dy = x - _CENTRE[0], y - _CENTRE[1]
        radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
        soft = 1.0 / canvas.frame_px
        metal = _step(_OUTER - radius, soft) * _step(radius - _BORE, soft)
        for hole in holes:
            metal *= _step(np.hypot(x - hole[0], y - hole[1]) - _BOLT, soft)
        canvas.shadow(metal, (0.012, 0.017), 0.012, 0.75)
        canvas.blend(metal, _turned_metal(canvas, grain, radius, angle))
        light = math.radians(_LIGHT_DEG)
        _chamfer(canvas, radius, angle, _OUTER - 0.004, 0.005, light, 1.0)
        _chamfer(canvas, radius, angle, _BORE + 0.005, 0.006, light, -1.0)
        _chamfer(canvas, radius, angle, _GROOVE, 0.004, light, -0.8)
        _chamfer(canvas, radius, angle, _GROOVE + 0.022, 0.004, light, 0.8)
        for hole in holes:
            around = canvas.near(hole, 2 * _BOLT)
            x, y = around.grid()
            distance, bearing = np.hypot(x - hole[0], y - hole[1]), np.arctan2(y - hole[1], x - hole[0])
            _chamfer(around, distance, bearing, _BOLT + 0.006, 0.006, light, -1.0)
        _engrave(canvas, "DE-42 C", 0.5, 0.272, 0.042)
        _engrave(canvas, "PN16  DN80", 0.5, 0.762, 0.030)

    def surface(self, rng: Generator) -> Point:
        """A point on the metal, clear of edges and holes."""
        while True:
            angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(_GROOVE + 0.055, _OUTER - 0.04)
            point = (_CENTRE[0] + radius * math.cos(angle), _CENTRE[1] + radius * math.sin(angle))
            if all(math.dist(point, hole) > _BOLT + 0.035 for hole in _holes()):
                return point

    def covers(self, point: Point) -> bool:
        """Metal outside the groove, and no hole."""
        inside = _GROOVE + 0.03 < math.dist(point, _CENTRE) < _OUTER - 0.01
        return inside and all(math.dist(point, hole) > _BOLT + 0.01 for hole in _holes())

    def edge(self, rng: Generator) -> tuple[Point, float]:
        """A point on the outer edge and the direction inwards, radians: where a crack begins."""
        angle = (rng.integers(_BOLTS) + rng.uniform(0.35, 0.65)) * 2 * math.pi / _BOLTS - math.pi / 2
        return (_CENTRE[0] + _OUTER * math.cos(angle), _CENTRE[1] + _OUTER * math.sin(angle)), angle + math.pi


def _holes() -> list[Point]:
    angles = (index * 2 * math.pi / _BOLTS - math.pi / 2 for index in range(_BOLTS))
    return [(_CENTRE[0] + _BOLT_CIRCLE * math.cos(a), _CENTRE[1] + _BOLT_CIRCLE * math.sin(a)) for a in angles]


def _step(distance: Floats, soft: float) -> Floats:
    """1 where ``distance`` is positive, 0 where it is negative, smooth over ``soft``."""
    return np.asarray(np.clip(distance / soft + 0.5, 0, 1), np.float32)


def _mat(canvas: Canvas, rng: Generator, x: Floats, y: Floats) -> None:
    canvas.fill((62, 54, 46))
    weave = smooth_noise(rng, canvas.shape, (450, 450)) * 0.05
    light = 1.12 - 0.45 * np.square(x - 0.42) - 0.5 * np.square(y - 0.36)
    canvas.shade(np.asarray(light + weave, np.float32))


def _turned_metal(canvas: Canvas, rng: Generator, radius: Floats, angle: Floats) -> Floats:
    """HxWx3: concentric tool marks under a light that they gather into two bright fans, as turned steel shows it."""
    rings = 900
    rough = rng.standard_normal(rings)
    marks = np.convolve(rough, [0.25, 0.5, 0.25], "same") + 0.7 * np.convolve(rough, np.ones(9) / 9, "same")
    position = np.clip(radius / 0.5 * rings, 0, rings - 1).astype(np.intp)
    tool = marks.astype(np.float32)[position]
    turn = angle - np.float32(math.radians(_LIGHT_DEG))
    fan = np.square(np.square(np.cos(turn))) * 52 + np.square(np.cos(turn * 1.5 + 0.6)) * 14
    level: Floats = np.asarray(138 + fan + tool * 7, np.float32)
    level[(radius > _GROOVE) & (radius < _GROOVE + 0.022)] *= np.float32(0.62)
    blue, green, red = level * 1.03, level * 1.0, level * 0.96
    return np.asarray(np.dstack([blue, green, red]), np.float32)


def _chamfer(
    canvas: Canvas, radius: Floats, angle: Floats, at: float, width: float, light: float, sense: float
) -> None:
    """A bevelled edge at ``radius`` = ``at``: bright where it faces the light, dark where it turns away."""
    cover = np.exp(-np.square((radius - at) / (width * 0.6)))
    facing = np.cos(angle - np.float32(light)) * np.float32(sense)
    canvas.blend(np.asarray(cover * np.clip(facing, 0, 1) * 0.9, np.float32), (250, 250, 248))
    canvas.blend(np.asarray(cover * np.clip(-facing, 0, 1) * 0.85, np.float32), (46, 44, 42))


def _engrave(canvas: Canvas, words: str, x: float, baseline: float, height: float) -> None:
    depth = 0.0022
    canvas.text(words, x + depth, baseline + depth, height, (236, 238, 240), 600, "centre")
    canvas.text(words, x, baseline, height, (58, 58, 60), 600, "centre")
