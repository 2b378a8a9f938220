"""Painting over what does not count, before anything that looks at a place sees its surroundings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from differad_edge.images import Image

__all__ = ["covered"]

_SAMPLED_PX = 20_000  # of the picture, for its usual colour


def covered(image: Image, ignore: NDArray[np.bool_] | None) -> Image:
    """The picture with its usual colour where ``ignore`` (HxW bool) is True.

    As it is where there is nothing to cover, nothing else to see, or the mask is of another size.
    """
    if ignore is None or ignore.shape != image.shape[:2] or ignore.all():
        return image
    painted: Image = image.copy()
    painted[ignore] = np.median(image[~ignore][:: max(1, (~ignore).sum() // _SAMPLED_PX)], axis=0)
    return painted
