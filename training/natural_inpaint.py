"""Natural pairs from any photograph: something is removed from it, or something is put into it.

The paper trains on 5,000 pairs of COCO-Inpainted, where a network removed whole objects. Here OpenCV's inpainting
(Telea, 2004; Navier-Stokes: Bertalmio et al., 2001) fills a random blob, or a patch of the same photograph is pasted at
another place: it needs no network and no annotation, and knows nothing of objects. All constants are own guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from differad_edge.errors import TrainingError
from differad_edge.geometry import tight_box
from differad_edge.images import Image, load_image
from training.synth import NORMAL_SHARE, SynthPair, check_range

REMOVED, ADDED = "removed", "added"
MIN_AREA_SHARE, MAX_AREA_SHARE = 0.003, 0.06  # of the picture: what the blob covers
PASTED_SHARE = 0.3  # of the pairs with a difference; the others are inpainted
MIN_CHANGE_LEVELS = 12  # of a pixel's most changed channel: below, inpainting only smoothed some grain
MIN_CHANGED_SHARE = 0.3  # of the blob; a hole in the sky that is filled with sky is no difference
INPAINT_RADIUS_PX = 5
DRAWS = 10


@dataclass(frozen=True)
class InpaintConfig:
    """Settings of `inpainted_pair`, as the constants of this module explain them. Raises ConfigError."""

    normal_share: float = NORMAL_SHARE
    pasted_share: float = PASTED_SHARE
    min_area_share: float = MIN_AREA_SHARE
    max_area_share: float = MAX_AREA_SHARE
    draws: int = DRAWS

    def __post_init__(self) -> None:
        check_range("normal_share", self.normal_share, 0, 1)
        check_range("pasted_share", self.pasted_share, 0, 1)
        check_range("min_area_share", self.min_area_share, 1e-4, 0.2)
        check_range("max_area_share", self.max_area_share, self.min_area_share, 0.2)
        check_range("draws", self.draws, 1, 1000, whole=True)


class NaturalPair(NamedTuple):
    """A pair, and what happened to the target: "removed", "added", or None for a normal pair."""

    pair: SynthPair
    change: str | None


def inpainted_pair(image: Image, rng: Generator, config: InpaintConfig = InpaintConfig()) -> NaturalPair:
    """A pair of the photograph ``image`` (HxWx3 uint8 BGR) and its changed copy; which of them is the target is drawn.

    The mask holds the pixels that visibly changed, so that its tight box ends where the difference ends. For a normal
    pair the target is the photograph itself.

    Raises TrainingError when no change could be seen in ``config.draws`` draws, ImageError for another kind of array.
    """
    image = load_image(image, name="image")
    height, width = image.shape[:2]
    if rng.random() < config.normal_share:
        return NaturalPair(SynthPair(image, image, np.zeros((height, width), np.bool_), None), None)
    for _ in range(config.draws):
        blob = _blob(rng, height, width, float(rng.uniform(config.min_area_share, config.max_area_share)))
        pasted = bool(rng.random() < config.pasted_share)
        changed = _paste(image, blob, rng) if pasted else _inpaint(image, blob, rng)
        levels: NDArray[np.uint8] = np.asarray(cv2.absdiff(image, changed), dtype=np.uint8).max(axis=2)
        mask = levels >= MIN_CHANGE_LEVELS
        if mask.sum() < MIN_CHANGED_SHARE * blob.sum():
            continue
        reversed_ = bool(rng.random() < 0.5)
        reference, target = (changed, image) if reversed_ else (image, changed)
        change = ADDED if pasted != reversed_ else REMOVED
        return NaturalPair(SynthPair(reference, target, mask, tight_box(mask)), change)
    raise TrainingError(f"no change that can be seen in {config.draws} draws")


def _blob(rng: Generator, height: int, width: int, share: float) -> NDArray[np.bool_]:
    """A round, irregular piece of about ``share`` of the picture, wholly inside it; HxW bool."""
    radius = np.sqrt(share * height * width / np.pi)
    corners = int(rng.integers(8, 16))
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    stretch = float(np.exp(rng.normal() * 0.3))
    away = radius * rng.uniform(0.7, 1.2, corners)
    outline = np.stack([away * np.cos(angle) * stretch, away * np.sin(angle) / stretch], axis=1)
    room = np.array([width, height])
    outline *= np.minimum(1.0, 0.9 * room / np.ptp(outline, axis=0))
    outline += rng.uniform(-outline.min(axis=0), room - 1 - outline.max(axis=0))
    blob = cv2.fillPoly(np.zeros((height, width), np.uint8), [np.rint(outline).astype(np.int32)], 1)
    return np.asarray(blob > 0, dtype=np.bool_)


def _inpaint(image: Image, blob: NDArray[np.bool_], rng: Generator) -> Image:
    method = cv2.INPAINT_TELEA if rng.random() < 0.5 else cv2.INPAINT_NS
    at = _around(blob, 4 * INPAINT_RADIUS_PX)
    filled = cv2.inpaint(np.ascontiguousarray(image[at]), blob[at].astype(np.uint8), INPAINT_RADIUS_PX, method)
    changed: Image = image.copy()
    changed[at][blob[at]] = np.asarray(filled, np.uint8)[blob[at]]
    return changed


def _paste(image: Image, blob: NDArray[np.bool_], rng: Generator) -> Image:
    """The piece of the photograph that lies under the blob when it is moved elsewhere, put under the blob."""
    height, width = blob.shape
    rows, columns = _around(blob, 0)
    piece_height, piece_width = rows.stop - rows.start, columns.stop - columns.start
    top = int(rng.integers(0, height - piece_height + 1))
    left = int(rng.integers(0, width - piece_width + 1))
    piece = image[top : top + piece_height, left : left + piece_width]
    shape = blob[rows, columns]
    changed: Image = image.copy()
    changed[rows, columns][shape] = piece[shape]
    return changed


def _around(mask: NDArray[np.bool_], margin_px: int) -> tuple[slice, slice]:
    """Rows and columns of the mask's box, and ``margin_px`` more on each side as far as the picture goes."""
    height, width = mask.shape
    x, y, box_width, box_height = cv2.boundingRect(mask.astype(np.uint8))
    rows = slice(max(0, y - margin_px), min(height, y + box_height + margin_px))
    return rows, slice(max(0, x - margin_px), min(width, x + box_width + margin_px))
