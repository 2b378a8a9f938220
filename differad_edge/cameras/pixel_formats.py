"""Pixels as industrial cameras send them, to HxWx3 uint8 BGR by stated rules. Names are those of GenICam (PFNC).

    Mono8                                    the grey value in all three channels
    Mono10 Mono12 Mono16, Bayer..10 ..12 ..16    16 bit little endian a pixel; 8 bit: the upper 8 of its bits
      ..10p ..12p                            pixels without gaps, lowest bit first
      ..10Packed ..12Packed                  GigE Vision: two pixels in three bytes, their lower bits in the middle one
    BayerRG8 BayerGR8 BayerGB8 BayerBG8      bilinear demosaicing; the letters are the first two pixels of the first row
    RGB8 BGR8, RGBa8 BGRa8                   also with the older names RGB8Packed, BGR8Packed; what a is, is left out
    YUV422_8 YCbCr422_8 YUV422_YUYV_Packed   Y0 U Y1 V, BT.601, full range (0 to 255), as GenICam has it
    YUV422_8_UYVY YUV422Packed               U Y0 V Y1, the same
    YUYV YCbCr601_422_8, UYVY                the same orders, Y from 16 to 235, as video devices have it

Another shift than "the upper 8 bits" can be asked for: a dark Mono12 picture shows more with ``shift=2``, and what does
not fit any more is 255. Two pixels share their U and V.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import TornFrameError
from differad_edge.images import Image

__all__ = ["MOST_SHIFT", "PIXEL_FORMATS", "RawImage", "to_bgr"]

MOST_SHIFT = 8

_Bytes: TypeAlias = NDArray[np.uint8]
_Samples: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"


@dataclass(frozen=True, slots=True)
class RawImage:
    """``data``: the bytes of the picture alone, without chunks; ``size_px``: (width, height).

    ``row_bytes``: from the begin of a row to that of the next; None: rows follow each other without a gap, also those
    that end within a byte.
    """

    data: bytes | bytearray | memoryview | NDArray[np.uint8]
    size_px: tuple[int, int]
    pixel_format: str
    row_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """``unpack``: rows of bytes to rows of samples, of which there may be too many at the end of a row.

    ``group_bytes``: a row may be filled up to a multiple of these; ``depth``: bits of a sample; ``finish``: HxWxN
    samples of 8 bit to BGR; ``samples``: N; ``least_px``: the shortest side.
    """

    bits: int
    unpack: Callable[[_Bytes], _Samples]
    finish: Callable[[_Bytes], Any]
    depth: int = 8
    samples: int = 1
    group_bytes: int = 1
    least_px: int = 1


def to_bgr(raw: RawImage, source: str, *, shift: int | None = None) -> Image:
    """A new HxWx3 uint8 BGR array, C-contiguous.

    ``source``: how the message calls the camera; ``shift``: bits by which samples of more than 8 bits are shifted down,
    None: to their upper 8. Raises TornFrameError for a format that is not among `PIXEL_FORMATS` and a buffer whose size
    is not that of the picture.
    """
    layout = _LAYOUTS.get(raw.pixel_format)
    if layout is None:
        raise TornFrameError(
            f"camera {source!r}: got a frame of pixel format {raw.pixel_format!r}, allowed: {', '.join(PIXEL_FORMATS)}"
        )
    width, height = raw.size_px
    least = layout.least_px
    if min(width, height) < least or (layout.samples == 2 and width % 2):
        allowed = f"at least {least}x{least}{', the width even' if layout.samples == 2 else ''}"
        raise TornFrameError(
            f"camera {source!r}: got a frame of {width}x{height} px in {raw.pixel_format}, allowed: {allowed}"
        )
    rows = _rows(raw, layout, source)
    values = layout.unpack(rows).reshape(len(rows), -1)[:, : width * height * layout.samples // len(rows)]
    if layout.depth > 8:
        down = layout.depth - 8 if shift is None else shift
        values = np.minimum(values >> down, 255).astype(np.uint8)
    picture = np.ascontiguousarray(values.reshape(height, width, layout.samples), np.uint8)
    return np.array(layout.finish(picture), np.uint8, order="C")


def _rows(raw: RawImage, layout: _Layout, source: str) -> _Bytes:
    """The bytes row by row without padding; of rows without a gap all in one, since a byte may belong to two."""
    data = np.frombuffer(raw.data, np.uint8)
    width, height = raw.size_px
    if raw.row_bytes is None:
        used = _bytes_of(width * height, layout)
        whole = -(-used // layout.group_bytes) * layout.group_bytes
        if len(data) not in (used, whole):
            raise _wrong_size(raw, len(data), f"{used}", source)
        return data.reshape(1, -1)
    used = _bytes_of(width, layout)
    least, most = raw.row_bytes * (height - 1) + used, raw.row_bytes * height
    if raw.row_bytes < used or not least <= len(data) <= most:
        raise _wrong_size(raw, len(data), f"{least} to {most} with rows of at least {used}", source)
    full = data if len(data) == most else np.concatenate([data, np.zeros(most - len(data), np.uint8)])
    return full.reshape(height, raw.row_bytes)[:, :used]


def _bytes_of(pixels: int, layout: _Layout) -> int:
    return (pixels * layout.bits + 7) // 8


def _wrong_size(raw: RawImage, got: int, allowed: str, source: str) -> TornFrameError:
    rows = "" if raw.row_bytes is None else f" in rows of {raw.row_bytes} bytes"
    return TornFrameError(
        f"camera {source!r}: got {got} bytes for {raw.size_px[0]}x{raw.size_px[1]} px of {raw.pixel_format}{rows}, "
        f"allowed: {allowed}"
    )


# -- bytes to samples -------------------------------------------------------------------------------------------------


def _plain(rows: _Bytes) -> _Samples:
    return rows


def _two_bytes(rows: _Bytes) -> _Samples:
    return np.ascontiguousarray(rows).view("<u2")


def _grouped(rows: _Bytes, size: int) -> list[NDArray[np.uint16]]:
    """The first bytes of all groups of ``size``, the second ones, and so on; the last group is filled up with zeros."""
    missing = -rows.shape[1] % size
    filled = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    groups = filled.reshape(len(rows), -1, size)
    return [groups[:, :, place].astype(np.uint16) for place in range(size)]


def _together(*samples: NDArray[Any]) -> _Samples:
    return np.stack(samples, axis=2)


def _ten_p(rows: _Bytes) -> _Samples:
    a, b, c, d, e = _grouped(rows, 5)
    return _together(a | (b & 3) << 8, b >> 2 | (c & 15) << 6, c >> 4 | (d & 63) << 4, d >> 6 | e << 2)


def _twelve_p(rows: _Bytes) -> _Samples:
    a, b, c = _grouped(rows, 3)
    return _together(a | (b & 15) << 8, b >> 4 | c << 4)


def _ten_packed(rows: _Bytes) -> _Samples:
    a, b, c = _grouped(rows, 3)
    return _together(a << 2 | b & 3, c << 2 | b >> 4 & 3)


def _twelve_packed(rows: _Bytes) -> _Samples:
    a, b, c = _grouped(rows, 3)
    return _together(a << 4 | b & 15, c << 4 | b >> 4)


# -- samples to BGR ---------------------------------------------------------------------------------------------------


def _by(code: int) -> Callable[[_Bytes], Any]:
    return lambda picture: cv2.cvtColor(picture, code)


def _as_it_is(picture: _Bytes) -> Any:
    return picture


def _full_range(luma: int) -> Callable[[_Bytes], Any]:
    """Y at place ``luma`` of each pair of bytes, U and V by turns at the other. OpenCV's own YUY2 has video's range."""

    def convert(picture: _Bytes) -> Any:
        chroma = picture[:, :, 1 - luma]
        # OpenCV calls V Cr and U Cb.
        v, u = np.repeat(chroma[:, 1::2], 2, axis=1), np.repeat(chroma[:, 0::2], 2, axis=1)
        return cv2.cvtColor(np.dstack([picture[:, :, luma], v, u]), cv2.COLOR_YCrCb2BGR)

    return convert


def _depths(name: str, finish: Callable[[_Bytes], Any], least_px: int = 1) -> dict[str, _Layout]:
    """One sample a pixel, in all depths and packings."""
    layouts = {
        f"{name}8": _Layout(8, _plain, finish),
        f"{name}10": _Layout(16, _two_bytes, finish, depth=10),
        f"{name}12": _Layout(16, _two_bytes, finish, depth=12),
        f"{name}16": _Layout(16, _two_bytes, finish, depth=16),
        f"{name}10p": _Layout(10, _ten_p, finish, depth=10, group_bytes=5),
        f"{name}12p": _Layout(12, _twelve_p, finish, depth=12, group_bytes=3),
        f"{name}10Packed": _Layout(12, _ten_packed, finish, depth=10, group_bytes=3),
        f"{name}12Packed": _Layout(12, _twelve_packed, finish, depth=12, group_bytes=3),
    }
    return {each: replace(layout, least_px=least_px) for each, layout in layouts.items()}


_RGB = _Layout(24, _plain, _by(cv2.COLOR_RGB2BGR), samples=3)
_BGR = _Layout(24, _plain, _as_it_is, samples=3)
_YUYV, _UYVY = (_Layout(16, _plain, _full_range(luma), samples=2) for luma in (0, 1))
_VIDEO_YUYV, _VIDEO_UYVY = (
    _Layout(16, _plain, _by(code), samples=2) for code in (cv2.COLOR_YUV2BGR_YUY2, cv2.COLOR_YUV2BGR_UYVY)
)

_LAYOUTS: dict[str, _Layout] = {
    **_depths("Mono", _by(cv2.COLOR_GRAY2BGR)),
    # OpenCV's short names look at the second row and the second column: its "BayerBG" is everybody's BayerRG. Its long
    # ones name the first four pixels. Of less than 3x3 px it makes black.
    **_depths("BayerRG", _by(cv2.COLOR_BayerRGGB2BGR), 3),
    **_depths("BayerGR", _by(cv2.COLOR_BayerGRBG2BGR), 3),
    **_depths("BayerGB", _by(cv2.COLOR_BayerGBRG2BGR), 3),
    **_depths("BayerBG", _by(cv2.COLOR_BayerBGGR2BGR), 3),
    "RGBa8": _Layout(32, _plain, _by(cv2.COLOR_RGBA2BGR), samples=4),
    "BGRa8": _Layout(32, _plain, _by(cv2.COLOR_BGRA2BGR), samples=4),
    **dict.fromkeys(("RGB8", "RGB8Packed"), _RGB),
    **dict.fromkeys(("BGR8", "BGR8Packed"), _BGR),
    **dict.fromkeys(("YUV422_8", "YCbCr422_8", "YUV422_YUYV_Packed"), _YUYV),
    **dict.fromkeys(("YUV422_8_UYVY", "YUV422Packed"), _UYVY),
    **dict.fromkeys(("YUYV", "YCbCr601_422_8"), _VIDEO_YUYV),
    "UYVY": _VIDEO_UYVY,
}

PIXEL_FORMATS: tuple[str, ...] = tuple(_LAYOUTS)
"""What `to_bgr` takes."""
