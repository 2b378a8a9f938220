"""Textures that are planted: a photograph after random changes [DRAEM], or generated where there is no photograph."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from differad_edge.images import Image
from training.perlin import perlin_noise

_TABLE = np.arange(256, dtype=np.float32)


def augment_texture(texture: Image, rng: Generator, count: int) -> Image:
    """``texture`` (HxWx3 uint8 BGR) after ``count`` different random changes; DRAEM takes 3 of its list of 10.

    Raises nothing; ``texture`` itself stays as it is.
    """
    for number in rng.choice(len(TEXTURE_CHANGES), count, replace=False):
        texture = TEXTURE_CHANGES[int(number)](texture, rng)
    return texture


def generated_texture(rng: Generator, side_px: int) -> Image:
    """A texture of ``side_px`` x ``side_px`` px, uint8 BGR, between two colours: clouds, stripes, grains or dots.

    Own choice: the paper and DRAEM take photographs (the DTD textures).
    """
    kind = int(rng.integers(4))
    if kind == 0:
        octaves = [perlin_noise(rng, side_px, side_px, 2**power, 2**power) / 2**power for power in range(1, 6)]
        weight = np.sum(octaves, axis=0) + 0.5
    elif kind == 1:
        y, x = np.mgrid[:side_px, :side_px].astype(np.float32) / side_px
        turn, waves = rng.uniform(0, np.pi), rng.uniform(5, 60)
        bend = perlin_noise(rng, side_px, side_px, 4, 4) * float(rng.uniform(0, 2))
        weight = 0.5 + 0.5 * np.sin(2 * np.pi * waves * (x * np.cos(turn) + y * np.sin(turn)) + bend)
    elif kind == 2:
        grains = rng.normal(0.5, 0.6, (side_px, side_px)).astype(np.float32)
        weight = cv2.GaussianBlur(grains, (0, 0), float(rng.uniform(0.5, 2.5)))
    else:
        cells = int(rng.integers(6, 40))
        dots = (rng.random((cells, cells)) < rng.uniform(0.2, 0.8)).astype(np.float32)
        rounding = int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC]))
        weight = cv2.resize(dots, (side_px, side_px), interpolation=rounding)
    low, high = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    share = np.clip(np.asarray(weight, np.float32), 0, 1)[..., None]
    return np.asarray(low + (high - low) * share, dtype=np.uint8)


def _look_up(texture: Image, table: NDArray[np.floating]) -> Image:
    """Each value through a table of (256,) or, a column for each channel, (256, 3)."""
    values = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(texture, values.reshape(1, 256, -1)), dtype=np.uint8)


def _gamma(texture: Image, rng: Generator) -> Image:
    return _look_up(texture, 255 * (_TABLE[:, None] / 255) ** rng.uniform(0.5, 2.0, 3))


def _brightness(texture: Image, rng: Generator) -> Image:
    return _look_up(texture, _TABLE * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30))


def _sharpness(texture: Image, rng: Generator) -> Image:
    """Below 1 smoother, above 1 sharper than the picture."""
    factor = float(rng.uniform(0.1, 1.9))
    return np.asarray(cv2.addWeighted(texture, factor, cv2.blur(texture, (3, 3)), 1 - factor, 0), dtype=np.uint8)


def _hue_and_saturation(texture: Image, rng: Generator) -> Image:
    hsv = cv2.cvtColor(texture, cv2.COLOR_BGR2HSV)
    hue, saturation = rng.integers(-50, 51, 2)
    # OpenCV's 8-bit hue has 180 steps, and the shift is meant in 255ths of a turn.
    tables = np.stack([(_TABLE + hue * 180 / 255) % 180, _TABLE + saturation, _TABLE], axis=1)
    tables[:, 0] = np.minimum(tables[:, 0], 179)
    return np.asarray(cv2.cvtColor(_look_up(np.asarray(hsv, np.uint8), tables), cv2.COLOR_HSV2BGR), dtype=np.uint8)


def _solarise(texture: Image, rng: Generator) -> Image:
    return _look_up(texture, np.where(rng.uniform(32, 128) > _TABLE, _TABLE, 255 - _TABLE))


def _posterise(texture: Image, rng: Generator) -> Image:
    step = 1 << int(rng.integers(1, 8))  # 7 bits down to 1 are left
    return _look_up(texture, np.floor(_TABLE / step) * step)


def _invert(texture: Image, rng: Generator) -> Image:
    return np.asarray(cv2.bitwise_not(texture), dtype=np.uint8)


def _stretch_contrast(texture: Image, rng: Generator) -> Image:
    low, high = np.array([cv2.minMaxLoc(channel)[:2] for channel in cv2.split(texture)]).T
    return _look_up(texture, (_TABLE[:, None] - low) * (255 / np.maximum(high - low, 1)))


def _equalise(texture: Image, rng: Generator) -> Image:
    return np.asarray(cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(texture)]), dtype=np.uint8)


def _rotate(texture: Image, rng: Generator) -> Image:
    height, width = texture.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(rng.uniform(-45, 45)), 1.0)
    # Mirrored where DRAEM's leaves black corners, which are no texture.
    return np.asarray(cv2.warpAffine(texture, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101), dtype=np.uint8)


TEXTURE_CHANGES: tuple[Callable[[Image, Generator], Image], ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _hue_and_saturation,
    _solarise,
    _posterise,
    _invert,
    _stretch_contrast,
    _equalise,
    _rotate,
)
"""The ten changes of DRAEM, with its ranges."""
