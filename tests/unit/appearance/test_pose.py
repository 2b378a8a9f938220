"""Where a part lies and how it is turned."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scenes import Image, noisy, relit
from varying import pin

from differad_edge.engines.appearance.pose import Outline, PoseFrame, find_outline, frame_of

AREA = 448.0 * 448.0


def empty(size: tuple[int, int] = (400, 300), shade: int = 60) -> Image:
    return noisy(np.full((size[1], size[0], 3), shade, np.uint8), 2.0, 0)


def found(image: Image) -> Outline:
    outline = find_outline(image)
    assert outline is not None
    return outline


def framed(image: Image, frame: PoseFrame, outline: Outline) -> NDArray[np.float32]:
    """The part in its own frame."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = frame.to_image(outline)
    return cv2.warpAffine(image, matrix, frame.size(16), flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(
        np.float32
    )


# -- the outline -------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(x=st.floats(120, 280), y=st.floats(110, 190), angle=st.floats(0, 360), seed=st.integers(0, 9))
def test_a_pin_looks_the_same_wherever_and_however_it_lies(x: float, y: float, angle: float, seed: int) -> None:
    upright = pin((200, 150), 0)
    frame = frame_of([found(upright)], AREA)
    assert frame is not None
    wanted = framed(upright, frame, found(upright))
    image = pin((x, y), angle, seed=seed)
    got = framed(image, frame, found(image))
    turned_round = np.abs(got[::-1, ::-1] - wanted).mean()
    assert np.abs(got - wanted).mean() < 0.2 * turned_round


@pytest.mark.parametrize("angle", [0, 35, 90, 180, 290])
def test_the_axis_points_to_the_end_that_reaches_farther(angle: float) -> None:
    outline = found(pin((200, 150), angle))
    # The head is heavy, so the shaft reaches farther from the centre of mass.
    shaft = -np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    assert outline.along @ shaft > 0.995
    assert outline.lengthwise[1] > -outline.lengthwise[0]
    assert outline.has_pose


def test_it_is_measured_in_pixels_of_the_picture() -> None:
    image = np.full((300, 400, 3), 60, np.uint8)
    image[130:170, 100:220] = 200  # 120 x 40, its middle at (159.5, 149.5)
    for zoom in (1, 4):  # large pictures are looked at reduced
        large = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
        outline = found(np.asarray(large, np.uint8))
        assert outline.centre == pytest.approx((160 * zoom - 0.5, 150 * zoom - 0.5), abs=1.0 * zoom)
        assert outline.lengthwise[1] - outline.lengthwise[0] == pytest.approx(120 * zoom, abs=3 * zoom)
        assert outline.crosswise[1] - outline.crosswise[0] == pytest.approx(40 * zoom, abs=3 * zoom)
        assert outline.elongation == pytest.approx(3, rel=0.05)
        assert abs(outline.along[0]) == pytest.approx(1, abs=1e-3)
        assert outline.on_border == 0


def test_light_that_falls_off_to_a_side_moves_nothing() -> None:
    image = pin((190, 140), 25)
    even, uneven = found(image), found(relit(image, gradient=0.6))
    assert uneven.centre == pytest.approx(even.centre, abs=3)
    assert uneven.along @ even.along > 0.99


def test_a_dark_part_on_light_is_found_like_a_light_one_on_dark() -> None:
    image = pin((190, 140), 25)
    light, dark = found(image), found(np.asarray(255 - image, np.uint8))
    assert dark.centre == pytest.approx(light.centre, abs=1)
    assert dark.along @ light.along > 0.999


def test_a_hole_is_part_of_the_part() -> None:
    plate = empty()
    cv2.rectangle(plate, (100, 110), (300, 190), (180, 180, 180), -1)
    holed = plate.copy()
    cv2.circle(holed, (150, 150), 28, (60, 60, 60), -1)
    assert found(holed).centre == pytest.approx(found(plate).centre, abs=1)
    assert found(holed).elongation == pytest.approx(found(plate).elongation, rel=0.02)


def test_the_largest_thing_is_the_part() -> None:
    image = pin((190, 140), 25)
    alone = found(image).centre
    cv2.rectangle(image, (20, 250), (45, 275), (200, 200, 200), -1)
    assert found(image).centre == pytest.approx(alone, abs=1)


@pytest.mark.parametrize("shade", [0, 60, 255])
def test_nothing_is_found_in_an_empty_picture(shade: int) -> None:
    assert find_outline(empty(shade=shade)) is None
    assert find_outline(relit(empty(shade=shade), gradient=0.5)) is None
    assert find_outline(np.full((300, 400, 3), shade, np.uint8)) is None


def test_a_picture_of_the_most_extreme_shape_that_is_allowed_is_looked_at() -> None:
    assert find_outline(np.full((16, 16384, 3), 60, np.uint8)) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(width=st.integers(1, 60), height=st.integers(1, 60), seed=st.integers(0, 9))
def test_what_is_found_in_rubbish_is_finite(width: int, height: int, seed: int) -> None:
    outline = find_outline(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    if outline is not None:
        assert np.isfinite([*outline.centre, *outline.lengthwise, *outline.crosswise]).all()
        assert np.linalg.norm(outline.along) == pytest.approx(1)
        assert outline.along @ outline.across == pytest.approx(0, abs=1e-9)
        assert outline.elongation >= 1


# -- whether there is a pose -------------------------------------------------------------------------------------------


def test_a_round_part_is_found_and_has_no_pose() -> None:
    image = empty()
    cv2.circle(image, (180, 140), 60, (190, 190, 190), -1)
    outline = found(image)
    assert outline.centre == pytest.approx((180, 140), abs=1)
    assert not outline.has_pose
    assert frame_of([outline], AREA) is None


@pytest.mark.parametrize("width_px", [80, 100, 140])
def test_a_strip_that_crosses_the_picture_has_no_pose(width_px: int) -> None:
    image = empty()
    image[100 : 100 + width_px, :] = 190
    outline = find_outline(image)
    assert outline is None or not outline.has_pose


def test_what_covers_much_of_the_rim_has_no_pose_however_long_it_is() -> None:
    whole = outline_of(200, 50)
    assert replace(whole, on_border=0.05).has_pose
    assert not replace(whole, on_border=0.2).has_pose


# -- the frame ---------------------------------------------------------------------------------------------------------


def test_all_parts_must_have_a_pose() -> None:
    pins = [found(pin((200, 150), angle)) for angle in (0, 90)]
    disc = empty()
    cv2.circle(disc, (180, 140), 60, (190, 190, 190), -1)
    assert frame_of(pins, AREA) is not None
    assert frame_of([*pins, None], AREA) is None
    assert frame_of([*pins, found(disc)], AREA) is None
    assert frame_of([], AREA) is None


def outline_of(half_length: float, half_width: float) -> Outline:
    along = np.array([1.0, 0.0])
    spans = ((-half_length, half_length), (-half_width, half_width))
    return Outline(np.array([500.0, 400.0]), along, *spans, elongation=half_length / half_width, on_border=0.0)


def test_it_shows_all_of_the_part_with_a_margin() -> None:
    outline = outline_of(200, 50)
    frame = frame_of([outline], AREA)
    assert frame is not None
    assert frame.lengthwise[0] < -200
    assert frame.lengthwise[1] > 200
    assert frame.crosswise[0] < -50
    assert frame.crosswise[1] > 50


@pytest.mark.parametrize("half_length", [150, 600, 5000])
def test_it_has_about_the_work_area_and_invents_no_pixels(half_length: float) -> None:
    frame = frame_of([outline_of(half_length, half_length / 4)], AREA)
    assert frame is not None
    width, height = frame.size(16)
    assert width % 16 == height % 16 == 0
    assert frame.zoom <= 1.5
    assert width * height < 1.15 * AREA
    if half_length >= 600:
        assert width * height > 0.85 * AREA


def test_one_bad_outline_does_not_set_it() -> None:
    good = [outline_of(200 + i, 50) for i in range(4)]
    alone, beside = frame_of(good, AREA), frame_of([*good, outline_of(900, 300)], AREA)
    assert alone is not None
    assert beside is not None
    assert beside.lengthwise == pytest.approx(alone.lengthwise, rel=0.02)


def test_a_hair_is_no_part() -> None:
    image = empty()
    cv2.line(image, (120, 100), (280, 200), (200, 200, 200), 3)
    hair = found(image)
    assert hair.has_pose
    assert frame_of([hair], AREA) is None


@settings(max_examples=50, deadline=None, derandomize=True)
@given(angle=st.floats(0, 2 * math.pi), zoom=st.floats(0.2, 1.5), u=st.floats(-90, 90), v=st.floats(-40, 40))
def test_places_of_the_part_are_where_the_frame_says(angle: float, zoom: float, u: float, v: float) -> None:
    along = np.array([math.cos(angle), math.sin(angle)])
    outline = Outline(np.array([213.0, 151.0]), along, (-80, 70), (-30, 35), elongation=2.0, on_border=0.0)
    frame = PoseFrame((-90, 80), (-40, 45), zoom)
    in_image = outline.centre + u * outline.along + v * outline.across
    in_frame = (np.array([u + 90, v + 40]) * zoom) - 0.5  # from edges to pixel centres
    assert frame.to_image(outline) @ [*in_frame, 1] == pytest.approx(in_image)
    back = np.linalg.inv(np.vstack([frame.to_image(outline), [0, 0, 1]])) @ [*in_image, 1]
    assert back[:2] == pytest.approx(in_frame, abs=1e-6)
