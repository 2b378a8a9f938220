"""Heat map -> candidates."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from differad_edge.engines.heatmap import HeatmapRule, candidates_of
from differad_edge.results import Box

RULE = HeatmapRule(floor=0.2, extent_share=0.5, bridge_cells=1, score_cells=4)


def blank(height: int = 20, width: int = 30) -> np.ndarray:
    return np.zeros((height, width), np.float32)


def test_a_warm_rectangle_becomes_its_box_in_pixels() -> None:
    heat = blank()
    heat[4:8, 10:16] = 0.8
    score, found = candidates_of(heat, 2, RULE)
    assert [c.box for c in found] == [Box(20, 8, 32, 16)]
    assert math.isclose(score, 0.8, abs_tol=1e-6)
    assert found[0].mask is not None
    assert found[0].mask.shape == (8, 12)
    assert found[0].mask.all()


def test_a_lone_hot_cell_counts_for_its_share_of_the_score_cells() -> None:
    heat = blank()
    heat[5, 5] = 1.0
    score, found = candidates_of(heat, 2, RULE)
    assert math.isclose(score, 1 / RULE.score_cells, abs_tol=1e-6)
    assert len(found) == 1


def test_the_skirt_below_half_the_peak_does_not_widen_the_box() -> None:
    heat = blank()
    heat[2:18, 2:28] = 0.3
    heat[8:12, 10:14] = 0.9
    _, found = candidates_of(heat, 1, RULE)
    assert found[0].box == Box(10, 8, 14, 12)


def test_two_places_stay_two_and_the_stronger_comes_first() -> None:
    heat = blank()
    heat[2:6, 2:6] = 0.5
    heat[12:16, 20:26] = 0.9
    score, found = candidates_of(heat, 2, RULE)
    assert [c.box for c in found] == [Box(40, 24, 52, 32), Box(4, 4, 12, 12)]
    assert score == found[0].score > found[1].score


def test_the_image_score_is_continuous_below_the_floor() -> None:
    heat = blank()
    heat[5:9, 5:9] = 0.19
    score, found = candidates_of(heat, 2, RULE)
    assert found == ()
    assert math.isclose(score, 0.19, abs_tol=1e-6)


def test_a_heat_map_with_nan_gives_a_score_that_the_decision_refuses() -> None:
    heat = blank()
    heat[0, 0] = np.nan
    score, found = candidates_of(heat, 2, RULE)
    assert math.isnan(score)
    assert found == ()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (12, 17), elements=st.floats(0, 1, width=32)))
def test_candidates_lie_inside_and_are_sorted(heat: np.ndarray) -> None:
    score, found = candidates_of(heat, 2, RULE)
    assert 0 <= score <= 1
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    for c in found:
        assert 0 <= c.box.x1 < c.box.x2 <= 34
        assert 0 <= c.box.y1 < c.box.y2 <= 24
        assert c.mask is not None
        assert c.mask.shape == (c.box.height, c.box.width)
