"""Image messages as HxWx3 uint8 BGR. Whatever is doubtful is refused by name, never guessed.

cv_bridge is not needed: it turns unknown encodings and torn buffers into pictures that look right.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import ImageDecodeError, ImageFormatError, ImageSizeError
from differad_edge.images import DEFAULT_LIMITS, Image, load_image

__all__ = ["ENCODINGS", "CompressedMessage", "ImageMessage", "is_compressed", "picture_of"]

# ROS names a mosaic by its first two rows as they are read, as OpenCV's newer names do.
_MOSAICS = {
    "bayer_rggb8": cv2.COLOR_BayerRGGB2BGR,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2BGR,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2BGR,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2BGR,
}
_CHANNELS = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "rgba8": 4, **dict.fromkeys(_MOSAICS, 1)}

ENCODINGS: tuple[str, ...] = tuple(_CHANNELS)
"""What is inspected. 8UC3 and its kin are not among them: they do not say which colour comes first."""


class ImageMessage(Protocol):
    """What is read of a sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedMessage(Protocol):
    """What is read of a sensor_msgs/CompressedImage."""

    format: str
    data: Any


def is_compressed(message: ImageMessage | CompressedMessage) -> bool:
    """Whether ``message`` holds the bytes of an image file."""
    return hasattr(message, "format")


def picture_of(message: ImageMessage | CompressedMessage, name: str = "image") -> Image:
    """The pixels of an Image or CompressedImage as HxWx3 uint8 BGR, C-contiguous; ``name`` is how errors call it.

    A bgr8 image without padding is not copied: it is a view of the message, which must not change.
    Raises ImageFormatError (encoding, step, endianness, alpha that is not opaque), ImageSizeError (empty, too small,
    too large, fewer or more bytes than stated), ImageDecodeError (a compressed image that is damaged).
    """
    if is_compressed(message):
        return _decompressed(message, name)  # type: ignore[arg-type]  # told apart above
    return _raw(message, name)  # type: ignore[arg-type]


def _raw(message: ImageMessage, name: str) -> Image:
    encoding = message.encoding
    channels = _CHANNELS.get(encoding)
    if channels is None:
        raise ImageFormatError(f"{name}.encoding: got {encoding!r}, allowed: {', '.join(ENCODINGS)}")
    width, height, step = int(message.width), int(message.height), int(message.step)
    DEFAULT_LIMITS.check(width, height, name)
    if message.is_bigendian not in (0, 1):  # of no meaning for 8 bits; another value is a damaged or foreign message
        raise ImageFormatError(f"{name}.is_bigendian: got {message.is_bigendian!r}, allowed: 0, 1")
    if step < width * channels:
        raise ImageFormatError(
            f"{name}.step: got {step} bytes, allowed: at least {width * channels} (width {width} of {encoding})"
        )
    data = _bytes_of(message.data, name)
    if data.size != step * height:
        raise ImageSizeError(
            f"{name}.data: got {data.size} bytes, allowed: {step * height} (step {step} x height {height})"
        )
    pixels = data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if encoding == "bgr8":
        return np.ascontiguousarray(pixels)
    if encoding == "rgb8":
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    if encoding in _MOSAICS:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels[:, :, 0]), _MOSAICS[encoding]), np.uint8)
    if encoding == "rgba8":
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA), np.uint8)
    return load_image(pixels, name=name)


def _decompressed(message: CompressedMessage, name: str) -> Image:
    stated = message.format.strip()
    pixel_format = stated.partition(";")[0].strip()
    # image_transport puts the encoding before the file's format: a mosaic would decode to a grey picture.
    if "compressedDepth" in stated or pixel_format.startswith("bayer_"):
        raise ImageFormatError(f"{name}.format: got {stated!r}, allowed: a JPEG or PNG of colour or grey pixels")
    data = _bytes_of(message.data, name)
    if not data.size:
        raise ImageDecodeError(f"{name}.data: got 0 bytes, allowed: the bytes of an image file")
    return load_image(data.tobytes(), name=name)


def _bytes_of(data: Any, name: str) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError) as error:
        raise ImageFormatError(f"{name}.data: got {type(data).__name__}, allowed: a buffer of bytes") from error
