"""Synthetic industrial pairs: Algorithm 1 of the paper. ``python -m training.synth IMAGES OUT --n N --seed S``.

A foreign texture is blended into a good part through one connected piece of a thresholded noise mask. Where a constant
comes from stands beside it: [paper] Algorithm 1 of arXiv 2606.16601, [DRAEM] Zavrtanik et al., ICCV 2021, which the
recipe follows where the paper is silent, or an own guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from differad_edge.errors import ConfigError, TrainingError
from differad_edge.geometry import tight_box
from differad_edge.images import Image, load_image
from differad_edge.results import Box
from training.perlin import perlin_mask
from training.synth_foreground import foreground_mask
from training.synth_textures import TEXTURE_CHANGES, augment_texture

NORMAL_SHARE = 0.25  # [paper]
MAX_OPACITY_OF_PART = 0.8  # [paper] beta ~ U(0, 0.8) is how much of the part still shows through the texture
PERLIN_MAX_POWER = 5  # [DRAEM] 2^0 to 2^5 cells an axis
PERLIN_THRESHOLD = 0.5  # [DRAEM]
NOISE_ROTATION_DEG = 90.0  # [DRAEM] either way
TEXTURE_CHANGES_EACH = 3  # [DRAEM] different ones of its list of ten
BRIGHTNESS = 0.1  # "mild" [paper]; relative, either way: own guess
ROTATION_DEG = 3.0  # "small" [paper]; either way: own guess
MIN_AREA_SHARE = 2e-4  # of the picture, 128 px at 800x800: own guess
MIN_CHANGE_LEVELS = 4.0  # grey levels, on average over the planted piece; less cannot be seen: own guess
DRAWS = 10  # until a piece is large and visible enough: own guess


@dataclass(frozen=True)
class SynthConfig:
    """Settings of `synthesise`, as the constants of this module explain them.

    ``jitter_normals``: give normal pairs the jitter of brightness and the rotation too. In Algorithm 1 the target of a
    normal pair is the reference itself, and so is it here unless this is set. Raises ConfigError.
    """

    normal_share: float = NORMAL_SHARE
    beta_max: float = MAX_OPACITY_OF_PART
    perlin_max_power: int = PERLIN_MAX_POWER
    perlin_threshold: float = PERLIN_THRESHOLD
    noise_rotation_deg: float = NOISE_ROTATION_DEG
    texture_changes: int = TEXTURE_CHANGES_EACH
    brightness: float = BRIGHTNESS
    rotation_deg: float = ROTATION_DEG
    min_area_share: float = MIN_AREA_SHARE
    min_change_levels: float = MIN_CHANGE_LEVELS
    draws: int = DRAWS
    jitter_normals: bool = False

    def __post_init__(self) -> None:
        check_range("normal_share", self.normal_share, 0, 1)
        check_range("beta_max", self.beta_max, 0, 0.99)
        check_range("perlin_max_power", self.perlin_max_power, 0, 8, whole=True)
        check_range("perlin_threshold", self.perlin_threshold, 0, 0.95)
        check_range("noise_rotation_deg", self.noise_rotation_deg, 0, 180)
        check_range("texture_changes", self.texture_changes, 0, len(TEXTURE_CHANGES), whole=True)
        check_range("brightness", self.brightness, 0, 0.9)
        check_range("rotation_deg", self.rotation_deg, 0, 45)
        check_range("min_area_share", self.min_area_share, 0, 0.5)
        check_range("min_change_levels", self.min_change_levels, 0, 255)
        check_range("draws", self.draws, 1, 1000, whole=True)


class SynthPair(NamedTuple):
    """``reference``, ``target``: HxWx3 uint8 BGR. ``mask``: HxW bool, the planted pixels of the target.

    ``box``: the tight box of the mask in pixels of the target, None for a normal pair.
    """

    reference: Image
    target: Image
    mask: NDArray[np.bool_]
    box: Box | None


def check_range(field: str, value: float, low: float, high: float, *, whole: bool = False) -> None:
    """Raise ConfigError unless ``value`` is a number (a whole one) from ``low`` to ``high``."""
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        raise ConfigError(f"{field}: got {value!r}, allowed: {kind} from {low:g} to {high:g}")


def synthesise(image: Image, texture: Image, rng: Generator, config: SynthConfig = SynthConfig()) -> SynthPair:
    """One pair after Algorithm 1 [paper]; all that it shows follows from the arguments, which stay as they are.

    ``image``: HxWx3 uint8 BGR of a good part, the reference. ``texture``: uint8 BGR of any size.

    Raises TrainingError when no visible piece came of ``config.draws`` draws, ImageError for arrays of another kind.
    """
    reference, texture = load_image(image, name="image"), load_image(texture, name="texture")
    height, width = reference.shape[:2]
    if rng.random() < config.normal_share:
        target = _jitter_light(_turned(reference, rng, config)[0], rng, config) if config.jitter_normals else reference
        return SynthPair(reference, target, np.zeros((height, width), np.bool_), None)
    part = foreground_mask(reference)
    texture = np.asarray(cv2.resize(texture, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    texture = augment_texture(texture, rng, config.texture_changes)
    turned, turn = _turned(reference, rng, config)
    for _ in range(config.draws):
        beta = float(rng.uniform(0, config.beta_max))
        mask = _planted_piece(part, turn, rng, config)
        box = None if mask is None else tight_box(mask)
        if mask is None or box is None:
            continue
        target = _blend(turned, texture, mask, box, beta)
        if _mean_change(turned, target, mask, box) >= config.min_change_levels:
            return SynthPair(reference, _jitter_light(target, rng, config), mask, box)
    raise TrainingError(f"no piece that can be seen in {config.draws} draws")


def _turned(image: Image, rng: Generator, config: SynthConfig) -> tuple[Image, NDArray[np.float64]]:
    """The small rotation of the target about its middle, mirrored at the rim, and its 2x3 matrix."""
    height, width = image.shape[:2]
    angle_deg = float(rng.uniform(-config.rotation_deg, config.rotation_deg))
    turn = np.asarray(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0), dtype=np.float64)
    if config.rotation_deg == 0:
        return image, turn
    turned = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, dtype=np.uint8), turn


def _planted_piece(
    part: NDArray[np.bool_], turn: NDArray[np.float64], rng: Generator, config: SynthConfig
) -> NDArray[np.bool_] | None:
    """One connected piece of noise on the part, drawn in the reference and turned with the target; None: too small.

    The blend comes after the turn, not before it as in Algorithm 1: the pixels are the same but for the resampled rim,
    and so the mask says exactly which of them were changed.
    """
    height, width = part.shape
    noise = perlin_mask(
        rng,
        height,
        width,
        max_power=config.perlin_max_power,
        threshold=config.perlin_threshold,
        rotation_deg=config.noise_rotation_deg,
    )
    smallest = max(1, math.ceil(config.min_area_share * height * width))
    labels, areas = _pieces(noise & part)
    large = np.flatnonzero(areas >= smallest)
    if len(large) == 0:
        return None
    piece = (labels == 1 + int(rng.choice(large))).astype(np.uint8)
    if config.rotation_deg > 0:
        piece = np.asarray(cv2.warpAffine(piece, turn, (width, height), flags=cv2.INTER_NEAREST), dtype=np.uint8)
    if not piece.any():  # turned out of the picture; OpenCV 5.0.0 crashes where there is nothing to label
        return None
    # The turn may have broken a thin bridge, or carried some of the piece over the rim.
    x, y, piece_width, piece_height = cv2.boundingRect(piece)
    at = slice(y, y + piece_height), slice(x, x + piece_width)
    labels, areas = _pieces(piece[at] > 0)
    if len(areas) == 0 or areas.max() < smallest:
        return None
    mask = np.zeros((height, width), np.bool_)
    mask[at] = labels == 1 + int(areas.argmax())
    return mask


def _pieces(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Labels (HxW, 0 is outside) and areas in px of the 8-connected pieces 1, 2, ..."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels, np.int32), np.asarray(statistics[1:, cv2.CC_STAT_AREA], np.int32)


def _blend(image: Image, texture: Image, mask: NDArray[np.bool_], box: Box, beta: float) -> Image:
    """``beta`` of the image and 1 - ``beta`` of the texture inside the mask [paper]."""
    at = _window(box)
    target: Image = image.copy()
    mixed = np.asarray(cv2.addWeighted(image[at], beta, texture[at], 1 - beta, 0), dtype=np.uint8)
    np.copyto(target[at], mixed.reshape(image[at].shape), where=mask[at][..., None])
    return target


def _mean_change(before: Image, after: Image, mask: NDArray[np.bool_], box: Box) -> float:
    """Mean over the mask of the largest change among a pixel's channels, in grey levels."""
    at = _window(box)
    change: NDArray[np.uint8] = np.asarray(cv2.absdiff(before[at], after[at]), np.uint8).reshape(before[at].shape)
    return float(change.max(axis=2)[mask[at]].mean())


def _window(box: Box) -> tuple[slice, slice]:
    return slice(int(box.y1), int(box.y2)), slice(int(box.x1), int(box.x2))


def _jitter_light(image: Image, rng: Generator, config: SynthConfig) -> Image:
    factor = 1 + float(rng.uniform(-config.brightness, config.brightness))
    return np.asarray(cv2.convertScaleAbs(image, alpha=factor), dtype=np.uint8)


if __name__ == "__main__":
    from training.synth_cli import main

    raise SystemExit(main())
