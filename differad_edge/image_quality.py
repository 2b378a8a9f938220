"""Whether a frame shows anything: exposure, contrast and focus, measured in well under a millisecond."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageQuality", "frame_fault", "measure_quality"]

_SAMPLE_PIXELS = 250_000
_DARK_LEVEL, _SATURATED_LEVEL = 10, 250  # grey levels of 255

_BLANK_STD = 3.0  # below what the noise of a lit sensor and any edge give
_BLANK_APART = 20.0  # grey levels; more than exposure drifts
_INFORMATIVE_STD = 25.0  # a reference that nearly is blank itself cannot accuse a blank target
_COVERED_SHARE = 0.98
_ROOM_SHARE = 0.8  # a reference this dark or bright already may have a part that is wholly so
_MIN_REFERENCE_SHARPNESS = 20.0
_BLUR_RATIO = 0.08  # of 1,275 real pairs none falls below; nine in ten do when blurred by 1 % of their side
_BLUR_KEEPS_CONTRAST = 0.6
_MUCH_BLUR = 0.05  # of 267 real pairs none falls below 0.096, defects included


@dataclass(frozen=True)
class ImageQuality:
    """Measured on grey levels 0 to 255 of at most a quarter of a megapixel, taken evenly from the image.

    ``mean``, ``std``: grey levels; ``dark_share``, ``saturated_share``: 0 to 1, share of pixels at or below 10, at or
    above 250; ``sharpness``: variance of the Laplacian, comparable between images of one size only.
    """

    mean: float
    std: float
    dark_share: float
    saturated_share: float
    sharpness: float


def measure_quality(image: NDArray[np.uint8]) -> ImageQuality:
    """Measure an HxWx3 uint8 BGR image of at least 3x3 pixels."""
    height, width = image.shape[:2]
    step = max(1, math.ceil(math.sqrt(height * width / _SAMPLE_PIXELS)))
    # Nearest, not averaging: averaging would hide both clipped pixels and blur.
    sample = (
        image
        if step == 1
        else cv2.resize(image, (width // step or 1, height // step or 1), interpolation=cv2.INTER_NEAREST)
    )
    grey = cv2.cvtColor(sample, cv2.COLOR_BGR2GRAY)
    mean, std = cv2.meanStdDev(grey)
    # The Laplacian's mean is zero up to the borders, so its mean square is its variance, at a tenth of the cost.
    laplacian_norm = cv2.norm(cv2.Laplacian(grey, cv2.CV_16S), cv2.NORM_L2)
    return ImageQuality(
        mean=float(mean[0, 0]),
        std=float(std[0, 0]),
        dark_share=float(np.count_nonzero(grey <= _DARK_LEVEL)) / grey.size,
        saturated_share=float(np.count_nonzero(grey >= _SATURATED_LEVEL)) / grey.size,
        sharpness=laplacian_norm**2 / grey.size,
    )


def frame_fault(quality: ImageQuality, reference: ImageQuality | None) -> str | None:
    """A sentence when a frame shows nothing where its reference does, None when it can be compared.

    An all-white target of an all-white reference is no fault. Without a reference, a black, saturated or blank frame is
    one; blur is then not judged, because nothing says how sharp the product is.
    """
    if quality.dark_share >= _COVERED_SHARE and (reference is None or reference.dark_share <= _ROOM_SHARE):
        return f"black: {quality.dark_share:.0%} of the frame is dark{_against(reference, 'dark_share')}"
    if quality.saturated_share >= _COVERED_SHARE and (reference is None or reference.saturated_share <= _ROOM_SHARE):
        return (
            f"saturated: {quality.saturated_share:.0%} of the frame is at full brightness"
            f"{_against(reference, 'saturated_share')}"
        )
    if quality.std < _BLANK_STD and (reference is None or reference.std >= _INFORMATIVE_STD):
        return f"blank: the frame's contrast is {quality.std:.1f} grey levels" + (
            "" if reference is None else f", its reference's {reference.std:.1f}"
        )
    if reference is not None and max(quality.std, reference.std) < _BLANK_STD:
        # Between two blank pictures nothing tells a change of light from another part.
        apart = abs(quality.mean - reference.mean)
        if apart > _BLANK_APART:
            return f"blank: the frame's brightness is {apart:.0f} grey levels from its equally blank reference's"
    if reference is not None and _is_blurred(quality, reference):
        return (
            f"blurred: the frame's sharpness is {quality.sharpness:.1f}, "
            f"{quality.sharpness / reference.sharpness:.1%} of its reference's {reference.sharpness:.1f}"
        )
    return None


def _against(reference: ImageQuality | None, share: str) -> str:
    return "" if reference is None else f", {getattr(reference, share):.0%} of its reference"


def _is_blurred(quality: ImageQuality, reference: ImageQuality) -> bool:
    if reference.sharpness < _MIN_REFERENCE_SHARPNESS or quality.sharpness >= _BLUR_RATIO * reference.sharpness:
        return False
    # A missing part takes edges away too, but its contrast goes with them; a little blur leaves the contrast where it
    # was. Much blur takes contrast as well, but far more of the edges: these fall with the square of the contrast.
    contrast = quality.std / max(reference.std, 1e-6)
    return contrast >= _BLUR_KEEPS_CONTRAST or quality.sharpness < _MUCH_BLUR * contrast**2 * reference.sharpness
