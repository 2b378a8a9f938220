"""Generated pairs for the tiny model: pictures of 100x100 px, each a function of (seed, index, difficulty).

One pixel is ten steps of the 0-1000 grid, so that a box is exact in the answer's coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from differad_edge.geometry import tight_box, to_grid
from training.formats import location_name

HELD_OUT_SEED = 1_000_003
"""Of the pairs that checkpoints are asked for; no recipe may train with it."""
SIDE_PX = 100
NORMAL_SHARE = 0.25  # as in Algorithm 1 of the paper
MARGIN_PX = 8  # from the picture's edge to the middle of a defect
CONTRAST = (110.0, 28.0)  # grey levels between a defect and what it covers, at least: easiest, hardest
PLAIN = 90.0  # grey level of the easiest pictures
NOISE = (2.0, 5.0)  # standard deviation in grey levels: easiest, hardest
SHIFT_PX = 2  # of the target against the reference, at most, in the hardest pairs
LIGHT = (0.03, 0.12)  # relative change of the target's light: easiest, hardest

Picture = NDArray[np.float32]
Mask = NDArray[np.uint8]


class TinyPair(NamedTuple):
    """``reference``, ``target``: 100x100x3 uint8 RGB. ``box``: x1, y1, x2, y2 on the 0-1000 grid, None for a normal."""

    reference: NDArray[np.uint8]
    target: NDArray[np.uint8]
    box: tuple[int, int, int, int] | None
    thought: str


def tiny_pair(seed: int, index: int, difficulty: float) -> TinyPair:
    """The pair number ``index`` of ``seed``. ``difficulty``: 0 plain pictures and strong defects, 1 the full task."""
    rng = np.random.default_rng([seed, index])
    golden = _scene(rng, difficulty)
    if rng.random() < NORMAL_SHARE:
        return TinyPair(_seen(rng, golden, 0.0), _seen(rng, golden, difficulty), None, "Nothing differs.")
    while True:
        mask = _shape(rng, difficulty)
        changed = _fill(rng, golden, mask, difficulty)
        shift = _shift(rng, difficulty)
        box = tight_box(cv2.warpAffine(mask, shift, (SIDE_PX, SIDE_PX), flags=cv2.INTER_NEAREST) > 0)
        if box is not None:
            break
    target = cv2.warpAffine(changed, shift, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    grid = to_grid(box, SIDE_PX, SIDE_PX)
    thought = f"It differs at the {location_name(grid)}."
    return TinyPair(_seen(rng, golden, 0.0), _seen(rng, target, difficulty), grid, thought)


def loosened(box: tuple[int, int, int, int], loose: float, rng: Generator) -> tuple[int, int, int, int]:
    """``box`` with each edge moved outwards by 0 to ``loose`` of its side, in whole pixels and within the picture.

    Boxes that a model wrote, or that stand around an inpainted region, are like that: near, and too large.
    """
    step = 1000 // SIDE_PX
    x1, y1, x2, y2 = (edge // step for edge in box)
    left, right = (round(share * (x2 - x1)) for share in rng.uniform(0, loose, 2))
    top, bottom = (round(share * (y2 - y1)) for share in rng.uniform(0, loose, 2))
    edges = (max(0, x1 - left), max(0, y1 - top), min(SIDE_PX, x2 + right), min(SIDE_PX, y2 + bottom))
    return tuple(edge * step for edge in edges)


def difficulty_at(progress: float, start: float, end: float) -> float:
    """The curriculum: 0 until ``start``, then a straight line to 1 at ``end``; all shares of the run.

    Without it nothing is learnt in the time that a test run has.
    """
    return float(np.clip((progress - start) / max(end - start, 1e-9), 0.0, 1.0))


def _between(low_high: tuple[float, float], difficulty: float) -> float:
    return low_high[0] + (low_high[1] - low_high[0]) * difficulty


def _scene(rng: Generator, difficulty: float) -> Picture:
    # In the easiest pairs every picture is the same grey: what is bright is the defect, and that is learnt at once.
    base = PLAIN + (rng.uniform(40, 200, 3) - PLAIN) * min(1.0, 2 * difficulty)
    picture = np.zeros((SIDE_PX, SIDE_PX, 3), np.float32) + base.astype(np.float32)
    picture += _smooth_noise(rng, int(rng.integers(3, 12))) * np.float32(rng.uniform(5, 30) * difficulty)
    for _ in range(int(rng.integers(0, 6) * difficulty + 0.3)):
        colour = tuple(float(value) for value in rng.uniform(0, 255, 3))
        ends = [int(value) for value in rng.integers(0, SIDE_PX, 4)]
        draw = cv2.rectangle if rng.random() < 0.5 else cv2.line
        draw(picture, (ends[0], ends[1]), (ends[2], ends[3]), colour, int(rng.integers(1, 5)))
    return np.clip(picture, 0, 255)


def _smooth_noise(rng: Generator, cells: int) -> Picture:
    noise = rng.standard_normal((cells, cells, 3), np.float32)
    return cv2.resize(noise, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def _shape(rng: Generator, difficulty: float) -> Mask:
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    x, y = (int(value) for value in rng.integers(MARGIN_PX, SIDE_PX - MARGIN_PX, 2))
    if rng.random() < 0.25 * difficulty:  # a scratch
        angle, length = rng.uniform(0, np.pi), rng.uniform(14, 36)
        reach = (int(np.cos(angle) * length / 2), int(np.sin(angle) * length / 2))
        ends = ((x - reach[0], y - reach[1]), (x + reach[0], y + reach[1]))
        cv2.line(mask, *ends, 1, int(rng.integers(3, 6)))
    else:
        smallest = round(_between((9.0, 5.0), difficulty))
        axes = tuple(int(value) for value in rng.integers(smallest, 16, 2))
        cv2.ellipse(mask, (x, y), axes, int(rng.integers(180)), 0, 360, 1, -1)
    return mask


def _fill(rng: Generator, picture: Picture, mask: Mask, difficulty: float) -> Picture:
    """Foreign material where the mask is, told from what it covers by at least the contrast of this difficulty."""
    darkest = 255.0 * (1.0 - difficulty)
    content = _smooth_noise(rng, 8) * np.float32(20) + rng.uniform(darkest, 255, 3).astype(np.float32)
    under, over = picture[mask > 0].mean(0), content[mask > 0].mean(0)
    least = _between(CONTRAST, difficulty)
    gap = over - under
    widest = int(np.abs(gap).argmax())
    if abs(gap[widest]) < least:
        away = 1.0 if under[widest] < 128 else -1.0
        content[..., widest] += np.float32(away * least - gap[widest])
    return np.where(mask[..., None] > 0, np.clip(content, 0, 255), picture).astype(np.float32)


def _shift(rng: Generator, difficulty: float) -> NDArray[np.float64]:
    by = rng.integers(-SHIFT_PX, SHIFT_PX + 1, 2) * (rng.random() < 0.5 * difficulty)
    return np.array([[1.0, 0.0, float(by[0])], [0.0, 1.0, float(by[1])]])


def _seen(rng: Generator, picture: Picture, difficulty: float) -> NDArray[np.uint8]:
    light = 1.0 + rng.uniform(-1, 1) * _between(LIGHT, difficulty)
    noise = rng.standard_normal(picture.shape, np.float32) * np.float32(_between(NOISE, difficulty))
    seen: NDArray[np.uint8] = np.clip(picture * np.float32(light) + noise, 0, 255).astype(np.uint8)
    return seen
