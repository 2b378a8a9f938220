"""COCO-Inpainted as it is published, read into pairs.

The data set of "The Change You Want to See" (Sachdeva and Zisserman, WACV 2023), which DifferAD-R1 takes its natural
pairs from. Layout of each split (``train``, ``test/small``, ``test/medium``, ``test/large``) as its authors' README
states it::

    images_and_masks/<index>.png             the COCO image
    images_and_masks/<index>_mask<id>.png    where objects were removed
    inpainted/<index>_mask<id>.png           the image without them, for the mask of the same name
    metadata/<index>.npy, data_split.pkl, list_of_indices.npy

``<id>`` names which of the image's objects were removed, as their loader reads it, and may be empty (all of them).

Assumed here, since the files were not at hand: a mask is non-zero where something was removed; sizes may differ by the
rounding of the inpainting network, and are brought to those of the COCO image; outside the mask the two agree. The
metadata is not read: it is pickled, and what it says of the boxes follows from the masks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import DatasetError
from differad_edge.geometry import tight_box
from differad_edge.images import Image, load_image
from training.synth import SynthPair

IMAGES_AND_MASKS, INPAINTED = "images_and_masks", "inpainted"
MAX_ASPECT_CHANGE = 0.05
"""Of width to height between image and inpainted image: more is no rounding, but another image [own guess]."""
_NAME = re.compile(r"(?P<index>\d+)_mask\w*\.png")


@dataclass(frozen=True)
class InpaintedFiles:
    """One pair's files, as paths relative to the split's folder."""

    image: str
    mask: str
    inpainted: str


def list_inpainted(split: Path) -> tuple[InpaintedFiles, ...]:
    """The pairs of a split, sorted by name.

    Raises DatasetError when the folder has not the layout above.
    """
    for name in (IMAGES_AND_MASKS, INPAINTED):
        if not (split / name).is_dir():
            raise DatasetError(
                f"SPLIT: got {split}, which has no folder {name}; allowed: a split of COCO-Inpainted, such as train"
            )
    found = []
    for path in sorted((split / INPAINTED).iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            image = f"{IMAGES_AND_MASKS}/{match['index']}.png"
            found.append(InpaintedFiles(image, f"{IMAGES_AND_MASKS}/{path.name}", f"{INPAINTED}/{path.name}"))
    if not found:
        raise DatasetError(f"SPLIT: got {split}, where {INPAINTED} holds no <index>_mask<id>.png")
    return tuple(found)


def read_inpainted(split: Path, files: InpaintedFiles, *, reverse: bool, size_px: int | None) -> SynthPair:
    """The pair: image and inpainted image, or with ``reverse`` the other way round; box around all that was removed.

    ``size_px``: stretch to this side, None: the size of the COCO image.

    Raises ImageError for a file that cannot be read, DatasetError for an empty mask or one of another shape.
    """
    image = load_image(split / files.image)
    changed = load_image(split / files.inpainted)
    removed = load_image(split / files.mask)
    height, width = image.shape[:2]
    for name, other in ((files.inpainted, changed), (files.mask, removed)):
        aspect = (other.shape[1] / other.shape[0]) / (width / height)
        if abs(aspect - 1) > MAX_ASPECT_CHANGE:
            got = f"{other.shape[1]}x{other.shape[0]} px"
            raise DatasetError(f"{split / name}: got {got}, allowed: the shape of {files.image}, {width}x{height} px")
    size = (width, height) if size_px is None else (size_px, size_px)
    mask: NDArray[np.bool_] = _resized(removed, size, cv2.INTER_NEAREST).max(axis=2) > 0
    box = tight_box(mask)
    if box is None:
        raise DatasetError(f"{split / files.mask}: got an empty mask, allowed: non-zero where something was removed")
    reference, target = _resized(image, size, cv2.INTER_AREA), _resized(changed, size, cv2.INTER_AREA)
    return SynthPair(target, reference, mask, box) if reverse else SynthPair(reference, target, mask, box)


def _resized(image: Image, size: tuple[int, int], method: int) -> Image:
    if (image.shape[1], image.shape[0]) == size:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)
