"""What an image file says about itself, read without decoding a pixel.

A few kilobytes can announce a picture of many gigabytes, and a decoder may fill the lost half of a truncated file
with grey. So size, depth and completeness are read from the bytes first. PNG, JPEG, BMP, TIFF and WebP are known.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from differad_edge.errors import ImageDecodeError, ImageFormatError

__all__ = ["ImageHeader", "read_header"]


@dataclass(frozen=True)
class ImageHeader:
    """``width`` and ``height``: pixels as stored, before any EXIF rotation. ``grey``: a single channel of light."""

    format: str
    width: int
    height: int
    bits_per_channel: int
    grey: bool
    has_alpha: bool


def read_header(data: bytes, name: str) -> ImageHeader:
    """Read the header of an image file; ``name`` is how messages call it.

    Raises ImageDecodeError when the bytes are empty, truncated or not an image; ImageFormatError for an image of a kind
    that is not inspected (other file formats, animations, several pages, float samples, raw mosaics, CMYK).
    """
    if not data:
        raise ImageDecodeError(f"{name}: got 0 bytes, allowed: a PNG, JPEG, BMP, TIFF or WebP image")
    for magic, reader in _READERS:
        if data.startswith(magic):
            try:
                return reader(data, name)
            except (struct.error, IndexError) as error:
                raise _truncated(name) from error
    for pattern, kind in _KNOWN_OTHERS:
        if pattern.match(data):
            raise ImageFormatError(f"{name}: got {kind}, allowed: PNG, JPEG, BMP, TIFF or WebP")
    raise ImageDecodeError(f"{name}: got {len(data)} bytes that are no image, allowed: PNG, JPEG, BMP, TIFF or WebP")


def _truncated(name: str) -> ImageDecodeError:
    return ImageDecodeError(f"{name}: the file is truncated or damaged: it ends before the image does")


def _several(name: str, what: str) -> ImageFormatError:
    return ImageFormatError(f"{name}: got {what}, allowed: one still image")


# -- PNG --------------------------------------------------------------------------------------------------------------

_PNG_GREY_TYPES = (0, 4)
_PNG_ALPHA_TYPES = (4, 6)


def _read_png(data: bytes, name: str) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise _truncated(name)
    width, height, depth, colour_type = struct.unpack_from(">IIBB", data, 16)
    position, transparent = 8, False
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length  # length, kind and checksum take 12 bytes
        if position > len(data):
            raise _truncated(name)
        if kind == b"acTL":
            raise _several(name, "an animated PNG")
        transparent = transparent or kind == b"tRNS"
        if kind == b"IEND":
            break
    has_alpha = transparent or colour_type in _PNG_ALPHA_TYPES
    return ImageHeader("PNG", width, height, depth, colour_type in _PNG_GREY_TYPES, has_alpha)


# -- JPEG -------------------------------------------------------------------------------------------------------------

_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
# Inside a scan, 0xFF is followed by 0x00 or a restart marker; anything else ends the scan.
_JPEG_SCAN_ENDS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _read_jpeg(data: bytes, name: str) -> ImageHeader:
    header: ImageHeader | None = None
    position = 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        if data[position] != 0xFF:
            raise _truncated(name)
        marker = data[position + 1]
        if marker == _JPEG_END:
            break
        if marker in _JPEG_BARE_MARKERS:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_FRAME_MARKERS:
            depth, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            if components not in (1, 3):
                raise ImageFormatError(f"{name}: got a JPEG of {components} channels (CMYK), allowed: grey or colour")
            header = ImageHeader("JPEG", width, height, depth, components == 1, has_alpha=False)
        position += 2 + length
        if marker == _JPEG_SCAN:
            end = _JPEG_SCAN_ENDS.search(data, position)
            if end is None:
                raise _truncated(name)
            position = end.start()
    if header is None:
        raise _truncated(name)
    return header


# -- BMP --------------------------------------------------------------------------------------------------------------

_BMP_UNCOMPRESSED = (0, 3)


def _read_bmp(data: bytes, name: str) -> ImageHeader:
    pixels_at, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: stored from the top down
    if compression in _BMP_UNCOMPRESSED and len(data) < pixels_at + (width * bits + 31) // 32 * 4 * height:
        raise _truncated(name)
    alpha_mask = struct.unpack_from("<I", data, 66)[0] if header_bytes >= 56 and bits == 32 else 0
    return ImageHeader("BMP", width, height, 8, grey=False, has_alpha=alpha_mask != 0)


# -- TIFF -------------------------------------------------------------------------------------------------------------

_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
_TIFF_GREY = (0, 1)
_TIFF_MOSAIC = (32803, 34892)  # colour filter array, linear raw
_TIFF_CMYK = 5
_TIFF_EXTRA_ALPHA = (1, 2)
(_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _STRIPS, _SAMPLES, _STRIP_BYTES) = (256, 257, 258, 262, 273, 277, 279)
(_TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT) = (324, 325, 338, 339)
_TIFF_TAGS = frozenset(
    {
        *(_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _STRIPS, _SAMPLES, _STRIP_BYTES),
        *(_TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT),
    }
)


def _read_tiff(data: bytes, name: str) -> ImageHeader:
    order = "<" if data[:2] == b"II" else ">"
    tags, next_page = _tiff_tags(data, order)
    if next_page:
        raise _several(name, "a TIFF of several pages")
    if not {_WIDTH, _HEIGHT} <= tags.keys():
        raise _truncated(name)
    photometric = tags.get(_PHOTOMETRIC, (1,))[0]
    if photometric in _TIFF_MOSAIC:
        raise ImageFormatError(f"{name}: got a raw Bayer mosaic, allowed: grey or BGR; demosaic it first")
    if photometric == _TIFF_CMYK:
        raise ImageFormatError(f"{name}: got a CMYK TIFF, allowed: grey or colour")
    bits = max(tags.get(_BITS, (1,)))
    if any(kind not in (1, 4) for kind in tags.get(_SAMPLE_FORMAT, (1,))):
        raise ImageFormatError(f"{name}: got float or signed samples of {bits} bits, allowed: 8-bit unsigned")
    offsets = tags.get(_STRIPS) or tags.get(_TILES, ())
    counts = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES, ())
    if not offsets or any(at + count > len(data) for at, count in zip(offsets, counts, strict=False)):
        raise _truncated(name)
    samples = tags.get(_SAMPLES, (1,))[0]
    has_alpha = any(kind in _TIFF_EXTRA_ALPHA for kind in tags.get(_EXTRA, ())) or samples in (2, 4)
    width, height = tags[_WIDTH][0], tags[_HEIGHT][0]
    return ImageHeader("TIFF", width, height, bits, photometric in _TIFF_GREY, has_alpha)


def _tiff_tags(data: bytes, order: str) -> tuple[dict[int, tuple[int, ...]], int]:
    """The values of the tags that matter, and the offset of the next page (0: none)."""
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(entries):
        entry = directory + 2 + 12 * index
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        letter = _TIFF_TYPES.get(kind)
        if tag not in _TIFF_TAGS or letter is None or count == 0:
            continue
        size = struct.calcsize(letter) * count
        at = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if at + size > len(data):  # before unpacking: a forged count must not reserve memory
            raise struct.error("tag outside the file")
        tags[tag] = struct.unpack_from(f"{order}{count}{letter}", data, at)
    (next_page,) = struct.unpack_from(order + "I", data, directory + 2 + 12 * entries)
    return tags, next_page


# -- WebP -------------------------------------------------------------------------------------------------------------

_WEBP_ANIMATION, _WEBP_ALPHA = 0x02, 0x10


def _read_webp(data: bytes, name: str) -> ImageHeader:
    if data[8:12] != b"WEBP":
        raise ImageDecodeError(f"{name}: got a RIFF file that is no WebP image")
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    if len(data) < 8 + riff_bytes:
        raise _truncated(name)
    kind = data[12:16]
    if kind == b"VP8X":
        flags = data[20]
        if flags & _WEBP_ANIMATION:
            raise _several(name, "an animated WebP")
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return ImageHeader("WebP", width, height, 8, grey=False, has_alpha=bool(flags & _WEBP_ALPHA))
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        return ImageHeader("WebP", width, height, 8, grey=False, has_alpha=bool(packed >> 28 & 1))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader("WebP", width & 0x3FFF, height & 0x3FFF, 8, grey=False, has_alpha=False)
    raise _truncated(name)


_READERS = (
    (b"\x89PNG\r\n\x1a\n", _read_png),
    (b"\xff\xd8\xff", _read_jpeg),
    (b"BM", _read_bmp),
    (b"II*\x00", _read_tiff),
    (b"MM\x00*", _read_tiff),
    (b"RIFF", _read_webp),
)

_KNOWN_OTHERS = (
    (re.compile(rb"GIF8[79]a"), "a GIF"),
    (re.compile(rb"....ftyp(heic|heix|mif1|avif|avis)", re.DOTALL), "a HEIF or AVIF image"),
    (re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb"II\+\x00|MM\x00\+"), "a BigTIFF"),
    (re.compile(rb"P[1-7]\s"), "a PNM image"),
    (re.compile(rb"\x76\x2f\x31\x01"), "an OpenEXR image"),
    (re.compile(rb"%PDF"), "a PDF"),
)
