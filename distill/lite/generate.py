"""Generated training pairs: golden sample, part, and where they really differ."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from distill.lite.defects import plant
from distill.lite.nuisances import Binarisation, binarise, displacement, expose
from distill.lite.scenes import Image, scene

#: Grey levels. Below the first a change cannot be seen; above the last it must be found however small it is, above the
#: second where it covers at least FAINT_AREA_PX; what lies between does not count.
INVISIBLE, FAINT, VISIBLE = 7, 12, 20
FAINT_AREA_PX = 60
#: A pixel this close to the cut, in grey levels, may fall on either side of it.
UNDECIDED_GREY = 40
GOOD_SHARE = 0.25
BINARISED_SHARE = 0.3


class TrainingPair(NamedTuple):
    """Images side x side x 3 uint8 BGR; label and weight side x side uint8 (1 = defect; 0 = label does not count)."""

    reference: Image
    target: Image
    label: NDArray[np.uint8]
    weight: NDArray[np.uint8]


def _largest_channel(a: Image, b: Image) -> NDArray[np.uint8]:
    blue, green, red = cv2.split(cv2.absdiff(a, b))
    return np.asarray(cv2.max(cv2.max(blue, green), red), np.uint8)


def _label(difference: NDArray[np.uint8], shape: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(label, weight) of one defect from the change it made and the shape it was drawn with.

    A defect that changed most of its shape is labelled whole, holes included; one that changed scattered places only
    where it changed them.
    """
    visible = (difference > FAINT).astype(np.uint8)
    if int(visible.sum()) < FAINT_AREA_PX:
        visible = (difference > VISIBLE).astype(np.uint8)
    closed = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    area = int(shape.sum())
    if area and (visible & shape).sum() > 0.4 * area:
        closed |= shape
    doubtful = (difference > INVISIBLE).astype(np.uint8) & (1 - closed)
    if int(visible.sum()) < 6:  # too small to demand, too real to deny
        doubtful |= closed
        closed = np.zeros_like(closed)
    return closed, 1 - doubtful


def training_pair(rng: Generator, side: int) -> TrainingPair:
    golden = scene(rng, side)
    cut: Binarisation | None = None
    if rng.random() < BINARISED_SHARE:
        grey = cv2.cvtColor(golden, cv2.COLOR_BGR2GRAY)
        low, high = np.percentile(grey, [5, 95])
        level = float((low + high) / 2 + rng.uniform(-0.15, 0.15) * (high - low))
        two_tone = (grey > level).astype(np.uint8)
        outline = two_tone != cv2.erode(two_tone, np.ones((3, 3), np.uint8))
        either = np.abs(grey.astype(np.float32) - level) < UNDECIDED_GREY
        # A picture that turns into pepper is nobody's two-tone product.
        if high - low > 40 and outline.mean() < 0.2 and either.mean() < 0.1:
            cut = Binarisation(level, float(rng.uniform(0, 25)))
    part, label, weight = golden, np.zeros((side, side), np.uint8), np.ones((side, side), np.uint8)
    defects = 0 if rng.random() < GOOD_SHARE else int(rng.choice([1, 2, 3, 5], p=[0.5, 0.25, 0.15, 0.1]))
    for _ in range(defects):
        planted = plant(rng, part)
        if cut is None:
            difference = _largest_channel(planted.image, part)
        else:  # what stays visible once the camera has made it two-tone
            before, after = (cv2.cvtColor(i, cv2.COLOR_BGR2GRAY) > cut.level for i in (part, planted.image))
            difference = (before != after).astype(np.uint8) * 255
            difference = cv2.morphologyEx(difference, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
        found, counts = _label(difference, planted.shape)
        part, label, weight = planted.image, label | found, weight & (counts | label)
    if rng.random() < 0.3:  # what one picture has too much the other lacks
        golden, part = part, golden
    map_x, map_y = displacement(rng, side)
    part = cv2.remap(part, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    label = cv2.remap(label, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    weight = cv2.remap(weight, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    if cut is not None:
        return TrainingPair(binarise(rng, golden, cut), binarise(rng, part, cut), label, weight)
    return TrainingPair(expose(rng, golden), expose(rng, part), label, weight)
