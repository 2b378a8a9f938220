"""bfloat16 for NumPy, which has no such type: the upper half of a float32, held in a uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["to_bfloat16", "to_float32"]


def to_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """float16, float32, or bfloat16 in a uint16, as float32."""
    if array.dtype == np.uint16:
        return np.asarray((array.astype(np.uint32) << 16).view(np.float32))
    return np.asarray(array, np.float32)


def to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Numbers that bfloat16 can hold, as uint16; of others the lower half is cut off."""
    return np.asarray(np.ascontiguousarray(array).view(np.uint32) >> 16, np.uint16)
