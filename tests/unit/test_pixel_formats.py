"""What industrial cameras send, byte by byte, and the picture it must become."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from differad_edge.cameras.pixel_formats import PIXEL_FORMATS, RawImage, to_bgr
from differad_edge.errors import TornFrameError
from differad_edge.images import Image

BGR = {"R": 2, "G": 1, "B": 0}


def convert(data: bytes, size_px: tuple[int, int], name: str, **options: int | None) -> Image:
    shift = options.pop("shift", None)
    return to_bgr(RawImage(data, size_px, name, **options), "line-camera", shift=shift)


def bits_of(values: list[int], depth: int) -> bytes:
    """Lowest bit first, without gaps: what PFNC calls p, written another way than the decoder reads it."""
    bits = [value >> place & 1 for value in values for place in range(depth)]
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def gige_packed(values: list[int], depth: int) -> bytes:
    """Two pixels in three bytes, as GigE Vision draws it."""
    low = depth - 8
    out = bytearray()
    for first, second in zip(values[::2], [*values[1::2], 0], strict=False):
        out += bytes([first >> low, (first & (1 << low) - 1) | (second & (1 << low) - 1) << 4, second >> low])
    return bytes(out[: (len(values) * 12 + 7) // 8])


def words(values: list[int], depth: int) -> bytes:
    return np.array(values, "<u2").tobytes()


def grey(image: Image) -> list[int]:
    assert (image[:, :, 0] == image[:, :, 1]).all()
    assert (image[:, :, 0] == image[:, :, 2]).all()
    return [int(value) for value in image[:, :, 0].ravel()]


DEEP = [
    ("Mono10", 10, words), ("Mono12", 12, words), ("Mono16", 16, words), ("Mono10p", 10, bits_of),
    ("Mono12p", 12, bits_of), ("Mono10Packed", 10, gige_packed), ("Mono12Packed", 12, gige_packed),
]  # fmt: skip


def test_mono8_is_the_same_in_all_channels() -> None:
    image = convert(bytes(range(6)), (3, 2), "Mono8")
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((2, 3, 3), np.uint8, True)
    assert grey(image) == list(range(6))


@pytest.mark.parametrize(("name", "depth", "pack"), DEEP)
def test_deep_grey_is_its_upper_eight_bits(name: str, depth: int, pack: object) -> None:
    top = (1 << depth) - 1
    values = [0, 1, top, top - 1, 1 << depth - 8, (1 << depth - 8) - 1, top // 3, top // 5]
    data = pack(values, depth)  # type: ignore[operator]
    assert grey(convert(data, (4, 2), name)) == [value >> depth - 8 for value in values]


@pytest.mark.parametrize(("name", "depth", "pack"), DEEP)
@settings(deadline=None)
@given(data=st.data())
def test_every_value_at_every_place_and_width(name: str, depth: int, pack: object, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    values = data.draw(st.lists(st.integers(0, (1 << depth) - 1), min_size=width * height, max_size=width * height))
    shift = data.draw(st.integers(0, 8))
    packed = pack(values, depth)  # type: ignore[operator]
    assert grey(convert(packed, (width, height), name, shift=shift)) == [min(value >> shift, 255) for value in values]
    # The same in rows with padding, whose bytes say nothing.
    rows = [pack(values[row * width : (row + 1) * width], depth) for row in range(height)]  # type: ignore[operator]
    row_bytes = len(rows[0]) + data.draw(st.integers(0, 5))
    padded = b"".join(row.ljust(row_bytes, b"\xaa") for row in rows)
    assert grey(convert(padded, (width, height), name, row_bytes=row_bytes)) == [v >> depth - 8 for v in values]


def test_a_shift_shows_a_dark_picture_and_saturates() -> None:
    assert grey(convert(words([40, 1019, 1020, 4095], 12), (2, 2), "Mono12", shift=2)) == [10, 254, 255, 255]


def test_a_last_group_may_be_filled_up() -> None:
    whole = gige_packed([4080, 16, 4080, 0], 12)
    assert len(whole) == 6
    for data in (whole, whole[:5]):
        assert grey(convert(data, (3, 1), "Mono12Packed")) == [255, 1, 255]


def mosaic(picture: NDArray[np.uint8], pattern: str) -> NDArray[np.uint8]:
    """What a sensor under this colour filter sees: its first row shows pattern[0], pattern[1]."""
    other = {"RG": "GB", "GR": "BG", "GB": "RG", "BG": "GR"}[pattern]
    seen = np.empty(picture.shape[:2], np.uint8)
    for row, letters in enumerate((pattern, other)):
        for column, letter in enumerate(letters):
            seen[row::2, column::2] = picture[row::2, column::2, BGR[letter]]
    return seen


def ramp() -> NDArray[np.uint8]:
    """Each channel rises in another direction, so that no two can be confused."""
    y, x = np.mgrid[0:32, 0:40]
    return np.dstack([20 + 3 * x, 60 + 4 * y, 240 - 2 * x - 3 * y]).astype(np.uint8)


@pytest.mark.parametrize("pattern", ["RG", "GR", "GB", "BG"])
class TestBayer:
    @pytest.mark.parametrize("colour", [(0, 0, 255), (0, 255, 0), (255, 0, 0), (10, 120, 230)])
    def test_red_stays_red(self, pattern: str, colour: tuple[int, int, int]) -> None:
        flat = np.full((32, 40, 3), colour, np.uint8)
        image = convert(mosaic(flat, pattern).tobytes(), (40, 32), f"Bayer{pattern}8")
        np.testing.assert_array_equal(image, flat)

    def test_a_ramp_of_colours_comes_back(self, pattern: str) -> None:
        image = convert(mosaic(ramp(), pattern).tobytes(), (40, 32), f"Bayer{pattern}8")
        inside = (slice(2, -2), slice(2, -2))
        assert np.abs(image[inside].astype(int) - ramp()[inside].astype(int)).max() <= 4

    @pytest.mark.parametrize(
        ("suffix", "depth", "pack"),
        [(name.removeprefix("Mono"), depth, pack) for name, depth, pack in DEEP],
    )
    def test_depths_and_packings_show_what_8_bits_show(
        self, pattern: str, suffix: str, depth: int, pack: object
    ) -> None:
        seen = mosaic(ramp(), pattern)
        values = [int(value) << depth - 8 | int(value) & (1 << depth - 8) - 1 for value in seen.ravel()]
        packed = pack(values, depth)  # type: ignore[operator]
        image = convert(packed, (40, 32), f"Bayer{pattern}{suffix}")
        np.testing.assert_array_equal(image, convert(seen.tobytes(), (40, 32), f"Bayer{pattern}8"))

    @pytest.mark.parametrize("size_px", [(40, 1), (1, 40), (2, 2), (40, 2)])
    def test_too_small_a_mosaic_would_be_black(self, pattern: str, size_px: tuple[int, int]) -> None:
        with pytest.raises(TornFrameError, match="at least 3x3"):
            convert(b"\x80" * (size_px[0] * size_px[1]), size_px, f"Bayer{pattern}8")

    def test_the_smallest_mosaic(self, pattern: str) -> None:
        assert (convert(b"\x80" * 9, (3, 3), f"Bayer{pattern}8") == 128).all()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("RGB8", bytes([1, 2, 3, 4, 5, 6])), ("RGB8Packed", bytes([1, 2, 3, 4, 5, 6])),
        ("BGR8", bytes([3, 2, 1, 6, 5, 4])), ("BGR8Packed", bytes([3, 2, 1, 6, 5, 4])),
        ("RGBa8", bytes([1, 2, 3, 9, 4, 5, 6, 0])), ("BGRa8", bytes([3, 2, 1, 9, 6, 5, 4, 0])),
    ],
)  # fmt: skip
def test_colours_in_their_order(name: str, data: bytes) -> None:
    assert convert(data, (2, 1), name).tolist() == [[[3, 2, 1], [6, 5, 4]]]


YUYV = ("YUV422_8", "YCbCr422_8", "YUV422_YUYV_Packed")
UYVY = ("YUV422_8_UYVY", "YUV422Packed")
# BT.601, full range: what ITU-T T.871 (JPEG) writes down.
PRIMARIES = [
    ((0, 0, 0), (0, 128, 128)), ((255, 255, 255), (255, 128, 128)), ((0, 0, 255), (76, 85, 255)),
    ((0, 255, 0), (150, 44, 21)), ((255, 0, 0), (29, 255, 107)), ((128, 128, 128), (128, 128, 128)),
]  # fmt: skip


@pytest.mark.parametrize("name", [*YUYV, *UYVY])
@pytest.mark.parametrize(("bgr", "yuv"), PRIMARIES)
def test_yuv_of_the_full_range(name: str, bgr: tuple[int, ...], yuv: tuple[int, int, int]) -> None:
    y, u, v = yuv
    pair = bytes([y, u, y, v]) if name in YUYV else bytes([u, y, v, y])
    image = convert(pair * 4, (4, 2), name)
    assert image.shape == (2, 4, 3)
    assert np.abs(image.astype(int) - bgr).max() <= 2


@pytest.mark.parametrize("name", ["YUYV", "YCbCr601_422_8", "UYVY"])
@pytest.mark.parametrize(("y", "value"), [(16, 0), (235, 255), (126, 128)])
def test_yuv_of_video_ends_at_16_and_235(name: str, y: int, value: int) -> None:
    pair = bytes([128, y, 128, y]) if name == "UYVY" else bytes([y, 128, y, 128])
    image = convert(pair * 2, (4, 1), name)
    assert np.abs(image.astype(int) - value).max() <= 1


def test_two_pixels_share_their_colour_and_not_their_light() -> None:
    image = convert(bytes([0, 128, 255, 128, 76, 85, 76, 255]), (4, 1), "YUV422_8")
    assert grey(image[:, :2]) == [0, 255]
    assert np.abs(image[0, 2:].astype(int) - (0, 0, 255)).max() <= 2


def test_an_odd_width_has_no_pairs() -> None:
    with pytest.raises(TornFrameError, match="the width even"):
        convert(bytes(6), (3, 1), "YUYV")


@pytest.mark.parametrize("name", PIXEL_FORMATS)
class TestEveryFormat:
    def exact(self, name: str) -> int:
        """The one size of 8x4 px that is taken, found by trying."""
        taken = []
        for size in range(8 * 4 * 5):
            with contextlib.suppress(TornFrameError):
                convert(bytes(size), (8, 4), name)
                taken.append(size)
        assert len(taken) == 1  # 32 pixels are whole groups in every packing
        for wrong in (0, taken[0] - 1, taken[0] + 1):
            with pytest.raises(TornFrameError, match=f"got {wrong} bytes for 8x4 px of {name}, allowed: {taken[0]}"):
                convert(bytes(wrong), (8, 4), name)
        return taken[0]

    def test_one_size_is_right_and_the_picture_owns_its_memory(self, name: str) -> None:
        data = bytearray(self.exact(name))
        image = convert(data, (8, 4), name)  # type: ignore[arg-type]
        assert (image.shape, image.dtype, image.flags.c_contiguous, image.flags.writeable) == (
            (4, 8, 3), np.uint8, True, True,
        )  # fmt: skip
        before = image.copy()
        data[:] = b"\xff" * len(data)  # the buffer goes back to the driver
        np.testing.assert_array_equal(image, before)

    def test_rows_may_be_padded_the_last_one_need_not(self, name: str) -> None:
        row = self.exact(name) // 4
        data = np.random.default_rng(1).integers(0, 256, (4, row), np.uint8)
        plain = convert(data.tobytes(), (8, 4), name)
        padded = np.pad(data, ((0, 0), (0, 3)), constant_values=99).tobytes()
        for cut in (0, 3):
            image = convert(padded[: len(padded) - cut], (8, 4), name, row_bytes=row + 3)
            np.testing.assert_array_equal(image, plain)
        for wrong in (padded[:-4], padded + b"\0"):
            with pytest.raises(TornFrameError, match=f"in rows of {row + 3} bytes, allowed: "):
                convert(wrong, (8, 4), name, row_bytes=row + 3)
        with pytest.raises(TornFrameError, match=f"rows of at least {row}"):
            convert(padded, (8, 4), name, row_bytes=row - 1)

    @pytest.mark.parametrize("size_px", [(0, 4), (8, 0), (-8, -4)])
    def test_no_pixels_are_no_picture(self, name: str, size_px: tuple[int, int]) -> None:
        with pytest.raises(TornFrameError, match=r"at least [13]x"):
            convert(b"", size_px, name)


@pytest.mark.parametrize("name", ["", "mono8", "0x1080001", "Coord3D_C16", "JPEG"])
def test_another_format_is_named_with_those_that_are_taken(name: str) -> None:
    with pytest.raises(TornFrameError, match=f"'line-camera': got a frame of pixel format '{name}', allowed: Mono8, "):
        convert(bytes(32), (8, 4), name)


def test_opencv_names_the_mosaic_as_expected() -> None:
    """Its short names are shifted by one pixel; should a release change the long ones, this says so first."""
    assert cv2.COLOR_BayerRGGB2BGR == cv2.COLOR_BayerBG2BGR
