"""A picture brought to where it is compared, and what was found there brought back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scenes import Image
from varying import felt, loose_pin, pin

from differad_edge.engines.appearance.features import WORK_AREA_PX, fitted
from differad_edge.engines.appearance.pose import PoseFrame, find_outline, frame_of
from differad_edge.engines.appearance.views import View, view_of


def frame_for(image: Image) -> PoseFrame:
    frame = frame_of([find_outline(image)], WORK_AREA_PX)
    assert frame is not None
    return frame


def view(image: Image, frame: PoseFrame | None) -> View:
    shown = view_of(image, frame, 16)
    assert shown is not None
    return shown


def middle_of(heat: NDArray[np.float32], size: tuple[int, int]) -> tuple[float, float]:
    """Centre of mass of a map over a picture of ``size``, px from its edge."""
    rows, columns = np.indices(heat.shape)
    x, y = ((heat * (axis + 0.5)).sum() / heat.sum() for axis in (columns, rows))
    return float(x * size[0] / heat.shape[1]), float(y * size[1] / heat.shape[0])


# -- as it lies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(320, 240), (50, 200), (1200, 800)])
def test_without_a_frame_all_of_the_picture_is_shown(size: tuple[int, int]) -> None:
    image = felt(1, size)
    shown = view(image, None)
    assert np.array_equal(shown.image, fitted(image, 16))
    assert shown.size == size
    rows, columns = shown.grid
    assert max(rows, columns) == 200
    assert columns / rows == pytest.approx(size[0] / size[1], rel=0.05)


def one_hot(shown: View, stride: int, place: tuple[float, float]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """(a map with a hot cell at that share of the width and height, smoothed as maps are; its middle in the picture)"""
    cells = np.zeros((shown.image.shape[0] // stride, shown.image.shape[1] // stride), np.float32)
    row, column = int(place[1] * cells.shape[0]), int(place[0] * cells.shape[1])
    cells[row, column] = 1
    smooth = cv2.GaussianBlur(cells, (0, 0), 0.7)
    middle = (column + 0.5) * shown.size[0] / cells.shape[1], (row + 0.5) * shown.size[1] / cells.shape[0]
    return np.asarray(smooth / smooth.max(), np.float32), middle


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(250, 500), st.integers(250, 500)),
    place=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
    stride=st.sampled_from([4, 8]),
)
def test_a_hot_cell_is_told_where_it_lies(size: tuple[int, int], place: tuple[float, float], stride: int) -> None:
    shown = view(np.zeros((size[1], size[0], 3), np.uint8), None)
    hot, middle = one_hot(shown, stride, place)
    heat = shown.in_picture(hot)
    assert heat.shape == shown.grid
    cell_px = max(size) / 200
    assert middle_of(heat, size) == pytest.approx(middle, abs=0.6 * cell_px)
    assert heat.max() > 0.6


@pytest.mark.parametrize(
    "size",
    [
        (1600, 800),
        (2400, 240),
    ],
)
def test_no_hot_cell_is_lost(size: tuple[int, int]) -> None:
    shown = view(np.zeros((size[1], size[0], 3), np.uint8), None)
    for share in np.linspace(0.2, 0.8, 61):
        hot, _ = one_hot(shown, 4, (float(share), 0.5))
        assert shown.in_picture(hot).max() > 0.6


def test_an_even_map_stays_even() -> None:
    shown = view(felt(1), None)
    assert np.array_equal(shown.in_picture(np.full((40, 60), 0.7, np.float32)), np.full(shown.grid, np.float32(0.7)))


# -- in the part's own frame -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stride", [4, 8])
def test_a_hot_cell_of_a_turned_part_is_told_where_it_lies_in_the_picture(seed: int, stride: int) -> None:
    frame = frame_for(pin((200, 150), 0))
    image, spot = loose_pin(seed, spot=True)
    shown = view(image, frame)
    # The spot is the darkest place of the view but for nothing: shaft, head and background are lighter.
    dark = (shown.image.max(2) < 45).astype(np.float32)
    cells = dark.reshape(dark.shape[0] // stride, stride, dark.shape[1] // stride, stride).mean((1, 3))
    heat = shown.in_picture(cells)
    assert heat.shape == shown.grid
    assert middle_of(heat, shown.size) == pytest.approx(spot, abs=1.5)


def test_there_is_nothing_outside_of_the_part_s_frame() -> None:
    image = pin((200, 150), 30)
    shown = view(image, frame_for(image))
    rows, columns = shown.image.shape[0] // 8, shown.image.shape[1] // 8
    heat = shown.in_picture(np.ones((rows, columns), np.float32))
    assert heat[heat.shape[0] // 2, heat.shape[1] // 2] == pytest.approx(1)
    corners = [heat[0, 0], heat[0, -1], heat[-1, 0], heat[-1, -1]]
    assert corners == [0, 0, 0, 0]
    # As large as the view is, in the picture: 200 cells for 400 px.
    assert heat.sum() * 4 == pytest.approx(shown.image.shape[0] * shown.image.shape[1] / 1.5**2, rel=0.03)


def test_large_parts_are_shown_smaller_and_told_at_their_place() -> None:
    size = (2400, 1800)
    large = pin((1300, 850), 200, size=size, zoom=6, spot=True)
    frame = frame_for(large)
    assert frame.zoom < 0.8
    shown = view(large, frame)
    assert shown.image.shape[0] * shown.image.shape[1] < 1.15 * WORK_AREA_PX
    dark = (shown.image.max(2) < 45).astype(np.float32)
    x, y = middle_of(shown.in_picture(dark), size)
    turn = np.radians(200)
    spot = np.array([1300, 850]) + 0.45 * 6 * 50 * np.array([np.cos(turn), np.sin(turn)])
    assert (x, y) == pytest.approx(tuple(spot), abs=12)  # a cell of the grid


def test_where_no_pose_is_found_there_is_no_view() -> None:
    frame = frame_for(pin((200, 150), 0))
    assert view_of(np.full((300, 400, 3), 60, np.uint8), frame, 16) is None
    crossing = np.full((300, 400, 3), 60, np.uint8)
    crossing[100:200] = 190
    assert view_of(crossing, frame, 16) is None
