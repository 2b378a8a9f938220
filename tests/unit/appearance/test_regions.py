"""From maps of ratios to candidates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from differad_edge.engines.appearance.regions import Growth, candidates_in, score_of, without_echoes
from differad_edge.engines.base import Candidate
from differad_edge.results import Box

SIZE = (300, 200)
TO_LEAST = Growth(least=0.6, share=0.0, bridge_cells=0)
TO_SHARE = Growth(least=0.6, share=0.5, bridge_cells=0)


def blank(height: int = 20, width: int = 30) -> NDArray[np.float32]:
    return np.zeros((height, width), np.float32)


def boxes(ratio: NDArray[np.float32], growth: Growth, size: tuple[int, int] = SIZE) -> list[Box]:
    return [candidate.box for candidate in candidates_in(ratio, size, growth, "{:.2f}")]


# -- scores ------------------------------------------------------------------------------------------------------------


def test_the_limit_is_one_half_and_nothing_reaches_one() -> None:
    assert score_of(0) == 0
    assert score_of(1) == 0.5
    assert score_of(3) == pytest.approx(0.75)
    assert score_of(2) < score_of(2.1) < score_of(1e6) < 1


def test_a_candidate_has_the_score_of_its_peak() -> None:
    ratio = blank()
    ratio[4:8, 10:16] = 0.9
    ratio[5, 12] = 3.0
    (candidate,) = candidates_in(ratio, SIZE, TO_LEAST, "{:.2f} times")
    assert candidate.score == pytest.approx(3 / 4)
    assert candidate.description == "3.00 times"


# -- growth ------------------------------------------------------------------------------------------------------------


def test_a_place_reaches_as_far_as_the_least() -> None:
    ratio = blank()
    ratio[2:12, 5:20] = 0.59
    ratio[4:8, 10:16] = 0.61
    ratio[5, 12] = 5.0
    (candidate,) = candidates_in(ratio, SIZE, TO_LEAST, "")
    assert candidate.box == Box(100, 40, 160, 80)
    assert candidate.mask is not None
    assert candidate.mask.shape == (40, 60)
    assert candidate.mask.all()


def test_around_a_strong_peak_it_reaches_to_its_share() -> None:
    ratio = blank()
    ratio[2:12, 5:20] = 0.9
    ratio[4:8, 10:16] = 1.6
    ratio[5, 12] = 3.0
    assert boxes(ratio, TO_SHARE) == [Box(100, 40, 160, 80)]
    assert boxes(ratio, TO_LEAST) == [Box(50, 20, 200, 120)]
    ratio[5, 12] = 1.7  # its share is 0.85
    assert boxes(ratio, TO_SHARE) == [Box(50, 20, 200, 120)]


def test_a_weak_place_reaches_no_farther_than_the_least() -> None:
    ratio = blank()
    ratio[2:12, 5:20] = 0.5  # above the share of the peak
    ratio[4:8, 10:16] = 0.8
    assert boxes(ratio, TO_SHARE) == [Box(100, 40, 160, 80)]


def test_the_mask_tells_the_shape() -> None:
    ratio = blank()
    ratio[4:8, 10:12] = 1.0
    ratio[6:8, 10:16] = 1.0
    (candidate,) = candidates_in(ratio, SIZE, TO_LEAST, "")
    assert candidate.mask is not None
    wanted = np.zeros((40, 60), bool)
    wanted[:, :20] = wanted[20:] = True
    assert np.array_equal(candidate.mask, wanted)


def test_places_below_the_limit_are_told_and_below_the_least_are_not() -> None:
    ratio = blank()
    ratio[2:4, 2:4] = 0.7
    ratio[10:12, 20:22] = 0.59
    assert boxes(ratio, TO_LEAST) == [Box(20, 20, 40, 40)]
    assert boxes(blank(), TO_LEAST) == []


def test_cells_that_touch_at_a_corner_are_one_place() -> None:
    ratio = blank()
    ratio[4, 4] = ratio[5, 5] = 1.0
    assert boxes(ratio, TO_LEAST) == [Box(40, 40, 60, 60)]


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_a_gap_that_is_bridged_does_not_split_a_place(gap: int) -> None:
    ratio = blank()
    ratio[3:6, 2:6] = 1.0
    ratio[3:6, 6 + gap : 10 + gap] = 1.5
    assert len(boxes(ratio, Growth(0.6, 0.0, bridge_cells=0))) == 2
    (candidate,) = candidates_in(ratio, SIZE, Growth(0.6, 0.0, bridge_cells=gap), "")
    assert candidate.box == Box(20, 30, 10 * (10 + gap), 60)
    assert candidate.score == pytest.approx(0.6)
    assert candidate.mask is not None
    assert candidate.mask.sum() == 2 * 3 * 4 * 100  # the gap is bridged, not claimed


def test_a_wide_gap_splits_a_place_all_the_same() -> None:
    ratio = blank()
    ratio[3:6, 2:6] = 1.0
    ratio[3:6, 12:16] = 1.0
    assert len(boxes(ratio, Growth(0.6, 0.0, bridge_cells=2))) == 2


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    ratio=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=15),
        elements=st.sampled_from([0.0, 0.5, 0.7, 0.9, 1.4, 6.0, 500.0]),
    ),
    size=st.tuples(st.integers(16, 700), st.integers(16, 700)),
    growth=st.builds(Growth, st.sampled_from([0.6, 0.78]), st.sampled_from([0.0, 0.65]), st.integers(0, 2)),
)
def test_boxes_lie_inside_the_picture_with_masks_of_their_extent(
    ratio: NDArray[np.float32], size: tuple[int, int], growth: Growth
) -> None:
    found = candidates_in(ratio, size, growth, "")
    assert bool(found) == bool(ratio.max() >= growth.least)
    for candidate in found:
        x1, y1, x2, y2 = candidate.box
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        assert score_of(growth.least) - 1e-6 <= candidate.score < 1
        assert candidate.mask is not None
        assert candidate.mask.dtype == bool
        assert candidate.mask.shape == (math.ceil(y2) - math.floor(y1), math.ceil(x2) - math.floor(x1))
        assert candidate.mask.any()
    if found:
        assert max(c.score for c in found) == pytest.approx(score_of(float(ratio.max())))


@pytest.mark.parametrize("width", range(101, 300, 3))
def test_no_sum_of_fractions_ends_beyond_the_picture(width: int) -> None:
    ratio = np.zeros((1, 200), np.float32)
    for first in (199, 198, 197):
        ratio[0, first] = 1
        (box,) = boxes(ratio, TO_LEAST, (width, 16))
        assert width - 1e-9 < box.x2 <= width


# -- echoes ------------------------------------------------------------------------------------------------------------


def test_of_two_that_see_the_same_the_stronger_alone_is_kept() -> None:
    strong, echo = Candidate(Box(10, 10, 50, 50), 0.8), Candidate(Box(20, 20, 60, 60), 0.6)
    for found in ([strong, echo], [echo, strong]):
        assert without_echoes(found) == (strong,)


def test_a_small_strong_one_replaces_the_large_weak_one_around_it() -> None:
    strong, around = Candidate(Box(10, 10, 20, 20), 0.9), Candidate(Box(0, 0, 200, 150), 0.6)
    assert without_echoes([around, strong]) == (strong,)


def test_places_beside_each_other_are_all_kept_strongest_first() -> None:
    weak, strong = Candidate(Box(10, 10, 50, 50), 0.6), Candidate(Box(45, 45, 90, 90), 0.9)
    lone = Candidate(Box(150, 10, 190, 40), 0.7)
    assert without_echoes([weak, lone, strong]) == (strong, lone, weak)
    assert without_echoes([]) == ()


def spanned(corner: tuple[int, int], extent: tuple[int, int], score: float) -> Candidate:
    return Candidate(Box(*corner, corner[0] + extent[0], corner[1] + extent[1]), score)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(
        st.builds(
            spanned,
            st.tuples(st.integers(0, 80), st.integers(0, 80)),
            st.tuples(st.integers(1, 60), st.integers(1, 60)),
            st.floats(0.3, 0.9),
        ),
        max_size=8,
    )
)
def test_what_is_dropped_lies_on_something_stronger_that_is_kept(found: list[Candidate]) -> None:
    kept = without_echoes(found)
    assert [c.score for c in kept] == sorted((c.score for c in kept), reverse=True)
    assert (kept[0].score if kept else None) == (max(c.score for c in found) if found else None)
    for candidate in found:
        on = [k for k in kept if k.score >= candidate.score and (k is candidate or overlap(k.box, candidate.box))]
        assert on


def overlap(a: Box, b: Box) -> bool:
    return a.x1 <= b.x2 and b.x1 <= a.x2 and a.y1 <= b.y2 and b.y1 <= a.y2
