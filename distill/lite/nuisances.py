"""What differs between two pictures of equally good parts on a real line, and must not count as a defect."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from distill.lite.scenes import Image, smooth_noise


class Binarisation(NamedTuple):
    """A product whose camera delivers two-tone pictures.

    ``level``: the grey level of the cut. ``ragged``: grey levels of the noise that makes outlines uneven.
    """

    level: float
    ragged: float


def displacement(rng: Generator, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each target pixel lies in the part, (x, y) maps of side x side px, after alignment has done its best.

    What it leaves is a similarity motion (a quarter of a degree, 0.3 %, a pixel) and smooth local shifts (up to 6 px).
    """
    y, x = np.mgrid[:side, :side].astype(np.float32)
    angle, zoom = float(rng.normal() * 0.004), 1 + float(rng.normal() * 0.003)
    shift = rng.normal(size=2) * 0.8 * (rng.random() < 0.8)
    cx = side / 2
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    map_x = cx + (x - cx) * cos - (y - cx) * sin + float(shift[0])
    map_y = cx + (x - cx) * sin + (y - cx) * cos + float(shift[1])
    if rng.random() < 0.6:
        reach = min(4.0, abs(float(rng.normal())) * 1.4)
        cells = int(rng.integers(1, 6))
        map_x = map_x + np.clip(smooth_noise(rng, side, cells), -1.5, 1.5) * reach
        map_y = map_y + np.clip(smooth_noise(rng, side, cells), -1.5, 1.5) * reach
    return map_x.astype(np.float32), map_y.astype(np.float32)


def binarise(rng: Generator, image: Image, how: Binarisation) -> Image:
    """Two-tone with its own blur, cut and edge noise, so that strokes come out thicker or thinner by a pixel or two.

    Returns side x side x 3 uint8 of 0 and 255, and what JPEG makes of them in a part of the pictures.
    """
    side = image.shape[0]
    sharp = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    grey = np.asarray(cv2.GaussianBlur(sharp, (0, 0), float(rng.uniform(0.4, 1.8)))).astype(np.float32)
    grey += smooth_noise(rng, side, side // int(rng.integers(2, 8))) * how.ragged * float(rng.uniform(0.3, 1))
    grey += smooth_noise(rng, side, int(rng.integers(2, 6))) * float(rng.uniform(0, 12))
    two_tone = ((grey > how.level + rng.uniform(-28, 28)) * 255).astype(np.uint8)
    if rng.random() < 0.25:
        kernel = np.ones((2, 2) if rng.random() < 0.5 else (3, 3), np.uint8)
        change = cv2.erode if rng.random() < 0.5 else cv2.dilate
        two_tone = np.asarray(change(two_tone, kernel), np.uint8)
    if rng.random() < 0.15:  # specks of a pixel or two
        specks = rng.integers(0, side, (int(rng.integers(1, 8)), 2))
        two_tone[specks[:, 0], specks[:, 1]] ^= 255
    if rng.random() < 0.3:
        two_tone = _jpeg(rng, two_tone)
    return np.repeat(two_tone[..., None], 3, -1)


def _jpeg(rng: Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 97))])
    if not ok:
        raise RuntimeError("OpenCV could not write a JPEG")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


def expose(rng: Generator, image: Image) -> Image:
    """Light, lens and sensor: gain, offset, gamma, gradients, white balance, blur, sharpening, moire, noise, JPEG.

    Takes and returns side x side x 3 uint8 BGR. Each picture of a pair has its own; offsets and noise in grey levels,
    blur as the standard deviation in px.
    """
    side = image.shape[0]
    x = image.astype(np.float32)
    x = x * float(rng.uniform(0.86, 1.14)) + float(rng.uniform(-14, 14))
    if rng.random() < 0.3:
        x = 255 * np.power(np.clip(x, 0, 255) / 255, float(np.exp(rng.normal() * 0.18)))
    if rng.random() < 0.3:
        x = x * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    if rng.random() < 0.4:
        ramp = np.linspace(-1, 1, side, dtype=np.float32)
        light = ramp[None] * float(rng.normal() * 0.07) + ramp[:, None] * float(rng.normal() * 0.07)
        x = x * (1 + light)[..., None]
    if rng.random() < 0.15:
        x = x * (1 + smooth_noise(rng, side, 2) * float(rng.uniform(0, 0.06)))[..., None]
    if rng.random() < 0.4:
        x = np.asarray(cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.3, 1.1))), np.float32)
    elif rng.random() < 0.15:
        x = x + (x - cv2.GaussianBlur(x, (0, 0), 1.2)) * float(rng.uniform(0.2, 0.8))
    if rng.random() < 0.05:
        rows = np.sin(np.arange(side) * float(rng.uniform(0.2, 3)) + float(rng.uniform(0, 6)))
        x = x + rows[:, None, None].astype(np.float32) * float(rng.uniform(1, 5))
    if rng.random() < 0.8:
        grain = rng.standard_normal((side, side, 3 if rng.random() < 0.4 else 1), np.float32)
        x = x + grain * np.float32(rng.uniform(0, 7))
    out = np.clip(x, 0, 255).astype(np.uint8)
    return _jpeg(rng, out) if rng.random() < 0.3 else out
