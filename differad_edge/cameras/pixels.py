"""What drivers deliver, as HxWx3 uint8 BGR, or refused as torn."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import TornFrameError
from differad_edge.images import Image

__all__ = ["as_bgr"]


def as_bgr(raw: NDArray[Any] | None, source: str) -> Image:
    """``raw``: HxWx3 uint8 BGR (returned as it is when C-contiguous), HxW or HxWx1 grey, HxWx4 BGRA or BGRX.

    ``source`` is how the message calls the camera. Raises TornFrameError for everything else.
    """
    if not isinstance(raw, np.ndarray):
        raise TornFrameError(f"camera {source!r}: the frame came without a picture")
    if raw.dtype != np.uint8 or raw.size == 0 or raw.ndim not in (2, 3):
        raise _torn(raw, source)
    if raw.ndim == 3 and raw.shape[2] == 3:
        return np.ascontiguousarray(raw)
    if raw.ndim == 2 or raw.shape[2] == 1:
        return np.asarray(cv2.cvtColor(raw, cv2.COLOR_GRAY2BGR), np.uint8)
    if raw.shape[2] == 4:  # a camera has no transparency: what stands there is padding
        return np.asarray(cv2.cvtColor(raw, cv2.COLOR_BGRA2BGR), np.uint8)
    raise _torn(raw, source)


def _torn(raw: NDArray[Any], source: str) -> TornFrameError:
    return TornFrameError(
        f"camera {source!r}: got a frame of shape {raw.shape} and dtype {raw.dtype}, "
        "allowed: uint8 of HxWx3 (BGR), HxW (grey) or HxWx4 (BGRA)"
    )
