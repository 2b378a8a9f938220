"""A device's count and clock, translated into ours."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.cameras.timeline import Timeline

S = 1_000_000_000


@pytest.mark.parametrize(
    ("numbers", "missed"),
    [
        ([7, 8, 9], [0, 0, 0]),
        ([7, 9, 13], [0, 1, 3]),
        ([65_534, 65_535, 1, 2], [0, 0, 0, 0]),  # GigE Vision leaves 0 out
        ([65_533, 2], [0, 3]),
        ([65_535, 65_536, 65_537], [0, 0, 0]),  # one that counts on
        ([65_534, None, 1], [0, 0, 0]),
        ([65_535, None, 2], [0, 0, 0]),
        ([5, 5], [0, None]),
        ([5, 3, 4], [0, 0, 0]),  # begun anew
        ([300, 1, 2], [0, 0, 0]),
        ([None, None, None], [0, 0, 0]),
        ([5, None, 7, None, None, 12], [0, 0, 0, 0, 0, 2]),  # what has no number is the next one
        ([None, 7], [0, 0]),
    ],
)
def test_what_is_missing(numbers: list[int | None], missed: list[int | None]) -> None:
    timeline = Timeline()
    assert [timeline.missed(number) for number in numbers] == missed


def test_without_a_clock_it_was_captured_when_it_came() -> None:
    assert [Timeline().captured_ns(0, at) for at in (5, 9)] == [5, 9]


def test_a_frame_that_took_longer_is_older_than_its_arrival() -> None:
    timeline = Timeline()
    assert timeline.captured_ns(1 * S, 101 * S) == 101 * S
    assert timeline.captured_ns(2 * S, 102 * S + 50_000_000) == pytest.approx(102 * S, abs=1_000_000)
    assert timeline.captured_ns(3 * S, 103 * S - 20_000_000) == 103 * S - 20_000_000


def test_a_clock_that_runs_back_gives_no_order_once() -> None:
    timeline = Timeline()
    assert timeline.captured_ns(50 * S, 1 * S) == 1 * S
    assert timeline.captured_ns(50 * S, 2 * S) is None
    assert timeline.captured_ns(3 * S, 3 * S) is None
    assert timeline.captured_ns(4 * S, 4 * S) == 4 * S


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(1, 10 * S), st.integers(0, S)), min_size=1, max_size=50),
    drift=st.floats(-100e-6, 100e-6),
)
def test_moments_rise_and_are_never_in_the_future_nor_much_too_old(steps: list[tuple[int, int]], drift: float) -> None:
    timeline, at, last_arrived = Timeline(), 10 * S, 0
    moments: list[int] = []
    for step, way in steps:
        at += step + 1000
        arrived = max(at + way, last_arrived + 1)
        last_arrived = arrived
        moment = timeline.captured_ns(round(at * (1 + drift)), arrived)
        assert moment is not None
        assert at - 1000 * (len(steps) + 10 * S) * 1e-6 - 2 * S <= moment <= arrived
        moments.append(moment)
    assert all(later > earlier for earlier, later in itertools.pairwise(moments))


def test_a_slow_clock_makes_no_frame_old_within_a_shift() -> None:
    timeline, ages = Timeline(), []
    for second in range(8 * 3600):
        arrived = second * S + 5_000_000
        moment = timeline.captured_ns(round((second + 1) * S * (1 - 50e-6)), arrived)
        assert moment is not None
        ages.append(arrived - moment)
    assert max(ages) < 1_000_000
