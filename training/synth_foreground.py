"""Where the part is: a mask against a background of one colour, or the whole picture where there is none."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.images import Image

# All own guesses; the paper says that there is a foreground, not how it is found.
_SIDE_PX = 200  # the part's outline is needed to half a percent of the picture, no finer
_BORDER_SHARE = 0.02  # of the side: how wide a rim is looked at for the background's colour
_MIN_CONTRAST_LEVELS = 16  # between background and part: less is texture, shade or noise
_MIN_BACKGROUND_OF_BORDER = 0.75  # parts may be cut by the rim, but most of it shows the background
_MIN_SHARE, _MAX_SHARE = 0.02, 0.95  # of the picture: anything else is no part on a background


def foreground_mask(image: Image) -> NDArray[np.bool_]:
    """Which pixels of an HxWx3 uint8 BGR image show the part, HxW bool.

    The distance of each pixel's colour from the border's median colour is cut in two by Otsu's threshold (Otsu, 1979);
    holes are filled, since a part's inside may look like the background. All of the image where most of the border is
    not of one colour, or where hardly anything or nearly everything would be left.
    """
    height, width = image.shape[:2]
    shrink = min(1.0, _SIDE_PX / max(height, width))
    size = (max(8, round(width * shrink)), max(8, round(height * shrink)))
    small = cv2.medianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), 3)
    rim = np.ones(small.shape[:2], bool)
    thick = max(1, round(_BORDER_SHARE * max(size)))
    rim[thick:-thick, thick:-thick] = False
    ground = np.median(small[rim], axis=0)
    distance = np.abs(small.astype(np.float32) - ground).max(axis=2).astype(np.uint8)
    cut, _ = cv2.threshold(distance, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    part = distance > cut
    everywhere = np.ones((height, width), np.bool_)
    if not part.any() or (~part[rim]).mean() < _MIN_BACKGROUND_OF_BORDER:
        return everywhere
    if float(distance[part].mean()) - float(distance[~part].mean()) < _MIN_CONTRAST_LEVELS:
        return everywhere
    closed = cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(closed), outlines, -1, 1, cv2.FILLED)
    if not _MIN_SHARE <= filled.mean() <= _MAX_SHARE:
        return everywhere
    return np.asarray(cv2.resize(filled, (width, height), interpolation=cv2.INTER_NEAREST) > 0, dtype=np.bool_)
