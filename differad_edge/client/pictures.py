"""Pictures as they are sent: pixels without a copy, files byte by byte. Nothing is decoded here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import ImageDecodeError, ImageFormatError, ImageSizeError
from differad_edge.image_header import read_header
from differad_edge.runtime.wire import RAW

__all__ = ["Buffer", "Picture", "pack_picture"]

Picture: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[Any]"
"""A path, the bytes of an image file, or an array: HxWx3 uint8 BGR, HxW or HxWx1 grey, HxWx4 BGRA."""

Buffer: TypeAlias = bytes | memoryview


def pack_picture(picture: Picture, name: str = "image") -> tuple[dict[str, Any], Buffer]:
    """What the header says about a picture, and the buffer that follows; ``name`` is how messages call it.

    A C-contiguous array is not copied and must not change until the answer is there. Raises ImageFormatError,
    ImageSizeError, ImageDecodeError for what no server would take; sizes and content are the server's to judge.
    """
    if isinstance(picture, np.ndarray):
        return _pack_array(picture, name)
    if isinstance(picture, (str, os.PathLike)):
        path = Path(picture)
        name = f"{name} {str(path)!r}"
        try:
            picture = path.read_bytes()
        except (OSError, ValueError) as error:
            raise ImageDecodeError(f"{name}: cannot be read: {error}") from error
    if not isinstance(picture, (bytes, bytearray, memoryview)):
        raise ImageFormatError(
            f"{name}: got {type(picture).__name__}, allowed: a path, the bytes of an image file, or a numpy array"
        )
    data = bytes(picture)
    return {"encoding": read_header(data, name).format.lower()}, data


def _pack_array(array: NDArray[Any], name: str) -> tuple[dict[str, Any], Buffer]:
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise ImageFormatError(f"{name}: got an array of dtype {array.dtype}, allowed: uint8")
    if array.ndim not in (2, 3):
        raise ImageFormatError(f"{name}: got an array of shape {array.shape}, allowed: (H, W) or (H, W, channels)")
    if not array.size:
        raise ImageSizeError(f"{name}: got an empty array of shape {array.shape}")
    head = {"encoding": RAW, "shape": list(array.shape), "dtype": "uint8"}
    return head, np.ascontiguousarray(array).data.cast("B")
