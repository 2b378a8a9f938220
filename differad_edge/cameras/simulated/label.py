"""A printed shipping label on a cardboard box."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from differad_edge.cameras.simulated.canvas import Canvas, Colour, Point, rounded, smooth_noise

__all__ = ["Label"]

_LEFT, _TOP, _WIDTH, _HEIGHT = 0.09, 0.11, 0.82, 0.78
_PAPER: Colour = (240, 243, 244)
_INK: Colour = (40, 34, 30)
_BAND: Colour = (122, 78, 18)

# words, x, baseline, height, weight
_LINES: tuple[tuple[str, float, float, float, int], ...] = (
    ("PART NO.", 0.135, 0.330, 0.024, 400),
    ("DE-42 C / 7081", 0.135, 0.385, 0.052, 700),
    ("LOT", 0.135, 0.450, 0.024, 400),
    ("2481-07", 0.135, 0.497, 0.042, 600),
    ("DATE", 0.360, 0.450, 0.024, 400),
    ("2031-05-14", 0.360, 0.497, 0.040, 600),
    ("QTY", 0.135, 0.565, 0.024, 400),
    ("120 pcs", 0.135, 0.612, 0.042, 600),
    ("WEIGHT", 0.360, 0.565, 0.024, 400),
    ("8.40 kg", 0.360, 0.612, 0.042, 600),
)
_MISPRINTS = {3: ("2487-07", "2431-07", "2481-01"), 5: ("2031-06-14", "2081-05-14"), 7: ("180 pcs", "12 pcs")}
_ICONS = (0.720, 0.818)


class Label:
    """See differad_edge.cameras.simulated.products.Scene."""

    name = "label"
    kinds: tuple[str, ...] = ("wrong print", "missing print", "stain", "tear", "scratch")
    varies = False
    scratch_colour: Colour = (176, 196, 208)
    stain_colour: Colour = (96, 62, 30)
    blob_colour: Colour = (40, 36, 34)

    def paint(self, canvas: Canvas, rng: Generator, flaw: str | None) -> None:
        """Draw the label; ``flaw`` may be "wrong print" or "missing print"; ``rng`` chooses where, and only that."""
        wrong = int(rng.choice(sorted(_MISPRINTS))) if flaw == "wrong print" else None
        icon_missing = int(rng.integers(2)) if flaw == "missing print" else None
        _cardboard(canvas)
        paper = canvas.stencil(rounded(_LEFT, _TOP, _WIDTH, _HEIGHT, 0.018))
        canvas.shadow(paper, (0.003, 0.004), 0.004, 0.45)
        x, y = canvas.grid()
        light = np.asarray(1.02 - 0.10 * np.square(x - 0.35) - 0.12 * np.square(y - 0.3), np.float32)
        canvas.blend(paper, np.asarray(_PAPER, np.float32)[None, None] * light[..., None])
        canvas.box(_LEFT, _TOP + 0.018, _WIDTH, 0.117, _BAND)
        canvas.box(_LEFT, _TOP, _WIDTH, 0.06, _BAND, 0.018)
        canvas.text("DIFFERAD EDGE", 0.135, 0.197, 0.050, (246, 246, 246), 800)
        canvas.text("precision parts", 0.865, 0.195, 0.031, (236, 214, 176), 400, "right")
        for height in (0.285, 0.412, 0.527, 0.642):
            canvas.line([(0.135, height), (0.620 if height < 0.6 else 0.865, height)], 0.002, (120, 116, 112))
        for index, (words, left, baseline, height, weight) in enumerate(_LINES):
            if index == wrong:
                words = str(rng.choice(_MISPRINTS[index]))
            canvas.text(words, left, baseline, height, _INK, weight)
        _matrix(canvas, 0.665, 0.300, 0.200)
        for index, left in enumerate(_ICONS):
            if index != icon_missing:
                (_arrows if index == 0 else _glass)(canvas, left, 0.575)
        _barcode(canvas, 0.135, 0.672, 0.730, 0.128)
        canvas.text("(01) 0428 7081 2481 07", 0.5, 0.846, 0.034, _INK, 500, "centre")

    def surface(self, rng: Generator) -> Point:
        """A point on the paper below the band."""
        return float(rng.uniform(0.16, 0.84)), float(rng.uniform(0.30, 0.82))

    def covers(self, point: Point) -> bool:
        """Within the outline."""
        return _LEFT < point[0] < _LEFT + _WIDTH and _TOP < point[1] < _TOP + _HEIGHT

    def edge(self, rng: Generator) -> tuple[Point, float]:
        """A point on the right edge, and the direction inwards in radians."""
        return (_LEFT + _WIDTH, float(rng.uniform(0.35, 0.80))), math.pi


def _cardboard(canvas: Canvas) -> None:
    canvas.fill((112, 152, 186))
    rng = np.random.default_rng(5)
    x, y = canvas.grid()
    flutes = 0.012 * np.sin(y * 2 * np.pi * 34)
    fibres = smooth_noise(rng, canvas.shape, (420, 90)) * 0.022 + smooth_noise(rng, canvas.shape, (60, 60)) * 0.012
    canvas.shade(np.asarray(1.06 - 0.2 * np.square(x - 0.4) - 0.25 * np.square(y - 0.3) + flutes + fibres, np.float32))


def _barcode(canvas: Canvas, left: float, top: float, width: float, height: float) -> None:
    rng = np.random.default_rng(23)
    module = width / 132
    position = 0
    while position < 130:
        bar = int(rng.choice([1, 1, 2, 3]))
        canvas.box(left + position * module, top, bar * module, height, _INK)
        position += bar + int(rng.choice([1, 1, 2, 3]))


def _matrix(canvas: Canvas, left: float, top: float, side: float) -> None:
    """A square of cells in the manner of a data matrix: two solid sides, two dotted ones."""
    rng = np.random.default_rng(29)
    count = 18
    cell = side / count
    dark = rng.random((count, count)) < 0.5
    dark[:, 0] = dark[-1, :] = True
    dark[0, :] = np.arange(count) % 2 == 0
    dark[:, -1] = np.arange(count) % 2 == 1
    for row, column in zip(*np.nonzero(dark), strict=True):
        canvas.box(left + column * cell, top + row * cell, cell * 1.02, cell * 1.02, _INK)


def _arrows(canvas: Canvas, left: float, top: float) -> None:
    """This way up."""
    middle = left
    for offset in (-0.018, 0.018):
        x = middle + offset
        canvas.box(x - 0.0055, top - 0.025, 0.011, 0.048, _INK)
        canvas.polygon([(x - 0.016, top - 0.020), (x, top - 0.046), (x + 0.016, top - 0.020)], _INK)
    canvas.box(middle - 0.036, top + 0.030, 0.072, 0.008, _INK)


def _glass(canvas: Canvas, left: float, top: float) -> None:
    """Fragile."""
    bowl = [(left - 0.024, top - 0.046), (left + 0.024, top - 0.046), (left + 0.020, top - 0.012)]
    canvas.polygon([*bowl, (left + 0.004, top + 0.004), (left - 0.004, top + 0.004), (left - 0.020, top - 0.012)], _INK)
    canvas.box(left - 0.004, top, 0.008, 0.030, _INK)
    canvas.box(left - 0.020, top + 0.028, 0.040, 0.010, _INK, 0.004)
    canvas.line([(left + 0.008, top - 0.046), (left + 0.001, top - 0.032), (left + 0.009, top - 0.024)], 0.004, _PAPER)
