"""How far a good image is from lying over a target: the automatic filter of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.images import Image
from differad_edge.results import Box

MAX_RESIDUAL = 0.4
"""Of a pair that is taken [own choice]. Measured on 136 real pairs (bottle, screw, capsule, transistor, hazelnut,
boards): 0.27 at the most with the reference of the pair, above 0.4 in 96 % with one of another product. Carpet and
tile: above 0.8 with any."""
SIDE_PX = 192
"""Longer side that both images are brought to: poses and parts show at it, texture does not."""
_BLUR_PX = 1.5
_STEPS, _PRECISION = 40, 1e-4
_BOX_MARGIN_PX = 2
_MIN_OVERLAP = 0.5
_MIN_SPREAD_LEVELS = 1.0

_Grey = NDArray[np.float32]
_Mask = NDArray[np.uint8]


def alignment_residual(reference: Image, target: Image, boxes: Sequence[Box] = ()) -> float:
    """What of the target the reference does not explain after it was moved: 0 (all) to 1 (nothing).

    Both are HxWx3 uint8 BGR; the reference is stretched to the target's shape. Three motions are tried: none, the shift
    with the highest phase correlation, and from the better of them the turn and shift that maximise the enhanced
    correlation coefficient (Evangelidis and Psarakis, TPAMI 2008). The residual is 1 minus the best zero-mean
    normalised cross-correlation, at least 0, over the pixels that both show, outside of ``boxes`` (in pixels of the
    target): a defect is no reason against its pair. A motion that leaves less than half of these pixels does not count.
    """
    height, width = target.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    fixed, moving = _grey(reference, size), _grey(target, size)
    free = np.full((size[1], size[0]), 255, np.uint8)
    for box in boxes:
        x1, x2 = (edge * size[0] / width for edge in (box.x1, box.x2))
        y1, y2 = (edge * size[1] / height for edge in (box.y1, box.y2))
        top, left = max(0, int(y1) - _BOX_MARGIN_PX), max(0, int(x1) - _BOX_MARGIN_PX)
        free[top : int(np.ceil(y2)) + _BOX_MARGIN_PX, left : int(np.ceil(x2)) + _BOX_MARGIN_PX] = 0
    window = cv2.createHanningWindow(size, cv2.CV_32F)
    # Copies: OpenCV 5.0 multiplies the images that it is given by the window. fixed(x) agrees with moving(x + shift).
    shift, _ = cv2.phaseCorrelate(fixed.copy(), moving.copy(), window)
    motions = [np.eye(2, 3, dtype=np.float32), np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)]
    start = motions[int(np.argmax([_agreement(fixed, moving, free, motion) for motion in motions]))]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, _PRECISION)
    try:
        _, refined = cv2.findTransformECC(fixed, moving, start.copy(), cv2.MOTION_EUCLIDEAN, criteria, free, 1)
        motions.append(np.asarray(refined, np.float32))
    except cv2.error:
        pass  # ECC found no motion: that of the two first stands
    return 1.0 - max(0.0, *(_agreement(fixed, moving, free, motion) for motion in motions))


def _grey(image: Image, size: tuple[int, int]) -> _Grey:
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR_PX), np.float32)


def _agreement(fixed: _Grey, moving: _Grey, free: _Mask, motion: _Grey) -> float:
    """Normalised cross-correlation, -1 to 1; ``motion`` takes points of ``fixed`` to points of ``moving``."""
    size = (fixed.shape[1], fixed.shape[0])
    moved = cv2.warpAffine(moving, motion, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    shown = cv2.warpAffine(free, motion, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    if np.count_nonzero(shown) < _MIN_OVERLAP * max(1, int(np.count_nonzero(free))):
        return -1.0
    first = fixed[shown] - fixed[shown].mean()
    second = np.asarray(moved, np.float32)[shown]
    second = second - second.mean()
    spreads = (float(first.std()), float(second.std()))
    if max(spreads) < _MIN_SPREAD_LEVELS:
        return 1.0  # nothing but even grey in both
    if min(spreads) < _MIN_SPREAD_LEVELS:
        return 0.0
    return float((first * second).mean()) / (spreads[0] * spreads[1])
