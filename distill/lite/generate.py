"""Generated training pairs: golden sample, part, and where they really differ."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from distill.lite.defects import Mask, plant
from distill.lite.nuisances import Binarisation, binarise, displacement, expose
from distill.lite.scenes import Image, scene

#: Grey levels. Below the first a change cannot be seen; above the last it must be found however small it is, above the
#: second where it covers at least FAINT_AREA_PX; what lies between does not count.
INVISIBLE, FAINT, VISIBLE = 7, 12, 20
FAINT_AREA_PX = 60
#: A change of fewer visible pixels is too small to demand and too real to deny: it does not count.
SMALLEST_DEFECT_PX = 6
#: A defect that visibly changed more than this share of its shape is labelled whole.
WHOLE_SHARE = 0.4
#: A pixel this close to the cut, in grey levels, may fall on either side of it.
UNDECIDED_GREY = 40
#: Shares of all pairs: planted with nothing, and looked at with a two-tone camera (where the picture suits one).
GOOD_SHARE = 0.25
BINARISED_SHARE = 0.3
#: Share of pairs whose two pictures change places: what one has too much the other lacks.
EXCHANGED_SHARE = 0.3


class PlantedPair(NamedTuple):
    """A pair before the nuisances: four maps of one frame, and how a two-tone camera cuts it, None for a colour camera.

    Images side x side x 3 uint8 BGR; label and weight as in :class:`TrainingPair`.
    """

    golden: Image
    part: Image
    label: Mask
    weight: Mask
    cut: Binarisation | None


class TrainingPair(NamedTuple):
    """What the two cameras' pictures show, and the truth in the target's frame.

    Images side x side x 3 uint8 BGR. Label: side x side uint8, 1 = defect. Weight: side x side uint8, 0 = the label
    there does not count.
    """

    reference: Image
    target: Image
    label: Mask
    weight: Mask


def training_pair(rng: Generator, side: int) -> TrainingPair:
    """Draw one pair of `side` x `side` px; all that it shows follows from `rng`."""
    return observe(rng, planted_pair(rng, side))


def planted_pair(rng: Generator, side: int) -> PlantedPair:
    """A golden sample and a part that differ by nothing but the planted defects, in the same frame and light."""
    golden = scene(rng, side)
    cut = _two_tone_camera(rng, golden) if rng.random() < BINARISED_SHARE else None
    part, label, weight = golden, np.zeros((side, side), np.uint8), np.ones((side, side), np.uint8)
    defects = 0 if rng.random() < GOOD_SHARE else int(rng.choice([1, 2, 3, 5], p=[0.5, 0.25, 0.15, 0.1]))
    for _ in range(defects):
        planted = plant(rng, part)
        found, counts = label_of(visible_change(part, planted.image, cut), planted.shape)
        part, label, weight = planted.image, label | found, weight & (counts | label)
    if rng.random() < EXCHANGED_SHARE:
        golden, part = part, golden
    return PlantedPair(golden, part, label, weight, cut)


def observe(rng: Generator, pair: PlantedPair) -> TrainingPair:
    """Move the part as alignment may leave it, the truth with it, and take both pictures under their own conditions."""
    map_x, map_y = displacement(rng, pair.part.shape[0])

    def moved(picture: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
        found = cv2.remap(picture, map_x, map_y, interpolation, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(found, np.uint8)

    part = moved(pair.part, cv2.INTER_LINEAR)
    label, weight = (moved(truth, cv2.INTER_NEAREST) for truth in (pair.label, pair.weight))
    if pair.cut is not None:
        return TrainingPair(binarise(rng, pair.golden, pair.cut), binarise(rng, part, pair.cut), label, weight)
    return TrainingPair(expose(rng, pair.golden), expose(rng, part), label, weight)


def visible_change(before: Image, after: Image, cut: Binarisation | None) -> NDArray[np.uint8]:
    """Grey levels (side x side uint8) by which a camera sees two pictures of one frame differ.

    In colour the largest channel counts. A two-tone camera sees all (255) or nothing (0), and no line of one pixel.
    """
    if cut is None:
        blue, green, red = cv2.split(cv2.absdiff(before, after))
        return np.asarray(cv2.max(cv2.max(blue, green), red), np.uint8)
    was_light, is_light = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) > cut.level for image in (before, after))
    # The even kernel shifts what it keeps by one pixel: half a cell of the heat map.
    flipped = (was_light != is_light).astype(np.uint8) * 255
    return np.asarray(cv2.morphologyEx(flipped, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)), np.uint8)


def _two_tone_camera(rng: Generator, golden: Image) -> Binarisation | None:
    """A cut between the picture's dark and light parts; None for a picture that would turn into pepper.

    Nobody inspects such a product in two tones: too little contrast, outlines everywhere, or much of it near the cut.
    """
    grey = cv2.cvtColor(golden, cv2.COLOR_BGR2GRAY)
    low, high = np.percentile(grey, [5, 95])
    level = float((low + high) / 2 + rng.uniform(-0.15, 0.15) * (high - low))
    two_tone = (grey > level).astype(np.uint8)
    outline = two_tone != cv2.erode(two_tone, np.ones((3, 3), np.uint8))
    either = np.abs(grey.astype(np.float32) - level) < UNDECIDED_GREY
    if high - low > 40 and outline.mean() < 0.2 and either.mean() < 0.1:
        return Binarisation(level, float(rng.uniform(0, 25)))
    return None


def label_of(difference: NDArray[np.uint8], shape: Mask) -> tuple[Mask, Mask]:
    """(label, weight) of one defect from the change it made, in grey levels, and the shape (0 or 1) it was drawn with.

    A defect that changed enough of its shape is labelled whole, holes included; one that changed scattered places only
    where it changed them.
    """
    visible = (difference > FAINT).astype(np.uint8)
    if int(visible.sum()) < FAINT_AREA_PX:
        visible = (difference > VISIBLE).astype(np.uint8)
    closed = np.asarray(cv2.morphologyEx(visible, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.uint8)
    area = int(shape.sum())
    if area and int((visible & shape).sum()) > WHOLE_SHARE * area:
        closed = closed | shape
    doubtful = (difference > INVISIBLE).astype(np.uint8) & (1 - closed)
    if int(visible.sum()) < SMALLEST_DEFECT_PX:
        doubtful, closed = doubtful | closed, np.zeros_like(closed)
    return closed, 1 - doubtful
