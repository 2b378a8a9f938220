"""Images in: decode, validate, and bring to HxWx3 uint8 BGR. Whatever is doubtful is refused by name, never guessed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import ImageDecodeError, ImageFormatError, ImageSizeError
from differad_edge.image_header import ImageHeader, read_header
from differad_edge.image_quality import ImageQuality, frame_fault, measure_quality

__all__ = [
    "DEFAULT_LIMITS",
    "Image",
    "ImageLimits",
    "ImageQuality",
    "ImageSource",
    "frame_fault",
    "load_image",
    "measure_quality",
    "sha256_of_image",
    "to_8bit",
]

Image: TypeAlias = NDArray[np.uint8]
"""HxWx3 uint8, channels blue, green, red, C-contiguous."""

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[Any]"
"""A path, the bytes of an image file, or an array."""

_OPAQUE = 255


@dataclass(frozen=True)
class ImageLimits:
    """What is too small or too large: sides and area in pixels, the encoded file in bytes."""

    min_side_px: int = 16
    max_side_px: int = 16384
    max_pixels: int = 64_000_000
    max_file_bytes: int = 512_000_000

    def check(self, width: int, height: int, name: str) -> None:
        """Raise ImageSizeError unless ``width`` x ``height`` pixels are within the limits."""
        if width <= 0 or height <= 0:
            raise ImageSizeError(f"{name}: got an empty image of {width}x{height} px")
        if min(width, height) < self.min_side_px:
            raise ImageSizeError(f"{name}: got {width}x{height} px, allowed: sides of at least {self.min_side_px} px")
        if max(width, height) > self.max_side_px:
            raise ImageSizeError(f"{name}: got {width}x{height} px, allowed: sides of at most {self.max_side_px} px")
        if width * height > self.max_pixels:
            raise ImageSizeError(f"{name}: got {width}x{height} px, allowed: at most {self.max_pixels} pixels")


DEFAULT_LIMITS = ImageLimits()


def load_image(source: ImageSource, *, name: str = "image", limits: ImageLimits = DEFAULT_LIMITS) -> Image:
    """Bring ``source`` to HxWx3 uint8 BGR, C-contiguous; ``name`` is how messages call it.

    Files and bytes: PNG, JPEG, BMP, TIFF, WebP with 8 bits per channel; EXIF orientation is applied; the size is
    checked in the header before anything is decoded. Arrays: uint8 of HxWx3 (taken as BGR), HxW or HxWx1 (grey), or
    HxWx4 (BGRA). An alpha channel is dropped when it is fully opaque and refused otherwise. A uint8 HxWx3 array that is
    C-contiguous is returned as it is, without a copy; every other input gives a new array.

    Raises ImageDecodeError (missing, truncated, no image), ImageFormatError (dtype, depth, channels, shape, mosaic,
    animation), ImageSizeError (empty, too small, too large).
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name, limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), name, limits)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return _from_bytes(_read_file(path, name, limits), f"{name} {str(path)!r}", limits)
    raise ImageFormatError(
        f"{name}: got {type(source).__module__}.{type(source).__qualname__}, "
        "allowed: a path, the bytes of an image file, or a numpy array (HxWx3 uint8 BGR)"
    )


def to_8bit(array: NDArray[np.uint16], *, bits: int) -> NDArray[np.uint8]:
    """Scale an array of ``bits`` significant bits (9 to 16) linearly to uint8; the shape stays.

    0 stays 0 and 2**bits - 1 becomes 255. Raises ImageFormatError for another dtype or for values beyond ``bits``.
    """
    if array.dtype != np.uint16:
        raise ImageFormatError(f"to_8bit: got {array.dtype}, allowed: uint16")
    if isinstance(bits, bool) or not isinstance(bits, int) or not 9 <= bits <= 16:
        raise ImageFormatError(f"to_8bit: bits: got {bits!r}, allowed: 9 to 16")
    top = (1 << bits) - 1
    highest = int(array.max(initial=0))
    if highest > top:
        raise ImageFormatError(f"to_8bit: got a value of {highest}, allowed: at most {top} with bits={bits}")
    # A table costs 64 kB and spares a wide intermediate array.
    table = ((np.arange(top + 1, dtype=np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    result: NDArray[np.uint8] = table[array]
    return result


def sha256_of_image(image: Image) -> str:
    """SHA-256 hex over the shape and the pixels of an HxWx3 uint8 image; equal images give equal hashes."""
    digest = hashlib.sha256(f"{'x'.join(map(str, image.shape))}:uint8:".encode("ascii"))
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


# -- arrays -----------------------------------------------------------------------------------------------------------


def _from_array(array: NDArray[Any], name: str, limits: ImageLimits) -> Image:
    array = np.asarray(array)  # a subclass (masked, matrix) would carry its own arithmetic along
    _check_shape(array.shape, name)
    limits.check(array.shape[1], array.shape[0], name)
    _check_dtype(array, name)
    if array.ndim == 2 or array.shape[2] == 1:
        grey = np.ascontiguousarray(array.reshape(array.shape[:2]), dtype=np.uint8)
        _refuse_mosaic(grey, name)
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if array.shape[2] == 4:
        return _drop_alpha(array, name)
    return np.ascontiguousarray(array, dtype=np.uint8)


def _check_shape(shape: Sequence[int], name: str) -> None:
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)):
        return
    hint = "; move the channels to the end" if len(shape) == 3 and shape[0] in (1, 3, 4) else ""
    raise ImageFormatError(
        f"{name}: got an array of shape {tuple(shape)}, allowed: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}"
    )


def _check_dtype(array: NDArray[Any], name: str) -> None:
    if array.dtype == np.uint8:
        return
    hint = ""
    if array.dtype == np.uint16:
        hint = "; scale it first with differad_edge.images.to_8bit(array, bits=...)"
    elif array.dtype.kind == "f":
        unusable = "NaN or infinite values; " if not np.isfinite(array).all() else ""
        hint = f"; {unusable}scale it to 0..255 and convert it with .astype(numpy.uint8)"
    elif array.dtype.kind == "b":
        hint = "; a mask is no image"
    raise ImageFormatError(f"{name}: got an array of dtype {array.dtype}, allowed: uint8{hint}")


def _drop_alpha(array: NDArray[Any], name: str) -> Image:
    least = int(array[:, :, 3].min())
    if least != _OPAQUE:
        raise ImageFormatError(
            f"{name}: got an alpha channel with values down to {least}, allowed: fully opaque ({_OPAQUE}); "
            "what lies behind the image is not known, so blend it first"
        )
    return np.ascontiguousarray(array[:, :, :3], dtype=np.uint8)


def _refuse_mosaic(grey: NDArray[np.uint8], name: str) -> None:
    """Refuse a raw Bayer frame that was handed over as grey.

    Along a row its pixels alternate between two colours, over long stretches in the same sense. The second difference
    at even columns shows that; for slopes it is zero, and for edges, texture and noise its sign keeps changing.
    """
    rows = grey[:: max(1, grey.shape[0] // 64), : grey.shape[1] // 2 * 2].astype(np.int16)
    if np.isin(rows, (0, 255)).all():
        return  # black and white: dithered grey alternates as well, and no sensor gives only these two
    even, odd = rows[:, 0::2], rows[:, 1::2]
    alternation = even[:, :-1] - 2 * odd[:, :-1] + even[:, 1:]
    strong = np.abs(alternation) >= _MOSAIC_MIN_STEP
    if strong.mean() < _MOSAIC_MIN_SHARE:
        return
    both_strong = strong[:, :-1] & strong[:, 1:]
    same_sense = (alternation[:, :-1] > 0) == (alternation[:, 1:] > 0)
    if np.count_nonzero(both_strong & same_sense) >= _MOSAIC_MIN_AGREEMENT * np.count_nonzero(both_strong):
        raise ImageFormatError(
            f"{name}: got a grey image that alternates from pixel to pixel like a raw Bayer mosaic, "
            "allowed: grey or BGR; demosaic it first (for example cv2.cvtColor with COLOR_BayerRG2BGR)"
        )


_MOSAIC_MIN_STEP = 16  # grey levels, of twice the step between neighbours
_MOSAIC_MIN_SHARE = 0.5  # of all places; a mosaic of grey things under balanced light is as good as grey
_MOSAIC_MIN_AGREEMENT = 0.9


# -- files ------------------------------------------------------------------------------------------------------------


def _read_file(path: Path, name: str, limits: ImageLimits) -> bytes:
    try:
        if not path.is_file():  # also keeps a pipe or a device from being read without end
            state = "not a file" if path.exists() else "no such file"
            raise ImageDecodeError(f"{name} {str(path)!r}: {state}")
        size = path.stat().st_size
        if size > limits.max_file_bytes:
            raise ImageSizeError(f"{name} {str(path)!r}: got {size} bytes, allowed: at most {limits.max_file_bytes}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageDecodeError(f"{name} {str(path)!r}: cannot be read: {error}") from error


def _from_bytes(data: bytes, name: str, limits: ImageLimits) -> Image:
    if len(data) > limits.max_file_bytes:
        raise ImageSizeError(f"{name}: got {len(data)} bytes, allowed: at most {limits.max_file_bytes}")
    header = read_header(data, name)
    limits.check(header.width, header.height, name)
    if header.bits_per_channel > 8:
        raise ImageFormatError(
            f"{name}: got a {header.format} of {header.bits_per_channel} bits per channel, allowed: 8; "
            "read it as uint16 and scale it with differad_edge.images.to_8bit(array, bits=...)"
        )
    if header.has_alpha:
        with_alpha = _decode(data, cv2.IMREAD_UNCHANGED, header, name)
        if with_alpha.ndim == 3 and with_alpha.shape[2] == 4:
            _drop_alpha(with_alpha, name)
    # IMREAD_COLOR gives HxWx3 uint8 BGR and applies the EXIF orientation; IMREAD_UNCHANGED would not.
    image = _decode(data, cv2.IMREAD_COLOR, header, name)
    if header.grey:
        _refuse_mosaic(image[:, :, 0], name)
    return np.ascontiguousarray(image, dtype=np.uint8)


def _decode(data: bytes, flags: int, header: ImageHeader, name: str) -> NDArray[Any]:
    try:
        decoded: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageDecodeError(f"{name}: the {header.format} cannot be decoded: {error.err}") from error
    if decoded is None:
        raise ImageDecodeError(f"{name}: the {header.format} is damaged and cannot be decoded")
    if sorted(decoded.shape[:2]) != sorted((header.width, header.height)):  # sorted: EXIF may have turned it
        raise ImageDecodeError(
            f"{name}: the {header.format} says {header.width}x{header.height} px "
            f"and decodes to {decoded.shape[1]}x{decoded.shape[0]} px"
        )
    return decoded
