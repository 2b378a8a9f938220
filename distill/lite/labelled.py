"""A training pair cut from a labelled pair of photographs, and what its label is worth place by place.

A mask says where the defect is. A box, drawn by a teacher or by people, only says that it is somewhere inside: taken
for a mask it would teach the network to find good surface. So within a box only what visibly changed is labelled, and
the rest of the box does not count, for the defect may well be fainter than what is seen here; nor does a visible change
that sticks out of a box, for boxes are off by some pixels. Where nothing in a box changes visibly nothing is demanded:
a teacher may have imagined it. Whatever differs farther from all boxes is what good parts may differ by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from differad_edge.images import load_image
from differad_edge.pairs import Pair
from differad_edge.results import Box
from distill.lite.defects import Mask
from distill.lite.generate import INVISIBLE, SMALLEST_DEFECT_PX, TrainingPair, label_of, visible_change
from distill.lite.nuisances import expose
from distill.lite.scenes import Image

#: Share of the bad pairs whose crop is laid around a box; the others show mostly what is good about a bad part.
AIMED_SHARE = 0.8
#: Source pixels to one of the crop, at the most; the engine compares large images reduced as well.
MAX_REDUCTION = 2.0
#: Share of the pairs that get light, lens and sensor of their own on top of those of their camera.
EXPOSED_SHARE = 0.5
#: How far around a box, in pixels of the crop, a visible change may belong to it.
BOX_MARGIN_PX = 8


class Window(NamedTuple):
    """A square of the target: left, top, and side in source pixels."""

    x: int
    y: int
    extent: int


def labelled_pair(rng: Generator, pair: Pair, side: int) -> TrainingPair:
    """Cut ``side`` x ``side`` px out of an aligned pair; which, how turned and lit follows from ``rng``.

    Raises ImageDecodeError, ImageFormatError or ImageSizeError for a file that has gone bad since it was checked.
    """
    reference, target = (load_image(file, name=str(file)) for file in (pair.reference, pair.target))
    height, width = target.shape[:2]
    window = choose_window(rng, pair.boxes, (width, height), side)
    golden, part = cut(reference, window, side), cut(target, window, side)
    if pair.label == "OK":
        label, weight = np.zeros((side, side), np.uint8), np.ones((side, side), np.uint8)
    elif pair.mask is not None:
        label, weight = truth_of_mask(load_image(pair.mask, name=str(pair.mask)), window, side)
    else:
        label, weight = truth_of_boxes(golden, part, [box_map(box, window, side) for box in pair.boxes])
    for box in pair.ignore_boxes:
        counts = 1 - box_map(box, window, side)
        label, weight = label & counts, weight & counts
    # Boxes are laid down before, so a turn needs no arithmetic of its own.
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5

    def turned(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found = np.rot90(picture, turns)
        return np.ascontiguousarray(found[:, ::-1] if mirrored else found)

    golden, part, label, weight = turned(golden), turned(part), turned(label), turned(weight)
    if rng.random() < EXPOSED_SHARE:
        golden, part = expose(rng, golden), expose(rng, part)
    return TrainingPair(golden, part, label, weight)


def choose_window(rng: Generator, boxes: Sequence[Box], size: tuple[int, int], side: int) -> Window:
    """Where to cut an image of ``size`` (width, height) px: around one of the ``boxes`` most times, if there are any.

    An image smaller than ``side`` is enlarged, as much of it as is square. A box larger than the largest window
    surrounds it.
    """
    most = min(size)
    extent = min(most, round(side * MAX_REDUCTION ** float(rng.random())))
    if not boxes or rng.random() >= AIMED_SHARE:
        x, y = (int(rng.integers(0, length - extent + 1)) for length in size)
        return Window(x, y, extent)
    box = boxes[int(rng.integers(len(boxes)))]
    x1, y1, x2, y2 = int(box.x1), int(box.y1), int(np.ceil(box.x2)), int(np.ceil(box.y2))
    longest = max(x2 - x1, y2 - y1)
    extent = min(most, max(extent, min(longest, round(side * MAX_REDUCTION))))
    x = _around(rng, x1, x2, extent, size[0])
    y = _around(rng, y1, y2, extent, size[1])
    return Window(x, y, extent)


def _around(rng: Generator, low: int, high: int, extent: int, length: int) -> int:
    """Start of a stretch of ``extent`` within ``length`` that holds low..high, or lies within it where it is longer."""
    first, last = sorted((high - extent, low))
    return int(rng.integers(max(0, first), min(length - extent, last) + 1))


def cut(picture: Image, window: Window, side: int) -> Image:
    """The window of an HxWx3 uint8 picture, brought to ``side`` x ``side`` px."""
    part = picture[window.y : window.y + window.extent, window.x : window.x + window.extent]
    how = cv2.INTER_AREA if window.extent > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (side, side), interpolation=how), np.uint8)


def box_map(box: Box, window: Window, side: int) -> Mask:
    """``side`` x ``side`` uint8: 1 inside the box as far as the window shows it, and where it only touches a pixel."""
    scale = side / window.extent
    x1, y1 = (max(0, int(np.floor(v * scale))) for v in (box.x1 - window.x, box.y1 - window.y))
    x2, y2 = (max(0, int(np.ceil(v * scale))) for v in (box.x2 - window.x, box.y2 - window.y))
    inside = np.zeros((side, side), np.uint8)
    inside[y1:y2, x1:x2] = 1
    return inside


def truth_of_mask(mask: Image, window: Window, side: int) -> tuple[Mask, Mask]:
    """(label, weight) of a mask picture of the target's size: any non-zero pixel is a defect, and all places count.

    What the window leaves of a defect may be too small to demand; it does not count then, as with generated ones.
    """
    part = mask[window.y : window.y + window.extent, window.x : window.x + window.extent]
    marked = part.any(axis=2).astype(np.uint8) * np.uint8(255)
    how = cv2.INTER_AREA if window.extent > side else cv2.INTER_NEAREST
    label = (np.asarray(cv2.resize(marked, (side, side), interpolation=how)) > 0).astype(np.uint8)
    if int(label.sum()) < SMALLEST_DEFECT_PX:
        return np.zeros_like(label), 1 - label
    return label, np.ones_like(label)


def truth_of_boxes(golden: Image, part: Image, boxes: Sequence[Mask]) -> tuple[Mask, Mask]:
    """(label, weight) of defects known by boxes alone, given as maps of side x side uint8; why so: see the module."""
    inside = np.zeros(part.shape[:2], np.uint8)
    for box in boxes:
        inside |= box
    reach = 2 * BOX_MARGIN_PX + 1
    near = np.asarray(cv2.dilate(inside, np.ones((reach, reach), np.uint8)), np.uint8)
    change = unexplained_change(golden, part, near == 0)
    label, no_shape = np.zeros_like(inside), np.zeros_like(inside)
    for box in boxes:  # one by one, so that the change in one box makes no faint one in another count
        label |= label_of(change * box, no_shape)[0] & box
    weight = 1 - (inside | (near & (change > INVISIBLE)))
    return label, weight | label


def unexplained_change(golden: Image, part: Image, good: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Grey levels (side x side uint8) by which ``part`` differs beyond an even change of light and a pixel's motion.

    ``good``: side x side bool, True where the part is known to be good; there the light is compared. Photographs differ
    by both where parts do not, and along every edge that would pass for a visible change.
    """
    if good.any():
        lighter = np.median(part[good].astype(np.int16) - golden[good], axis=0)
        golden = np.clip(golden + lighter, 0, 255).astype(np.uint8)
    height, width = part.shape[:2]
    wide = np.asarray(cv2.copyMakeBorder(golden, 1, 1, 1, 1, cv2.BORDER_REPLICATE), np.uint8)
    least = np.full((height, width), 255, np.uint8)
    for y in range(3):
        for x in range(3):
            shifted = np.ascontiguousarray(wide[y : y + height, x : x + width])
            least = np.minimum(least, visible_change(shifted, part, None))
    return least
