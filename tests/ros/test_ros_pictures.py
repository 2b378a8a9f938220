"""Image messages as pixels: what is taken, and what is refused by name."""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
import pytest
from differad_edge_ros.pictures import ENCODINGS, picture_of
from hypothesis import given
from hypothesis import strategies as st
from ros_fakes import CompressedPicture, picture

from differad_edge.errors import ImageDecodeError, ImageError, ImageFormatError, ImageSizeError

RNG = np.random.default_rng(1)
COLOUR = cv2.GaussianBlur(RNG.integers(0, 256, (40, 52, 3), dtype=np.uint8), (0, 0), 4)
OPAQUE = np.full((40, 52, 1), 255, np.uint8)
LAYOUTS = {"r": 2, "g": 1, "b": 0}


def mosaic(pixels: Any, pattern: str) -> Any:
    """What a sensor with this pattern (two rows of two) sees of a BGR picture."""
    raw = np.empty(pixels.shape[:2], np.uint8)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        raw[row::2, column::2] = pixels[row::2, column::2, LAYOUTS[colour]]
    return raw


@pytest.mark.parametrize(
    ("pixels", "encoding"),
    [
        (COLOUR, "bgr8"),
        (COLOUR[:, :, ::-1], "rgb8"),
        (np.dstack([COLOUR, OPAQUE]), "bgra8"),
        (np.dstack([COLOUR[:, :, ::-1], OPAQUE]), "rgba8"),
    ],
)
@given(padding=st.integers(0, 9))
def test_colours_come_in_the_right_order_whatever_the_padding(pixels: Any, encoding: str, padding: int) -> None:
    image = picture_of(picture(pixels, encoding, padding))
    assert (image.dtype, image.flags["C_CONTIGUOUS"]) == (np.uint8, True)
    np.testing.assert_array_equal(image, COLOUR)


def test_grey_is_three_times_the_same() -> None:
    grey = COLOUR[:, :, 1]
    np.testing.assert_array_equal(picture_of(picture(grey, "mono8", 3)), np.dstack([grey] * 3))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_gives_the_colours_that_the_sensor_saw(pattern: str) -> None:
    saturated = np.zeros((40, 52, 3), np.uint8)
    saturated[:, :26], saturated[:, 26:] = (220, 40, 10), (15, 60, 200)
    image = picture_of(picture(mosaic(saturated, pattern), f"bayer_{pattern}8"))
    away_from_edges = np.r_[4:22, 30:48]
    np.testing.assert_array_equal(image[4:36, away_from_edges], saturated[4:36, away_from_edges])


def test_a_picture_without_padding_is_not_copied() -> None:
    message = picture(COLOUR)
    message.data = array.array("B", message.data)  # what rclpy gives
    assert np.shares_memory(picture_of(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"encoding": "8UC3"}, ImageFormatError, "image.encoding: got '8UC3', allowed: bgr8, rgb8"),
        ({"encoding": "mono16"}, ImageFormatError, "image.encoding: got 'mono16'"),
        ({"encoding": ""}, ImageFormatError, "image.encoding: got ''"),
        ({"is_bigendian": 7}, ImageFormatError, "image.is_bigendian: got 7, allowed: 0, 1"),
        ({"step": 155}, ImageFormatError, "image.step: got 155 bytes, allowed: at least 156"),
        ({"step": 157}, ImageSizeError, "image.data: got 6240 bytes, allowed: 6280"),
        ({"height": 41}, ImageSizeError, "image.data: got 6240 bytes, allowed: 6396"),
        ({"height": 0}, ImageSizeError, "image: got an empty image"),
        ({"width": 0}, ImageSizeError, "image: got an empty image"),
        ({"data": b""}, ImageSizeError, "image.data: got 0 bytes"),
        ({"data": 5}, ImageFormatError, "image.data: got int"),
        ({"width": 10**9, "step": 3 * 10**9}, ImageSizeError, "allowed: sides of at most"),
    ],
)
def test_what_is_doubtful_is_refused_by_name(changes: dict[str, Any], error: type[ImageError], message: str) -> None:
    given_message = picture(COLOUR)
    for name, value in changes.items():
        setattr(given_message, name, value)
    with pytest.raises(error) as caught:
        picture_of(given_message)
    assert message in str(caught.value)


def test_an_alpha_channel_that_hides_something_is_refused() -> None:
    alpha = OPAQUE.copy()
    alpha[3, 3] = 0
    for encoding in ("bgra8", "rgba8"):
        with pytest.raises(ImageFormatError, match="alpha"):
            picture_of(picture(np.dstack([COLOUR, alpha]), encoding))


def test_a_mosaic_that_calls_itself_grey_is_refused() -> None:
    saturated = np.full((40, 52, 3), (220, 40, 10), np.uint8)
    with pytest.raises(ImageFormatError, match="Bayer"):
        picture_of(picture(mosaic(saturated, "rggb"), "mono8"))


@pytest.mark.parametrize("stated", ["png", "bgr8; png compressed ", "rgb8; png compressed bgr8"])
def test_a_compressed_image_is_decoded(stated: str) -> None:
    data = cv2.imencode(".png", COLOUR)[1].tobytes()
    np.testing.assert_array_equal(picture_of(CompressedPicture(stated, array.array("B", data))), COLOUR)


@pytest.mark.parametrize(
    ("stated", "data", "error"),
    [
        ("16UC1; compressedDepth png", cv2.imencode(".png", COLOUR)[1].tobytes(), ImageFormatError),
        ("bayer_rggb8; jpeg compressed ", cv2.imencode(".jpg", COLOUR[:, :, 0])[1].tobytes(), ImageFormatError),
        ("png", cv2.imencode(".png", COLOUR.astype(np.uint16) * 200)[1].tobytes(), ImageFormatError),
        ("jpeg", b"", ImageDecodeError),
        ("jpeg", b"no image", ImageDecodeError),
        ("jpeg", cv2.imencode(".png", COLOUR)[1].tobytes()[:200], ImageDecodeError),
    ],
)
def test_a_compressed_image_that_is_none_is_refused(stated: str, data: bytes, error: type[ImageError]) -> None:
    with pytest.raises(error):
        picture_of(CompressedPicture(stated, data))


def test_the_encodings_are_those_of_eight_bits() -> None:
    assert len(ENCODINGS) == 9
    assert all(name.endswith("8") for name in ENCODINGS)
