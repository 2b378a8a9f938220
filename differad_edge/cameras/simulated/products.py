"""Simulated products: a golden sample and an endless stream of parts with known defects.

A part is drawn like its golden sample, or like no other where good parts vary, damaged or not, and then seen by a
camera: shifted, slightly turned and scaled, under another exposure, with noise. Everything follows from (product, size,
seed, index).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from differad_edge.cameras.simulated.board import Board
from differad_edge.cameras.simulated.canvas import MARGIN, Canvas
from differad_edge.cameras.simulated.defects import SURFACE_DEFECTS, Surface
from differad_edge.cameras.simulated.felt import Felt
from differad_edge.cameras.simulated.gasket import Gasket
from differad_edge.cameras.simulated.label import Label
from differad_edge.errors import ConfigError
from differad_edge.geometry import tight_box
from differad_edge.images import Image
from differad_edge.results import Box

__all__ = ["PRODUCT_NAMES", "SimulatedPart", "SimulatedProduct"]


class Scene(Surface, Protocol):
    """A product that can be drawn. ``kinds``: the defects it can have; ``varies``: no two good parts look the same."""

    name: str
    kinds: tuple[str, ...]
    varies: bool

    def paint(self, canvas: Canvas, rng: Generator, flaw: str | None) -> None:
        """Draw the part with ``flaw`` built in where it knows that kind.

        ``rng`` decides where, and where good parts vary how they do; nothing else.
        """
        ...


_SCENES: dict[str, Scene] = {scene.name: scene for scene in (Gasket(), Board(), Label(), Felt())}
PRODUCT_NAMES = tuple(_SCENES)

MIN_SIZE_PX, MAX_SIZE_PX = 128, 4096
_OVERSAMPLE = 2.0
_MAX_CANVAS_PX = 2048  # what is larger is enlarged from this: drawing time and memory stay bounded
_PERIOD = 3  # one part in so many is defective
_VISIBLE_GREY_LEVELS = 14  # a pixel that differs by more belongs to the defect

_PART, _GOOD, _FATE = 0, 1, 2  # streams of random numbers


@dataclass(frozen=True)
class SimulatedPart:
    """``image``: HxWx3 uint8 BGR; ``boxes``: the true defects in its pixels; ``defect``: their kind, None: good."""

    image: Image
    boxes: tuple[Box, ...]
    defect: str | None


class SimulatedProduct:
    """One product as a camera of ``size`` x ``size`` pixels sees it.

    ``name``: one of PRODUCT_NAMES; ``size``: 128 to 4096; ``seed``: >= 0, which parts come along; ``defect_rate``: 0 to
    1, the share of defective parts, evenly spread; None: every third, at a place that varies. Raises ConfigError.
    """

    def __init__(self, name: str, size: int = 640, *, seed: int = 0, defect_rate: float | None = None) -> None:
        if name not in _SCENES:
            raise ConfigError(f"product: got {name!r}, allowed: {', '.join(PRODUCT_NAMES)}")
        if not MIN_SIZE_PX <= size <= MAX_SIZE_PX:
            raise ConfigError(f"size: got {size}, allowed: {MIN_SIZE_PX} to {MAX_SIZE_PX} pixels")
        if seed < 0:
            raise ConfigError(f"seed: got {seed}, allowed: at least 0")
        if defect_rate is not None and not 0 <= defect_rate <= 1:
            raise ConfigError(f"defect_rate: got {defect_rate}, allowed: 0 to 1")
        self.name, self.size, self.seed, self.defect_rate = name, size, seed, defect_rate
        self._scene = _SCENES[name]
        self.kinds = self._scene.kinds
        """The defects that this product can have."""
        self._blank: Canvas | None = None

    def golden(self) -> Image:
        """The golden sample: in its place, well lit, almost without noise."""
        frame = self._see(self._frame_of(self._canvas()), _straight(self.size))
        return _expose(frame, self._rng(_GOOD, 0), strength=0.0)

    def part(self, index: int) -> SimulatedPart:
        """Part ``index`` >= 0 of the stream; see ``defect_rate``."""
        defective, turn = self._fate(index)
        # Kinds take turns from a start that differs from seed to seed, so that a short stream shows them all.
        kind = self.kinds[(turn + self.seed) % len(self.kinds)] if defective else None
        return self._part(kind, self._rng(_PART, index))

    def _fate(self, index: int) -> tuple[bool, int]:
        """Whether a part is defective, and how many defective ones came before."""
        if self.defect_rate is None:
            turn, place = divmod(index, _PERIOD)
            return place == int(self._rng(_PART, turn, 1).integers(_PERIOD)), turn
        phase = float(self._rng(_FATE).random())
        before, after = (math.floor(count * self.defect_rate + phase) for count in (index, index + 1))
        return after > before, before

    def good(self, index: int) -> Image:
        """Good part ``index`` >= 0 for calibration: none of them comes along in the stream."""
        return self._part(None, self._rng(_GOOD, index + 1)).image

    def with_defect(self, kind: str, index: int = 0) -> SimulatedPart:
        """A part with a defect of ``kind``, one of ``kinds``. Raises ConfigError."""
        if kind not in self.kinds:
            raise ConfigError(f"defect: got {kind!r}, allowed for {self.name}: {', '.join(self.kinds)}")
        return self._part(kind, self._rng(_PART, index, 2 + self.kinds.index(kind)))

    def _rng(self, *stream: int) -> Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.name.encode("ascii")), *stream])

    def _canvas(self) -> Canvas:
        if self._blank is None:
            self._blank = self._paint(None, np.random.default_rng(0))
        return self._blank

    def _paint(self, flaw: str | None, rng: Generator) -> Canvas:
        canvas = Canvas(min(round(_OVERSAMPLE * self.size), round(_MAX_CANVAS_PX / (1 + 2 * MARGIN))))
        self._scene.paint(canvas, rng, flaw)
        return canvas

    def _part(self, kind: str | None, rng: Generator) -> SimulatedPart:
        sound = self._paint(None, rng) if self._scene.varies else self._canvas()
        canvas = sound
        boxes: tuple[Box, ...] = ()
        if kind is not None:
            if kind in SURFACE_DEFECTS:
                canvas = sound.copy()
                SURFACE_DEFECTS[kind](canvas, self._scene, rng)
            else:
                canvas = self._paint(kind, rng)
        pose = _pose(self.size, rng)
        frame = self._frame_of(canvas)
        if kind is not None:
            differs = np.abs(frame.astype(np.int16) - self._frame_of(sound)).max(2) > _VISIBLE_GREY_LEVELS
            boxes = self._boxes_of(differs, pose)
        return SimulatedPart(_expose(self._see(frame, pose), rng, strength=1.0), boxes, kind)

    def _frame_of(self, canvas: Canvas) -> Image:
        """The canvas with its margin, at the camera's resolution."""
        side = round(self.size * (1 + 2 * MARGIN))
        shrinks = side <= canvas.shape[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(canvas.pixels, (side, side), interpolation=method), np.uint8)

    def _see(self, frame: Image, pose: NDArray[np.float64]) -> Image:
        seen = cv2.warpAffine(
            frame, pose, (self.size, self.size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(seen, np.uint8)

    def _boxes_of(self, differs: NDArray[np.bool_], pose: NDArray[np.float64]) -> tuple[Box, ...]:
        seen = cv2.warpAffine(differs.astype(np.uint8) * 255, pose, (self.size, self.size), flags=cv2.INTER_LINEAR)
        box = tight_box(np.asarray(seen) >= 128)
        return () if box is None else (box,)


def _straight(size: int) -> NDArray[np.float64]:
    """2x3, frame with margin -> camera: only the margin is cut off."""
    edge = (round(size * (1 + 2 * MARGIN)) - size) / 2
    return np.array([[1.0, 0.0, -edge], [0.0, 1.0, -edge]])


def _pose(size: int, rng: Generator) -> NDArray[np.float64]:
    """As `_straight`, with the part shifted, turned and scaled as far as a good fixture lets it."""
    angle, scale = math.radians(rng.uniform(-1.2, 1.2)), rng.uniform(0.992, 1.008)
    shift = rng.uniform(-0.012, 0.012, 2) * size
    pose = _straight(size)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.full(2, (size - 1) / 2)
    pose[:, 2] = turn @ (pose[:, 2] - middle) + middle + shift
    pose[:, :2] = turn
    return pose


def _expose(image: Image, rng: Generator, *, strength: float) -> Image:
    """Light and sensor: brightness, gamma, a slope of light, a little blur, and noise that grows with brightness.

    ``strength``: 1 for a part on the line, 0 for the golden sample, which has only a little noise.
    """
    height, width = image.shape[:2]
    gain = 1 + strength * float(rng.uniform(-0.06, 0.06))
    gamma = 1 + strength * float(rng.uniform(-0.06, 0.06))
    slope_x, slope_y = strength * rng.uniform(-0.05, 0.05, 2)
    noise = 0.8 + strength * float(rng.uniform(0.5, 2.2))
    blur_px = strength * float(rng.uniform(0.0, 0.55))
    if blur_px > 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur_px), np.uint8)
    table = (np.arange(256) / 255.0) ** gamma * 255.0 * gain
    light = np.asarray(
        1 + slope_x * np.linspace(-1, 1, width)[None, :] + slope_y * np.linspace(-1, 1, height)[:, None], np.float32
    )
    seen = np.asarray(table, np.float32)[image]
    seen *= light[..., None]
    grain = rng.standard_normal((height, width, 3), dtype=np.float32)
    grain *= np.float32(noise) * (0.7 + seen / np.float32(420))
    seen += grain
    return np.asarray(np.clip(seen + 0.5, 0, 255), np.uint8)
