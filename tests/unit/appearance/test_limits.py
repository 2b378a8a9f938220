"""How far good parts lie from each other, and distances in units of that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.engines.appearance.limits import Limits
from differad_edge.engines.appearance.memory import Maps

HIGH, WIDE = 40, 60
#: Shares of the height and width: places so far apart that what varies at one does not count at another.
PLACES = [(0.1, 0.1), (0.1, 0.9), (0.9, 0.1), (0.9, 0.9), (0.5, 0.5)]


def even_maps(deep: float = 1.0, fine: float = 0.5) -> Maps:
    return Maps(np.full((HIGH, WIDE), deep, np.float32), np.full((2 * HIGH, 2 * WIDE), fine, np.float32))


def random_maps(seed: int, scale: float = 1.0) -> Maps:
    rng = np.random.default_rng(seed)
    deep, fine = rng.uniform(0.5, 1, (HIGH, WIDE)), rng.uniform(0.1, 1, (2 * HIGH, 2 * WIDE))
    return Maps((scale * deep).astype(np.float32), (scale * fine).astype(np.float32))


def with_spot(
    maps: Maps, place: tuple[float, float] = (0.5, 0.5), *, deep: float | None = None, fine: float | None = None
) -> Maps:
    """A single cell of that value."""
    out = Maps(maps.deep.copy(), maps.fine.copy())
    for plane, value in ((out.deep, deep), (out.fine, fine)):
        if value is not None:
            plane[int(place[0] * plane.shape[0]), int(place[1] * plane.shape[1])] = value
    return out


# -- leaving each out --------------------------------------------------------------------------------------------------


def test_the_farthest_good_part_lies_at_the_limit() -> None:
    maps = [with_spot(even_maps(), PLACES[i], deep=value) for i, value in enumerate((1.1, 1.2, 1.4, 1.3))]
    limits, ratios = Limits.of(maps)
    assert limits.deep == pytest.approx(1.4)
    assert ratios == pytest.approx((1, 1, 1, 1))  # the fine maps are all alike
    maps = [with_spot(maps[i], PLACES[i], fine=value) for i, value in enumerate((0.6, 0.9, 0.7, 0.8))]
    limits, ratios = Limits.of(maps)
    assert limits.fine == pytest.approx(0.9)
    # The worse of both maps counts.
    assert ratios == pytest.approx((1.1 / 1.4, 1, 1, 1.3 / 1.4))


@pytest.mark.parametrize("which", ["deep", "fine"])
def test_one_that_lies_far_from_all_does_not_set_the_limit(which: str) -> None:
    usual = {"deep": 1.2, "fine": 0.6}[which]
    maps = [with_spot(even_maps(), place, **{which: usual}) for place in PLACES[:4]]
    maps.append(with_spot(even_maps(), PLACES[4], **{which: 4 * usual}))
    limits, ratios = Limits.of(maps)
    assert getattr(limits, which) == pytest.approx(1.5 * usual)
    assert ratios[4] == pytest.approx(4 / 1.5)
    assert max(ratios[:4]) <= 1 + 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scales=st.lists(st.floats(0.5, 10), min_size=2, max_size=7), seed=st.integers(0, 99))
def test_the_worst_ratio_is_one_or_more(scales: list[float], seed: int) -> None:
    limits, ratios = Limits.of([random_maps(seed + i, scale) for i, scale in enumerate(scales)])
    assert len(ratios) == len(scales)
    assert max(ratios) >= 1 - 1e-6
    for spread in (limits.deep_spread, limits.fine_spread):
        assert np.isfinite(spread).all()
        assert spread.min() > 0


def test_a_part_does_not_widen_the_spread_that_it_is_measured_in() -> None:
    maps = [even_maps() for _ in range(3)]
    maps[1].deep[:] = 1.4
    _, ratios = Limits.of(maps)
    # The others are all at 1, and 1.4 times as far is no outlier.
    assert ratios[1] == pytest.approx(1)
    limits, _ = Limits.of(maps)
    assert limits.deep == pytest.approx(1.4)


def test_the_order_of_parts_does_not_matter() -> None:
    maps = [random_maps(seed, 1 + seed / 10) for seed in range(4)]
    limits, ratios = Limits.of(maps)
    turned, turned_ratios = Limits.of(maps[::-1])
    assert turned.deep == pytest.approx(limits.deep)
    assert turned.fine == pytest.approx(limits.fine)
    assert turned_ratios[::-1] == pytest.approx(ratios)


# -- the spread --------------------------------------------------------------------------------------------------------


def varying_on_the_left(parts: int) -> list[Maps]:
    maps = [random_maps(seed) for seed in range(parts)]
    for one in maps:
        one.deep[:, : WIDE // 3] *= 3
        one.fine[:, : 2 * WIDE // 3] *= 3
    return maps


def test_the_spread_is_larger_where_good_parts_vary() -> None:
    limits, _ = Limits.of(varying_on_the_left(4))
    for spread in (limits.deep_spread, limits.fine_spread):
        left, right = spread[:, spread.shape[1] // 8], spread[:, -spread.shape[1] // 8]
        assert left.min() > 1.5 * right.max()


def test_more_parts_are_believed_more() -> None:
    contrasts = []
    for parts in (2, 8):
        spread = Limits.of(varying_on_the_left(parts))[0].deep_spread
        contrasts.append(float(spread[:, 0].mean() / spread[:, -1].mean()))
    assert 1 < contrasts[0] < contrasts[1]


def test_the_same_distance_counts_less_where_good_parts_vary() -> None:
    limits, _ = Limits.of(varying_on_the_left(4))
    found = limits.ratios(even_maps(deep=5)).deep
    assert found[:, 3].max() < 0.7 * found[:, -3].min()


# -- ratios ------------------------------------------------------------------------------------------------------------


def test_a_good_part_of_those_learned_from_stays_around_the_limit_and_a_far_one_does_not() -> None:
    maps = [random_maps(seed) for seed in range(5)]
    limits, _ = Limits.of(maps)
    for one in maps:
        ratios = limits.ratios(one)
        assert 0.5 < ratios.deep.max() < 1.2
        assert 0.5 < ratios.fine.max() < 1.2
    far = limits.ratios(with_spot(maps[0], deep=10, fine=10))
    for plane in (far.deep, far.fine):
        assert plane.max() > 5
        assert plane.argmax() == (plane.shape[0] // 2) * plane.shape[1] + plane.shape[1] // 2


@pytest.mark.parametrize("shape", [(2 * HIGH, 2 * WIDE), (17, 90), (80, 20), (1, 1)])
def test_a_fine_map_of_another_size_keeps_its_size(shape: tuple[int, int]) -> None:
    limits, _ = Limits.of([even_maps() for _ in range(3)])
    ratios = limits.ratios(Maps(even_maps().deep, np.full(shape, 0.5, np.float32)))
    assert ratios.fine.shape == shape
    np.testing.assert_allclose(ratios.fine, 1, rtol=1e-5)


def test_parts_of_another_size_are_learned_from_too() -> None:
    large = Maps(even_maps().deep, np.full((3 * HIGH, 3 * WIDE), 0.5, np.float32))
    limits, ratios = Limits.of([even_maps(), large, even_maps()])
    assert limits.fine_spread.shape == (2 * HIGH, 2 * WIDE)
    assert ratios == pytest.approx((1, 1, 1))


def test_a_rougher_part_is_measured_by_its_own_roughness() -> None:
    limits, _ = Limits.of([random_maps(seed) for seed in range(3)])
    part = random_maps(7)
    usual, rough = limits.ratios(part).fine, limits.ratios(Maps(part.deep, 3 * part.fine)).fine
    np.testing.assert_allclose(rough, usual, rtol=1e-4)


def test_an_even_part_is_not_blown_up_without_end() -> None:
    limits, _ = Limits.of([random_maps(seed) for seed in range(3)])
    part = random_maps(7)
    faint = limits.ratios(Maps(part.deep, part.fine * np.float32(1e-3))).fine
    assert faint.max() < 0.02 * limits.ratios(part).fine.max()


@pytest.mark.parametrize("value", [0.0, 1e-12, 1.0])
def test_identical_parts_divide_nothing_by_zero(value: float) -> None:
    with np.errstate(all="raise"):
        limits, ratios = Limits.of([even_maps(value, value) for _ in range(3)])
        found = limits.ratios(even_maps(value, value))
    assert all(0 <= ratio <= 1 + 1e-6 for ratio in ratios)
    assert max(found.deep.max(), found.fine.max()) <= 1 + 1e-6
    assert limits.ratios(even_maps(value + 1, value)).deep.min() > 1


def test_even_limits_are_the_same_everywhere() -> None:
    part = random_maps(1)
    limits = Limits.even(part, deep=4.0, fine=2.0)
    ratios = limits.ratios(part)
    np.testing.assert_allclose(ratios.deep, part.deep / 4, rtol=1e-5)
    np.testing.assert_allclose(ratios.fine, part.fine / 2, rtol=1e-5)  # as rough as itself
