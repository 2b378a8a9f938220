"""A sheet of pressed fibre: no two parts are the same picture, as with castings or anything cut from a roll."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator

from differad_edge.cameras.simulated.canvas import Canvas, Colour, Floats, Point, smooth_noise

__all__ = ["Felt"]

_DIRECTIONS = 5
_FIBRE, _FIBRES = 0.018, 0.012  # length, share of pixels where one begins
_INSIDE = (0.12, 0.88)


class Felt:
    """See differad_edge.cameras.simulated.products.Scene."""

    name = "felt"
    kinds: tuple[str, ...] = ("scratch", "stain", "extra blob", "crack")
    varies = True
    scratch_colour: Colour = (64, 70, 74)
    stain_colour: Colour = (40, 52, 66)
    blob_colour: Colour = (198, 202, 206)

    def paint(self, canvas: Canvas, rng: Generator, flaw: str | None) -> None:
        """Draw a sheet with fibres as ``rng`` lays them; it knows no ``flaw`` of its own."""
        canvas.fill((118, 124, 128))
        cloud = smooth_noise(rng, canvas.shape, (9, 9)) * 0.025
        canvas.shade(np.asarray(1 + cloud + 0.16 * _fibres(rng, canvas), np.float32))

    def surface(self, rng: Generator) -> Point:
        """A point with some room around it."""
        x, y = rng.uniform(*_INSIDE, 2)
        return float(x), float(y)

    def covers(self, point: Point) -> bool:
        """The sheet fills the frame."""
        return all(0.05 < value < 0.95 for value in point)

    def edge(self, rng: Generator) -> tuple[Point, float]:
        """A point on the left edge and the direction inwards."""
        return (0.0, float(rng.uniform(*_INSIDE))), 0.0


def _fibres(rng: Generator, canvas: Canvas) -> Floats:
    """HxW: about 1 on a bright fibre, -1 on a dark one, many across each other."""
    length = max(3, canvas.px(_FIBRE) | 1)
    laid = np.zeros(canvas.shape, np.float32)
    for direction in range(_DIRECTIONS):
        begins = rng.random(canvas.shape, dtype=np.float32) < _FIBRES
        ends = begins * rng.choice(np.array([-1, 1], np.float32), canvas.shape)
        kernel = np.zeros((length, length), np.float32)
        angle = math.pi * (direction + float(rng.uniform(-0.3, 0.3))) / _DIRECTIONS
        reach = np.array([math.cos(angle), math.sin(angle)]) * (length // 2)
        middle = np.full(2, length // 2)
        start, end = (tuple(round(float(v)) for v in middle + sign * reach) for sign in (-1, 1))
        cv2.line(kernel, start, end, 1.0, 1)
        laid += cv2.filter2D(np.asarray(ends, np.float32), -1, cv2.GaussianBlur(kernel, (0, 0), 0.7))
    return np.asarray(np.clip(laid, -1.5, 1.5), np.float32)
