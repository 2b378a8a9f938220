"""A small populated circuit board on a bench."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from differad_edge.cameras.simulated.canvas import Canvas, Colour, Point, rounded, smooth_noise

__all__ = ["Board"]

_LEFT, _TOP, _WIDTH, _HEIGHT = 0.06, 0.09, 0.88, 0.82
_MASK: Colour = (46, 92, 24)
_TRACE: Colour = (62, 124, 38)
_GOLD: Colour = (104, 188, 222)
_TIN: Colour = (206, 208, 208)
_TIN_DARK: Colour = (140, 142, 144)
_INK: Colour = (228, 234, 232)
_BLACK: Colour = (36, 33, 32)

_CHIPS = ((0.335, 0.36, 0.20, 0.20, 10, "DE-2049"), (0.71, 0.245, 0.13, 0.13, 6, "A71"))
"""Centre x, y, body width, height, pins a side, marking."""

# x, y, upright, kind, designator
_CHIP_PARTS: tuple[tuple[float, float, bool, str, str], ...] = (
    (0.155, 0.255, True, "R", "R1"),
    (0.155, 0.355, True, "R", "R2"),
    (0.155, 0.455, True, "C", "C1"),
    (0.560, 0.195, True, "R", "R3"),
    (0.560, 0.295, True, "C", "C2"),
    (0.885, 0.275, True, "R", "R4"),
    (0.885, 0.380, True, "R", "R5"),
    (0.240, 0.620, False, "C", "C3"),
    (0.345, 0.620, False, "R", "R6"),
    (0.450, 0.620, False, "R", "R7"),
    (0.560, 0.475, True, "C", "C4"),
    (0.560, 0.585, True, "R", "R8"),
)
_CANS = ((0.730, 0.545, 0.078), (0.845, 0.705, 0.050))
_MOUNTS = ((0.115, 0.145), (0.885, 0.145), (0.115, 0.855), (0.885, 0.855))
_HEADER = (0.225, 0.775, 10, 0.052)


class Board:
    """See differad_edge.cameras.simulated.products.Scene."""

    name = "board"
    kinds: tuple[str, ...] = ("missing part", "solder bridge", "scratch", "stain", "extra blob")
    varies = False
    scratch_colour: Colour = (120, 196, 216)
    stain_colour: Colour = (30, 58, 74)
    blob_colour: Colour = (196, 200, 202)

    def paint(self, canvas: Canvas, rng: Generator, flaw: str | None) -> None:
        """Draw the board; ``flaw`` may be "missing part" or "solder bridge"; ``rng`` chooses which, and only that."""
        missing = int(rng.integers(len(_CHIP_PARTS))) if flaw == "missing part" else None
        _bench(canvas)
        corners = rounded(_LEFT, _TOP, _WIDTH, _HEIGHT, 0.03)
        outline = canvas.stencil(corners)
        canvas.shadow(outline, (0.008, 0.012), 0.010, 0.7)
        x, y = canvas.grid()
        light = 1.1 - 0.22 * np.square(x - 0.35) - 0.3 * np.square(y - 0.3)
        colour = np.asarray(_MASK, np.float32)[None, None] * np.asarray(light, np.float32)[..., None]
        canvas.blend(outline, np.asarray(colour, np.float32))
        canvas.line([*corners, corners[0]], 0.0025, (90, 142, 96))
        _traces(canvas)
        for mount in _MOUNTS:
            canvas.disc(mount, 0.034, _GOLD)
            canvas.disc(mount, 0.021, (30, 34, 36))
            canvas.circle(mount, 0.034, 0.002, (70, 140, 168))
        for number, (cx, cy, width, height, pins, words) in enumerate(_CHIPS, start=1):
            _chip(canvas, cx, cy, width, height, pins, words, f"U{number}")
        for index, (px, py, upright, kind, name) in enumerate(_CHIP_PARTS):
            _small_part(canvas, px, py, upright, None if index == missing else kind, name)
        for cx, cy, radius in _CANS:
            _can(canvas, (cx, cy), radius)
        _header(canvas)
        canvas.text("differad edge  rev C", 0.205, 0.866, 0.028, _INK, 500)
        canvas.text("J1", 0.165, 0.785, 0.024, _INK, 500)
        if flaw == "solder bridge":
            _bridge(canvas, rng)

    def surface(self, rng: Generator) -> Point:
        """A point on the board, also on its parts."""
        return float(rng.uniform(0.14, 0.86)), float(rng.uniform(0.17, 0.83))

    def covers(self, point: Point) -> bool:
        """Within the outline."""
        return _LEFT < point[0] < _LEFT + _WIDTH and _TOP < point[1] < _TOP + _HEIGHT

    def edge(self, rng: Generator) -> tuple[Point, float]:
        """A point on the left edge, and the direction inwards in radians."""
        return (_LEFT, float(rng.uniform(0.25, 0.75))), 0.0


def _bench(canvas: Canvas) -> None:
    canvas.fill((196, 188, 178))
    x, y = canvas.grid()
    speckle = smooth_noise(np.random.default_rng(3), canvas.shape, (380, 380)) * 0.012
    canvas.shade(np.asarray(1.08 - 0.28 * np.square(x - 0.4) - 0.3 * np.square(y - 0.3) + speckle, np.float32))


def _traces(canvas: Canvas) -> None:
    """Conductors under the solder mask, with 45 degree bends, and the vias they end in."""
    rng = np.random.default_rng(11)
    drawn = 0
    while drawn < 44:
        points: list[Point] = [(float(rng.uniform(0.10, 0.90)), float(rng.uniform(0.13, 0.87)))]
        heading = int(rng.integers(8))
        for _ in range(int(rng.integers(2, 5))):
            reach = float(rng.uniform(0.03, 0.15))
            x, y = points[-1]
            points.append((x + reach * math.cos(heading * math.pi / 4), y + reach * math.sin(heading * math.pi / 4)))
            heading += int(rng.choice([-1, 1]))
        if not all(0.085 < x < 0.915 and 0.115 < y < 0.885 for x, y in points):
            continue
        drawn += 1
        canvas.line(points, float(rng.choice([0.004, 0.004, 0.007])), _TRACE)
        for end in (points[0], points[-1]):
            canvas.disc(end, 0.0075, _GOLD)
            canvas.disc(end, 0.0035, (40, 52, 40))


def _raised(canvas: Canvas, x: float, y: float, width: float, height: float, radius: float, lift: float) -> None:
    """The shadow of a body that stands ``lift`` above the board."""
    around = canvas.near((x + width / 2, y + height / 2), max(width, height) / 2 + 4 * lift)
    around.shadow(around.stencil(rounded(x, y, width, height, radius)), (lift * 0.7, lift), lift * 0.7, 0.75)


def _pins(cx: float, cy: float, width: float, height: float, pins: int) -> list[tuple[float, float]]:
    """Centres of the pins, left column then right column."""
    pitch = height / pins
    rows = [cy - height / 2 + pitch * (index + 0.5) for index in range(pins)]
    return [(cx - width / 2 - 0.012, row) for row in rows] + [(cx + width / 2 + 0.012, row) for row in rows]


def _chip(
    canvas: Canvas, cx: float, cy: float, width: float, height: float, pins: int, words: str, designator: str
) -> None:
    thick = 0.5 * height / pins
    for px, py in _pins(cx, cy, width, height, pins):
        canvas.box(px - 0.018, py - thick * 0.62, 0.036, thick * 1.24, _GOLD, 0.002)
        canvas.box(px - 0.013, py - thick / 2, 0.026, thick, _TIN, 0.002)
        canvas.box(px - 0.013, py + thick * 0.18, 0.026, thick * 0.32, _TIN_DARK)
    _raised(canvas, cx - width / 2, cy - height / 2, width, height, 0.006, 0.010)
    canvas.box(cx - width / 2, cy - height / 2, width, height, (30, 27, 26), 0.006)
    canvas.box(cx - width / 2 + 0.004, cy - height / 2 + 0.003, width - 0.008, height - 0.009, (52, 48, 46), 0.005)
    canvas.disc((cx - width / 2 + 0.02, cy - height / 2 + 0.02), 0.007, (30, 28, 27))
    canvas.text(words, cx, cy + 0.008, width * 0.19, (176, 178, 178), 500, "centre")
    canvas.text("2031 K4", cx, cy + 0.008 + width * 0.2, width * 0.13, (140, 142, 142), 400, "centre")
    canvas.text(designator, cx - width / 2, cy - height / 2 - 0.012, 0.022, _INK, 500)


def _small_part(canvas: Canvas, x: float, y: float, upright: bool, kind: str | None, name: str) -> None:
    """A chip resistor ("R") or capacitor ("C"); None: its bare pads."""
    length, breadth = 0.062, 0.034

    def bar(start: float, end: float, breadth: float, colour: Colour, radius: float = 0.0) -> None:
        if upright:
            canvas.box(x - breadth / 2, y + start, breadth, end - start, colour, radius)
        else:
            canvas.box(x + start, y - breadth / 2, end - start, breadth, colour, radius)

    for sign in (-1, 1):
        middle = sign * (length / 2 - 0.004)
        bar(middle - 0.014, middle + 0.014, breadth + 0.008, _GOLD, 0.003)
        bar(middle - 0.011, middle + 0.011, breadth + 0.003, (186, 196, 204), 0.003)
    if kind is not None:
        width, height = (breadth, length) if upright else (length, breadth)
        _raised(canvas, x - width / 2, y - height / 2, width, height, 0.003, 0.006)
        bar(-length / 2, length / 2, breadth, _TIN, 0.003)
        body: Colour = (44, 40, 38) if kind == "R" else (104, 146, 178)
        bar(-length / 2 + 0.013, length / 2 - 0.013, breadth, body)
        edge: Colour = (70, 66, 64) if kind == "R" else (140, 180, 206)
        bar(-length / 2 + 0.013, length / 2 - 0.013, 0.005, edge)
        if kind == "R":
            canvas.text("10", x, y + 0.007, 0.019, (220, 222, 222), 600, "centre")
    if upright:
        canvas.text(name, x - breadth / 2 - 0.008, y + 0.008, 0.020, _INK, 500, "right")
    else:
        canvas.text(name, x, y + breadth / 2 + 0.028, 0.020, _INK, 500, "centre")


def _can(canvas: Canvas, centre: Point, radius: float) -> None:
    """An electrolytic capacitor from above."""
    x, y = centre
    canvas.box(x - radius * 1.08, y - radius * 1.08, radius * 2.16, radius * 2.16, (40, 37, 36), radius * 0.3)
    around = canvas.near(centre, radius * 1.6)
    gx, gy = around.grid()
    distance, angle = np.hypot(gx - x, gy - y), np.arctan2(gy - y, gx - x)
    soft = 1.5 / canvas.frame_px
    cover = np.clip((radius - distance) / soft + 0.5, 0, 1).astype(np.float32)
    level = 168 + 44 * np.cos(2 * (angle + 2.2)) + 18 * np.cos(distance / radius * 3.0)
    rim = np.exp(-np.square((distance - radius * 0.93) / (radius * 0.05)))
    level = level + rim * 60 * np.cos(angle + 2.2)
    around.shadow(cover, (0.006, 0.009), 0.006, 0.6)
    around.blend(cover, np.asarray(np.dstack([level * 1.02, level, level * 0.98]), np.float32))
    sector = (cover * (distance < radius * 0.88) * (np.abs(angle - 0.0) < 0.62)).astype(np.float32)
    around.blend(around.soften(sector, 0.0012), (52, 48, 46))
    canvas.text("47", x - radius * 0.3, y + 0.002, radius * 0.5, (60, 58, 58), 600, "centre")
    canvas.text("25V", x - radius * 0.3, y + radius * 0.42, radius * 0.34, (60, 58, 58), 500, "centre")


def _header(canvas: Canvas) -> None:
    x, y, count, pitch = _HEADER
    _raised(canvas, x - pitch / 2, y - 0.03, count * pitch, 0.06, 0.004, 0.012)
    canvas.box(x - pitch / 2, y - 0.03, count * pitch, 0.06, _BLACK, 0.004)
    canvas.box(x - pitch / 2 + 0.003, y - 0.027, count * pitch - 0.006, 0.012, (62, 58, 56), 0.003)
    for index in range(count):
        px = x + index * pitch
        canvas.box(px - 0.013, y - 0.013, 0.026, 0.026, (24, 22, 22), 0.003)
        canvas.box(px - 0.009, y - 0.009, 0.018, 0.018, _GOLD, 0.002)
        canvas.box(px - 0.009, y - 0.009, 0.018, 0.006, (160, 220, 244), 0.002)
        canvas.frame(px - pitch * 0.42, y + 0.036, pitch * 0.84, 0.0, 0.002, _INK)


def _bridge(canvas: Canvas, rng: Generator) -> None:
    """Tin that joins two neighbouring pins of the large chip."""
    cx, cy, width, height, pins, _ = _CHIPS[0]
    places = _pins(cx, cy, width, height, pins)
    index = int(rng.integers(pins - 1)) + pins * int(rng.integers(2))
    (x, y1), (_, y2) = places[index], places[index + 1]
    bulge = float(rng.uniform(0.008, 0.011))
    offset = float(rng.uniform(-0.003, 0.004)) * (1 if index >= pins else -1)
    canvas.line([(x + offset, y1), (x + offset, y2)], 1.7 * bulge, _TIN)
    canvas.line([(x + offset - 0.003, y1 + 0.002), (x + offset - 0.003, y2 - 0.002)], 0.004, (246, 247, 247))
