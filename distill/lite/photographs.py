"""Photographs and textures with clear licences, as the training's natural scenes.

They come inside the scikit-image wheel, whose functions' documentation states author and licence of each.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

#: name in skimage.data -> author and licence as its documentation states them. The order is part of the recipe.
PHOTOGRAPHS: dict[str, str] = {
    "astronaut": "NASA, public domain",
    "brick": "CC0Textures, CC0",
    "camera": "Lav Varshney, CC0",
    "cat": "Stefan van der Walt, CC0",
    "cell": "Paul Müller et al., CC0",
    "coffee": "Rachel Michetti, CC0",
    "coins": "Brooklyn Museum, no known copyright restrictions",
    "grass": "linolafett (DeviantArt), CC0",
    "gravel": "CC0Textures, CC0",
    "hubble_deep_field": "NASA, public domain",
    "moon": "author and licence not stated; by its policy scikit-image takes CC0 and public domain only",
    "rocket": "SpaceX, public domain",
}


@cache
def photographs() -> tuple[NDArray[np.uint8], ...]:
    """Every photograph of PHOTOGRAPHS in that order, HxWx3 uint8 BGR.

    Raises RuntimeError when this installation lacks one: with fewer, the same seed would give other pairs.
    """
    from skimage import data

    found = []
    for name in PHOTOGRAPHS:
        try:
            picture = np.asarray(getattr(data, name)())
        except (AttributeError, ModuleNotFoundError, OSError, ValueError) as error:
            raise RuntimeError(f"skimage.data.{name}: not in this installation of scikit-image: {error}") from error
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, -1)
        found.append(np.ascontiguousarray(picture[..., 2::-1].astype(np.uint8)))
    return tuple(found)
