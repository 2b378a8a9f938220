"""Images in: good ones arrive unchanged, and each bad one gets the error that names what is wrong with it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pil

from differad_edge.errors import ImageDecodeError, ImageError, ImageFormatError, ImageSizeError
from differad_edge.images import ImageLimits, load_image, sha256_of_image, to_8bit

HEIGHT, WIDTH = 40, 60
COLOUR = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 1].copy()
SMOOTH = cv2.GaussianBlur(COLOUR, (0, 0), 5)


def encoded(array: np.ndarray, extension: str = ".png", *flags: int) -> bytes:
    done, data = cv2.imencode(extension, array, flags)
    assert done
    return data.tobytes()


def from_pil(image: Pil.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_announcing(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG of a few bytes whose header announces any size."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


# -- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tiff"])
@pytest.mark.parametrize("kind", ["path", "string", "bytes"])
def test_lossless_files_arrive_bit_for_bit(tmp_path: Path, extension: str, kind: str) -> None:
    data = encoded(COLOUR, extension)
    path = tmp_path / f"part{extension}"
    path.write_bytes(data)
    loaded = load_image({"path": path, "string": str(path), "bytes": data}[kind])
    np.testing.assert_array_equal(loaded, COLOUR)
    assert loaded.flags.c_contiguous


def test_lossless_webp_arrives_bit_for_bit() -> None:
    np.testing.assert_array_equal(load_image(encoded(COLOUR, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)), COLOUR)


@pytest.mark.parametrize(
    ("extension", "flags"),
    [
        (".jpg", (cv2.IMWRITE_JPEG_QUALITY, 98)),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),  # restart markers inside the scan
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 95)),
    ],
)
def test_lossy_files_arrive_nearly_so(extension: str, flags: tuple[int, ...]) -> None:
    loaded = load_image(encoded(SMOOTH, extension, *flags))
    assert np.abs(loaded.astype(int) - SMOOTH).mean() < 4


def test_a_contiguous_colour_array_is_not_copied() -> None:
    assert load_image(COLOUR) is COLOUR or np.shares_memory(load_image(COLOUR), COLOUR)


@pytest.mark.parametrize(
    "view",
    [COLOUR[::-1], COLOUR[:, :, ::-1], np.asfortranarray(COLOUR), np.concatenate([COLOUR] * 2, axis=1)[:, :WIDTH]],
    ids=["upside down", "RGB view", "Fortran order", "cut out"],
)
def test_views_that_are_not_contiguous_are_copied(view: np.ndarray) -> None:
    loaded = load_image(view)
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, view)


@pytest.mark.parametrize("source", [GREY, GREY[:, :, None], encoded(GREY), encoded(GREY, ".bmp")])
def test_grey_becomes_three_equal_channels(source: Any) -> None:
    np.testing.assert_array_equal(load_image(source), np.stack([GREY] * 3, axis=2))


@pytest.mark.parametrize("extension", [None, ".png", ".tiff", ".webp", ".bmp"])
def test_an_opaque_alpha_channel_is_dropped(extension: str | None) -> None:
    bgra = np.dstack([COLOUR, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    source = bgra if extension is None else encoded(bgra, extension, cv2.IMWRITE_WEBP_QUALITY, 101)
    np.testing.assert_array_equal(load_image(source), COLOUR)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied(file_format: str, orientation: int) -> None:
    exif = Pil.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98} if file_format in ("JPEG", "WEBP") else {}
    upright = {1: SMOOTH, 3: SMOOTH[::-1, ::-1], 6: np.rot90(SMOOTH, -1), 8: np.rot90(SMOOTH)}[orientation]
    loaded = load_image(from_pil(Pil.fromarray(SMOOTH[:, :, ::-1]), format=file_format, exif=exif, **options))
    assert loaded.shape == upright.shape
    assert np.abs(loaded.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palette_and_one_bit_files_are_expanded(mode: str) -> None:
    picture = Pil.fromarray(SMOOTH[:, :, ::-1]).convert(mode)
    expected = np.asarray(picture.convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(load_image(from_pil(picture, format="PNG")), expected)


# -- arrays that are refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), ImageSizeError, "part: got an empty image of 5x0 px"),
        (np.zeros((5, 0), np.uint8), ImageSizeError, "part: got an empty image of 0x5 px"),
        (np.zeros((15, 400, 3), np.uint8), ImageSizeError, "got 400x15 px, allowed: sides of at least 16 px"),
        (np.zeros((20, 16385, 3), np.uint8), ImageSizeError, "allowed: sides of at most 16384 px"),
        (
            np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (10_000, 10_000, 3), (0, 0, 0)),
            ImageSizeError,
            "got 10000x10000 px, allowed: at most 64000000 pixels",
        ),
        (np.zeros((20, 20, 3), np.uint16), ImageFormatError, "dtype uint16, allowed: uint8; scale it first with"),
        (np.zeros((20, 20), np.uint16), ImageFormatError, "to_8bit(array, bits=...)"),  # 12-bit cameras
        (np.zeros((20, 20, 3), np.float32), ImageFormatError, "dtype float32, allowed: uint8; scale it to 0..255"),
        (np.full((20, 20, 3), np.nan), ImageFormatError, "dtype float64, allowed: uint8; NaN or infinite values"),
        (np.zeros((20, 20, 3), np.int32), ImageFormatError, "dtype int32, allowed: uint8"),
        (np.zeros((20, 20, 3), np.int8), ImageFormatError, "dtype int8, allowed: uint8"),
        (np.zeros((20, 20), bool), ImageFormatError, "dtype bool, allowed: uint8; a mask is no image"),
        (np.zeros((20, 20), object), ImageFormatError, "dtype object, allowed: uint8"),
        (np.zeros((3, 20, 20), np.uint8), ImageFormatError, "shape (3, 20, 20), allowed: (H, W), (H, W, 1)"),
        (np.zeros((3, 20, 20), np.uint8), ImageFormatError, "move the channels to the end"),
        (np.zeros((20, 20, 2), np.uint8), ImageFormatError, "shape (20, 20, 2), allowed"),
        (np.zeros(400, np.uint8), ImageFormatError, "shape (400,), allowed"),
        (np.zeros((1, 20, 20, 3), np.uint8), ImageFormatError, "shape (1, 20, 20, 3), allowed"),
        (np.uint8(3), ImageFormatError, "got numpy.uint8, allowed: a path"),
    ],
)
def test_bad_arrays_are_refused_by_name(array: Any, error: type[ImageError], message: str) -> None:
    with pytest.raises(error) as caught:
        load_image(array, name="part")
    assert str(caught.value).startswith("part: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("source", [None, 7, [[1, 2], [3, 4]], Pil.new("RGB", (20, 20))])
def test_other_types_are_refused_by_name(source: Any) -> None:
    with pytest.raises(ImageFormatError, match="allowed: a path, the bytes of an image file, or a numpy array"):
        load_image(source)


def test_a_transparent_image_is_refused() -> None:
    bgra = np.dstack([COLOUR, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    bgra[3, 4, 3] = 254
    for source in (bgra, encoded(bgra), encoded(bgra, ".tiff"), encoded(bgra, ".bmp")):
        with pytest.raises(ImageFormatError, match=r"alpha channel with values down to 254, allowed: fully opaque"):
            load_image(source)


def bayer(colour: np.ndarray) -> np.ndarray:
    """The RGGB mosaic that a sensor sees of a BGR image."""
    mosaic = colour[:, :, 1].copy()
    mosaic[0::2, 0::2] = colour[0::2, 0::2, 2]
    mosaic[1::2, 1::2] = colour[1::2, 1::2, 0]
    return mosaic


def coloured_scene() -> np.ndarray:
    scene = np.full((200, 300, 3), (60, 120, 180), np.uint8)
    cv2.circle(scene, (150, 100), 60, (200, 90, 40), -1)
    noise = np.random.default_rng(3).normal(0, 4, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("source", [bayer(coloured_scene()), encoded(bayer(coloured_scene()))])
def test_a_raw_bayer_frame_is_refused(source: Any) -> None:
    with pytest.raises(ImageFormatError, match="raw Bayer mosaic, allowed: grey or BGR; demosaic it first"):
        load_image(source)


@pytest.mark.parametrize(
    "grey",
    [
        coloured_scene()[:, :, 0],
        GREY,  # noise
        np.zeros((64, 64), np.uint8),
        np.full((64, 64), 255, np.uint8),
        np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)),  # a slope
        np.eye(64, dtype=np.uint8) * 255,
        np.tile(np.array([0, 0, 255, 255], np.uint8), (64, 16)),  # fine stripes
        np.kron(np.indices((16, 16)).sum(0) % 2, np.full((4, 4), 255)).astype(np.uint8),  # a checkerboard
        (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8),  # middle grey, dithered to black and white
    ],
)
def test_grey_images_are_no_mosaics(grey: np.ndarray) -> None:
    assert load_image(grey).shape == (*grey.shape, 3)


# -- files that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
def test_every_truncation_is_refused(extension: str) -> None:
    data = encoded(SMOOTH, extension)
    for length in {0, 1, 2, 8, 13, 30, len(data) // 3, len(data) // 2, len(data) - 20, len(data) - 1}:
        with pytest.raises(ImageDecodeError):
            load_image(data[:length])


@given(st.sampled_from([".png", ".jpg", ".bmp", ".tiff", ".webp"]), st.data())
def test_damaged_files_give_an_image_or_a_typed_error(extension: str, data: st.DataObject) -> None:
    damaged = bytearray(encoded(SMOOTH, extension))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, min(400, len(damaged) - 1)))] = data.draw(st.integers(0, 255))
    try:
        loaded = load_image(bytes(damaged), limits=ImageLimits(max_pixels=1_000_000))
    except ImageError:
        return
    assert loaded.dtype == np.uint8
    assert loaded.shape[2] == 3


@pytest.mark.parametrize(
    "data",
    [
        png_announcing(60_000, 60_000),
        png_announcing(0xFFFFFFFF, 1),
        b"BM" + struct.pack("<IIIIiiHHII", 54, 0, 54, 40, 100_000, 100_000, 1, 24, 1, 0) + bytes(20),
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6,
    ],
    ids=["png", "wide png", "bmp", "webp"],
)
def test_a_decompression_bomb_is_refused_before_it_is_decoded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageSizeError, match="px, allowed"):
        load_image(data)


def test_a_forged_header_is_refused_by_what_it_decodes_to() -> None:
    with pytest.raises(ImageDecodeError):
        load_image(png_announcing(500, 500))  # announces more than its data holds


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(np.zeros((40, 60, 3), np.uint16)), "got a PNG of 16 bits per channel, allowed: 8"),
        (encoded(np.zeros((40, 60), np.uint16), ".tiff"), "got a TIFF of 16 bits per channel, allowed: 8"),
        (encoded(np.zeros((40, 60, 3), np.float32), ".tiff"), "got float or signed samples of 32 bits"),
        (
            from_pil(Pil.new("CMYK", (60, 40)), format="JPEG"),
            "got a JPEG of 4 channels (CMYK), allowed: grey or colour",
        ),
        (from_pil(Pil.new("CMYK", (60, 40)), format="TIFF"), "got a CMYK TIFF"),
        (from_pil(Pil.new("RGB", (60, 40)), format="GIF"), "got a GIF, allowed: PNG, JPEG, BMP, TIFF or WebP"),
        (b"P6 60 40 255\n" + bytes(7200), "got a PNM image, allowed"),
        (b"%PDF-1.7", "got a PDF, allowed"),
        (b"\0\0\0\x20ftypheic" + bytes(40), "got a HEIF or AVIF image, allowed"),
    ],
)
def test_kinds_that_are_not_inspected_are_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(ImageFormatError) as caught:
        load_image(data)
    assert message in str(caught.value)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused(file_format: str) -> None:
    frames = [Pil.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    data = from_pil(frames[0], format=file_format, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageFormatError, match="allowed: one still image"):
        load_image(data)


def test_a_tiff_mosaic_is_refused() -> None:
    data = bytearray(from_pil(Pil.fromarray(GREY), format="TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8  # PhotometricInterpretation
    data[at : at + 2] = struct.pack("<H", 32803)
    with pytest.raises(ImageFormatError, match="raw Bayer mosaic"):
        load_image(bytes(data))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.write_bytes(b""), "got 0 bytes"),
        (lambda path: path.write_text("hello"), "got 5 bytes that are no image"),
    ],
)
def test_paths_that_lead_to_no_image_are_named(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "part.png"
    make(path)
    with pytest.raises(ImageDecodeError) as caught:
        load_image(path, name="target")
    assert str(caught.value).startswith(f"target {str(path)!r}: ")
    assert message in str(caught.value)


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(ImageDecodeError):
        load_image("part\0.png")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(encoded(COLOUR))
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(ImageSizeError, match="bytes, allowed: at most 100"):
        load_image(path, limits=ImageLimits(max_file_bytes=100))


# -- to_8bit, hashes --------------------------------------------------------------------------------------------------


@given(st.integers(9, 16), st.data())
def test_scaling_is_linear_to_half_a_level(bits: int, data: st.DataObject) -> None:
    top = 2**bits - 1
    values = np.array([0, data.draw(st.integers(0, top)), top], np.uint16)
    scaled = to_8bit(values, bits=bits)
    assert scaled.dtype == np.uint8
    assert (scaled[0], scaled[2]) == (0, 255)
    assert abs(float(scaled[1]) - int(values[1]) * 255 / top) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("array", "bits", "message"),
    [
        (np.zeros(3, np.uint8), 12, "to_8bit: got uint8, allowed: uint16"),
        (np.zeros(3, np.uint16), 8, "to_8bit: bits: got 8, allowed: 9 to 16"),
        (np.full(3, 4096, np.uint16), 12, "to_8bit: got a value of 4096, allowed: at most 4095 with bits=12"),
    ],
)
def test_scaling_refuses_what_does_not_fit(array: np.ndarray, bits: int, message: str) -> None:
    with pytest.raises(ImageFormatError) as caught:
        to_8bit(array, bits=bits)
    assert str(caught.value) == message


def test_the_hash_sees_pixels_and_shape_but_not_memory_layout() -> None:
    changed = COLOUR.copy()
    changed[0, 0, 0] ^= 1
    turned = COLOUR.reshape(WIDTH, HEIGHT, 3)
    assert len({sha256_of_image(COLOUR), sha256_of_image(changed), sha256_of_image(turned)}) == 3
    assert sha256_of_image(np.asfortranarray(COLOUR)) == sha256_of_image(COLOUR)
