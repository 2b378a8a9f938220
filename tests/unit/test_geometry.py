"""Boxes and grids, mostly as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from differad_edge.errors import BoxError
from differad_edge.geometry import (
    GRID,
    clip_box,
    from_grid,
    grow_box,
    invert_affine,
    iou,
    iou_matrix,
    tight_box,
    to_grid,
    transform_box,
    union_box,
)
from differad_edge.results import Box

SIDES = st.integers(16, 5000)


@st.composite
def boxes(draw: st.DrawFn, low: float = -2000, high: float = 2000) -> Box:
    x1, y1 = draw(st.floats(low, high - 1)), draw(st.floats(low, high - 1))
    return Box(x1, y1, draw(st.floats(x1 + 0.5, high)), draw(st.floats(y1 + 0.5, high)))


@st.composite
def images_with_box(draw: st.DrawFn) -> tuple[int, int, Box]:
    width, height = draw(SIDES), draw(SIDES)
    x1, y1 = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    x2, y2 = draw(st.floats(x1 + 0.01, width)), draw(st.floats(y1 + 0.01, height))
    return width, height, Box(x1, y1, x2, y2)


@given(boxes(), boxes())
def test_iou_is_symmetric_and_between_zero_and_one(a: Box, b: Box) -> None:
    assert 0.0 <= iou(a, b) <= 1.0
    assert iou(a, b) == pytest.approx(iou(b, a), abs=1e-12)
    assert iou(a, a) == pytest.approx(1.0)


@given(st.lists(boxes(), max_size=4), st.lists(boxes(), max_size=4))
def test_iou_matrix_agrees_with_iou(a: list[Box], b: list[Box]) -> None:
    matrix = iou_matrix(a, b)
    assert matrix.shape == (len(a), len(b))
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            assert matrix[i, j] == pytest.approx(iou(first, second), abs=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),  # a corner each
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),  # edges touch: exclusive, so nothing is shared
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),  # one inside the other
        ((0, 0, 1, 1), (5, 5, 6, 6), 0.0),  # apart
    ],
)
def test_iou_by_hand(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    assert iou(Box(*a), Box(*b)) == pytest.approx(expected)


def test_iou_matrix_refuses_other_shapes() -> None:
    with pytest.raises(BoxError, match=r"got an array of shape \(3, 2\), allowed: \(N, 4\)"):
        iou_matrix(np.zeros((3, 2)), [])


@given(st.lists(boxes(), min_size=1, max_size=5))
def test_union_holds_every_box_and_nothing_less(items: list[Box]) -> None:
    union = union_box(items)
    assert all(clip_of(box, union) == box for box in items)
    assert union.x1 in [b.x1 for b in items]
    assert union.y2 in [b.y2 for b in items]


def clip_of(box: Box, outer: Box) -> Box:
    return Box(max(box.x1, outer.x1), max(box.y1, outer.y1), min(box.x2, outer.x2), min(box.y2, outer.y2))


def test_union_of_nothing_is_refused() -> None:
    with pytest.raises(BoxError, match="got none, allowed: at least one"):
        union_box([])


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_tight_box_holds_every_pixel_and_touches_one_on_each_side(mask: np.ndarray) -> None:
    box = tight_box(mask)
    if box is None:
        assert not mask.any()
        return
    x1, y1, x2, y2 = map(int, box)
    assert mask[y1:y2, x1:x2].sum() == mask.sum()
    inside = mask[y1:y2, x1:x2]
    assert inside[0].any()
    assert inside[-1].any()
    assert inside[:, 0].any()
    assert inside[:, -1].any()


@given(boxes(), SIDES, SIDES)
def test_clip_stays_inside_both(box: Box, width: int, height: int) -> None:
    clipped = clip_box(box, width, height)
    if clipped is None:
        assert box.x2 <= 0 or box.y2 <= 0 or box.x1 >= width or box.y1 >= height
        return
    assert clipped.x1 >= 0
    assert clipped.x2 <= width
    assert clipped.y1 >= 0
    assert clipped.y2 <= height
    assert iou(clipped, box) == pytest.approx(clipped.area / box.area)
    assert clip_box(clipped, width, height) == clipped


@given(images_with_box(), st.floats(0, 300))
def test_grown_box_holds_the_box_and_stays_in_the_image(case: tuple[int, int, Box], margin_px: float) -> None:
    width, height, box = case
    grown = grow_box(box, margin_px, width, height)
    assert grown.x1 == max(0.0, box.x1 - margin_px)
    assert grown.y2 == min(float(height), box.y2 + margin_px)
    assert grown.area >= box.area


@pytest.mark.parametrize("margin_px", [-0.5, math.nan, math.inf])
def test_margins_that_make_no_sense_are_refused(margin_px: float) -> None:
    with pytest.raises(BoxError, match=r"margin_px: got .*allowed: a finite number >= 0"):
        grow_box(Box(1, 1, 2, 2), margin_px, 10, 10)


def test_growing_a_box_outside_the_image_is_refused() -> None:
    with pytest.raises(BoxError, match="lies outside the image of 10x10 px"):
        grow_box(Box(50, 50, 60, 60), 2, 10, 10)


@given(images_with_box())
def test_grid_round_trip_loses_at_most_one_step(case: tuple[int, int, Box]) -> None:
    width, height, box = case
    grid = to_grid(box, width, height)
    assert grid[0] < grid[2]
    assert grid[1] < grid[3]  # so it never reads as the "no anomaly" box
    assert all(0 <= step <= GRID for step in grid)
    back = from_grid(grid, width, height)
    assert max(abs(back.x1 - box.x1), abs(back.x2 - box.x2)) <= width / GRID + 1e-9
    assert max(abs(back.y1 - box.y1), abs(back.y2 - box.y2)) <= height / GRID + 1e-9


@given(st.tuples(*[st.integers(0, GRID)] * 4), SIDES, SIDES)
def test_every_valid_grid_box_survives_the_pixels(grid: tuple[int, ...], width: int, height: int) -> None:
    x1, y1, x2, y2 = grid
    if x2 <= x1 or y2 <= y1:
        with pytest.raises(BoxError):
            from_grid(grid, width, height)
        return
    assert to_grid(from_grid(grid, width, height), width, height) == grid


@pytest.mark.parametrize(
    "grid",
    [
        (0, 0, 0, 0),  # "no anomaly" is no box
        (10, 10, 5, 20),  # reversed
        (0, 0, 1001, 5),  # pixels mistaken for grid steps
        (-1, 0, 5, 5),
        (0.5, 0, 5, 5),  # not an integer
        (0, 0, 5),
        (False, 0, 5, 5),
    ],
)
def test_invalid_grids_are_refused(grid: tuple[int, ...]) -> None:
    with pytest.raises(BoxError, match="allowed"):
        from_grid(grid, 100, 100)


def test_a_box_outside_the_image_has_no_grid() -> None:
    with pytest.raises(BoxError, match=r"got \(0.0, 0.0, 101.0, 5.0\), allowed: inside the image of 100x100 px"):
        to_grid(Box(0, 0, 101, 5), 100, 100)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    angle, scale = draw(st.floats(-math.pi, math.pi)), draw(st.floats(0.5, 2))
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    dx, dy = draw(st.floats(-100, 100)), draw(st.floats(-100, 100))
    return np.array([[cosine, -sine, dx], [sine, cosine, dy]])


@given(affines())
def test_inverse_undoes_the_map(matrix: np.ndarray) -> None:
    square = np.vstack([matrix, [0, 0, 1]])
    inverse = np.vstack([invert_affine(matrix), [0, 0, 1]])
    np.testing.assert_allclose(inverse @ square, np.eye(3), atol=1e-6)


@given(boxes(0, 500), affines())
def test_transformed_box_holds_the_transformed_corners_tightly(box: Box, matrix: np.ndarray) -> None:
    out = transform_box(box, matrix)
    corners = np.array([[x, y, 1] for x in (box.x1, box.x2) for y in (box.y1, box.y2)]) @ matrix.T
    np.testing.assert_allclose([out.x1, out.y1], corners.min(axis=0), atol=1e-6)
    np.testing.assert_allclose([out.x2, out.y2], corners.max(axis=0), atol=1e-6)


def test_transform_takes_six_values_row_by_row() -> None:
    assert transform_box(Box(1, 2, 3, 4), (1, 0, 10, 0, 1, 20)) == Box(11, 22, 13, 24)


@pytest.mark.parametrize("matrix", [np.eye(3), np.full((2, 3), np.nan), (1, 2, 3)])
def test_no_affine_is_refused(matrix: object) -> None:
    with pytest.raises(ValueError, match="allowed: 2x3"):
        transform_box(Box(0, 0, 1, 1), matrix)  # type: ignore[arg-type]


def test_a_flat_map_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="which has no inverse"):
        invert_affine([[1, 2, 0], [2, 4, 0]])
