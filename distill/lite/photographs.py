"""Photographs and textures with clear licences, as the training's natural scenes.

They come inside the scikit-image wheel; its `data/README.txt` names author and licence of each. Used here are only
those in the public domain, CC0 or without known copyright restrictions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

#: name in skimage.data -> licence as stated there.
PHOTOGRAPHS: dict[str, str] = {
    "astronaut": "NASA, public domain",
    "brick": "CC0 (CC0Textures)",
    "camera": "CC0 (L. Lacroix)",
    "cat": "CC0 (S. van der Walt)",
    "cell": "CC0 (P. Felgner et al.)",
    "coffee": "CC0 (R. Michel)",
    "coins": "no known copyright restrictions (Brooklyn Museum)",
    "grass": "CC0 (linolafett)",
    "gravel": "CC0 (CC0Textures)",
    "hubble_deep_field": "NASA, public domain",
    "moon": "NASA, public domain",
    "rocket": "CC0 (SpaceX)",
}


@cache
def photographs() -> tuple[NDArray[np.uint8], ...]:
    """Every photograph as HxWx3 uint8 BGR. One that this installation lacks is left out; at least one must be there."""
    from skimage import data

    found = []
    for name in PHOTOGRAPHS:
        try:
            picture = np.asarray(getattr(data, name)())
        except (AttributeError, ModuleNotFoundError, OSError, ValueError):  # fetched on demand, and no network here
            continue
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, -1)
        found.append(np.ascontiguousarray(picture[..., 2::-1].astype(np.uint8)))
    if not found:
        raise RuntimeError("scikit-image ships none of its sample photographs here; install a wheel that does")
    return tuple(found)
