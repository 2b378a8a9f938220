"""From the mask of a defect to its boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import DatasetError
from differad_edge.geometry import tight_box
from differad_edge.images import load_image
from differad_edge.results import Box

MERGE_GAP_PX = 8
"""Pieces with at most so many free pixels between them are one defect [own choice]: annotators' strokes leave gaps."""
_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
_LOSSY_LEVEL = 128


def read_mask(file: Path) -> NDArray[np.uint8]:
    """The mask at ``file`` as HxW uint8, its highest channel; 0 is no defect.

    Lossless files keep their values (sets number their defect types with them); of lossy ones, whose noise is no
    annotation, values below 128 count as 0. Raises ImageError.
    """
    mask: NDArray[np.uint8] = load_image(file, name=str(file)).max(axis=2)
    if file.suffix.lower() in _LOSSY_SUFFIXES:
        mask = np.where(mask >= _LOSSY_LEVEL, mask, 0).astype(np.uint8)
    return mask


def union_mask(
    files: Sequence[Path], width_px: int, height_px: int, value_names: Mapping[int, str]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Where any of the masks is not zero, HxW bool, and the names of the values that occur, each once.

    Raises ImageError for a file that cannot be read, DatasetError for one of another size than ``width_px`` x
    ``height_px``, its image's, and for a value without a name where values have names.
    """
    union = np.zeros((height_px, width_px), np.bool_)
    names: dict[str, None] = {}
    for file in files:
        mask = read_mask(file)
        if mask.shape != union.shape:
            got = f"{mask.shape[1]}x{mask.shape[0]} px"
            raise DatasetError(
                f"{file}: got a mask of {got}, allowed: the size of its image, {width_px}x{height_px} px"
            )
        union |= mask > 0
        for value in np.unique(mask[mask > 0]).tolist() if value_names else ():
            if value not in value_names:
                raise DatasetError(f"{file}: got the pixel value {value}, allowed: 0, {sorted(value_names)}")
            names[value_names[value]] = None
    return union, list(names)


def boxes_of(mask: NDArray[np.bool_], gap_px: int = MERGE_GAP_PX) -> tuple[Box, ...]:
    """Tight boxes, in pixels, around the pieces of an HxW bool mask, in reading order; none for an empty mask.

    Pieces with at most ``gap_px`` free pixels between them, along both axes, get one box; with 0, those that touch,
    also at a corner.
    """
    # Squares of this side around two pixels touch exactly when no more than gap_px pixels lie between these.
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((gap_px + 1, gap_px + 1), np.uint8))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
    found = []
    for label, (x, y, width, height, _) in enumerate(statistics.tolist()):
        part = np.s_[y : y + height, x : x + width]
        box = tight_box(mask[part] & (labels[part] == label)) if label else None
        if box is not None:
            found.append(Box(x + box.x1, y + box.y1, x + box.x2, y + box.y2))
    return tuple(sorted(found, key=lambda box: (box.y1, box.x1)))
