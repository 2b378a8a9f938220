"""What a reference must be before it is stored: every refusal names the image, the value and what is allowed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import (
    DuplicateReferenceError,
    ImageFormatError,
    ImageQualityError,
    IncompatibleReferenceError,
    ReferenceStoreError,
    RegionError,
)
from differad_edge.images import Image, load_image, sha256_of_image
from differad_edge.references.records import Reference, Roi

__all__ = [
    "MIN_ROI_SIDE_PX",
    "MIN_STD_GREY_LEVELS",
    "NewReference",
    "check_ignore",
    "check_new",
    "check_roi",
    "check_sisters",
]

MIN_ROI_SIDE_PX = 16
MIN_STD_GREY_LEVELS = 2.0

_DEFAULT_SOURCE = "array"


@dataclass(frozen=True, slots=True)
class NewReference:
    """A reference that may be stored: ``image`` HxWx3 uint8 BGR, ``name`` in messages, ``pixels_sha256`` hex."""

    image: Image
    source: str
    name: str
    pixels_sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


def check_new(images: object, sources: Sequence[str] | None, *, one_size: bool) -> list[NewReference]:
    """Return the images of one registration, each checked by itself and against the others.

    ``one_size``: they must be of one size, for a region of interest or an ignore mask holds for all.

    Raises ReferenceStoreError (no image, sources of another number), ImageError (not an HxWx3 uint8 image, blank),
    IncompatibleReferenceError (different sizes), DuplicateReferenceError (the same pixels twice).
    """
    # An array is a sequence too: its rows would be taken for images.
    if not isinstance(images, (list, tuple)):
        raise ImageFormatError(f"images is a {type(images).__name__}; pass a list of arrays, one for each reference")
    if len(images) == 0:
        raise ReferenceStoreError("images is empty; a product needs at least one reference image")
    if sources is not None and (isinstance(sources, str) or len(sources) != len(images)):
        raise ReferenceStoreError(
            f"sources has {len(sources)} entries for {len(images)} images; pass one for each image"
        )
    checked: list[NewReference] = []
    for index, given in enumerate(images):
        source = _DEFAULT_SOURCE if sources is None else _storable_text(sources[index])
        name = f"reference {index + 1}" if sources is None else f"reference {index + 1} ({source})"
        image = load_image(given, name=name)
        _check_structure(image, name)
        checked.append(NewReference(image, source, name, sha256_of_image(image)))
    for index, new in enumerate(checked):
        for earlier in checked[:index]:
            _check_pair(new, earlier.name, earlier.size if one_size else None, earlier.pixels_sha256)
    return checked


def check_sisters(new: Sequence[NewReference], stored: Sequence[Reference]) -> None:
    """Raise IncompatibleReferenceError or DuplicateReferenceError where ``new`` does not go with what is stored."""
    one_size = any(reference.roi is not None or reference.ignore is not None for reference in stored)
    for reference in stored:
        size = (reference.image.shape[1], reference.image.shape[0]) if one_size else None
        pixels_sha256 = sha256_of_image(reference.image)
        for candidate in new:
            _check_pair(candidate, f"stored {reference.id} ({reference.source})", size, pixels_sha256)


def check_roi(roi: Sequence[int] | None, size: tuple[int, int]) -> Roi | None:
    """Return the region of interest as four ints; ``size`` is (width, height) in pixels.

    Raises RegionError unless it is (x1, y1, x2, y2) integers inside the image and at least 16 px a side.
    """
    if roi is None:
        return None
    width, height = size
    allowed = f"(x1, y1, x2, y2) with 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, x2 and y2 exclusive"
    try:
        values = [_exact_int(value) for value in roi]
    except TypeError as exc:
        raise RegionError(f"roi is {roi!r}; it must be four integers {allowed}") from exc
    if len(values) != 4:
        raise RegionError(f"roi is {roi!r}; it must be four integers {allowed}")
    x1, y1, x2, y2 = values
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise RegionError(f"roi ({x1}, {y1}, {x2}, {y2}) is empty, reversed or outside the image; it must be {allowed}")
    if min(x2 - x1, y2 - y1) < MIN_ROI_SIDE_PX:
        raise RegionError(
            f"roi ({x1}, {y1}, {x2}, {y2}) is {x2 - x1}x{y2 - y1} px; it must be at least {MIN_ROI_SIDE_PX} px a side"
        )
    return x1, y1, x2, y2


def check_ignore(ignore: object, size: tuple[int, int], roi: Roi | None) -> NDArray[np.bool_] | None:
    """Return the ignore mask as a new HxW bool array (True = not compared); ``size`` is (width, height) in pixels.

    Raises RegionError unless it is a bool or uint8 (not 0 = ignored) array of the image's size that leaves something to
    compare inside the ROI.
    """
    if ignore is None:
        return None
    width, height = size
    allowed = f"a bool or uint8 array of shape ({height}, {width})"
    if not isinstance(ignore, np.ndarray):
        raise RegionError(f"ignore is a {type(ignore).__name__}; it must be {allowed}")
    if ignore.dtype not in (np.dtype(np.bool_), np.dtype(np.uint8)):
        raise RegionError(f"ignore has dtype {ignore.dtype}; it must be {allowed}")
    if ignore.shape != (height, width):
        raise RegionError(f"ignore has shape {ignore.shape}; it must be {allowed}")
    mask: NDArray[np.bool_] = ignore.astype(np.bool_)
    x1, y1, x2, y2 = roi if roi is not None else (0, 0, width, height)
    if bool(mask[y1:y2, x1:x2].all()):
        where = "the whole image" if roi is None else f"all of roi {roi}"
        raise RegionError(f"ignore covers {where}; at least one pixel must be left to compare")
    return mask


def _check_pair(new: NewReference, other_name: str, other_size: tuple[int, int] | None, other_sha256: str) -> None:
    if other_size is not None and new.size != other_size:
        raise IncompatibleReferenceError(
            f"{new.name} is {new.size[0]}x{new.size[1]} px, {other_name} is {other_size[0]}x{other_size[1]} px; "
            "with a region of interest or an ignore mask all references of a product have one size"
        )
    if new.pixels_sha256 == other_sha256:
        raise DuplicateReferenceError(f"{new.name} has the same pixels as {other_name}; register each image once")


def _check_structure(image: Image, name: str) -> None:
    # By channel: a pattern may differ in colour and not in grey.
    deviation = float(np.max(cv2.meanStdDev(image)[1]))
    if deviation < MIN_STD_GREY_LEVELS:
        raise ImageQualityError(
            f"{name} is blank: its pixels deviate by {deviation:.2f} grey levels; at least {MIN_STD_GREY_LEVELS:g} are "
            "needed for a reference that parts can be compared with"
        )


def _exact_int(value: object) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError("a bool is no coordinate")
    return operator.index(value)  # type: ignore[arg-type]


def _storable_text(text: object) -> str:
    # A file name may hold bytes that are not UTF-8 (lone surrogates in Python); JSON cannot.
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")
