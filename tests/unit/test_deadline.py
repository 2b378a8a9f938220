"""Deadlines, on a clock that the test moves."""

from __future__ import annotations

import math

import pytest

from differad_edge.deadline import Deadline
from differad_edge.errors import ConfigError, DeadlineExceeded


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_counts_down_and_expires_exactly_at_its_end() -> None:
    clock = FakeClock()
    deadline = Deadline.after_ms(100, clock=clock)
    assert deadline.remaining_ms == pytest.approx(100)
    assert not deadline.expired
    clock.now_s += 0.0625
    assert deadline.remaining_ms == pytest.approx(37.5)
    deadline.check()
    clock.now_s = 1000.1
    assert deadline.expired
    assert deadline.remaining_ms == 0.0


def test_check_raises_with_the_budget_once_it_is_over() -> None:
    clock = FakeClock()
    deadline = Deadline.after_ms(100, clock=clock)
    clock.now_s += 7
    with pytest.raises(DeadlineExceeded, match=r"the deadline of 100 ms has passed"):
        deadline.check()
    assert deadline.remaining_ms == 0.0  # never negative


def test_zero_has_already_passed() -> None:
    assert Deadline.after_ms(0, clock=FakeClock()).expired


@pytest.mark.parametrize("ms", [-1, -0.001, math.nan, math.inf, 10**400, True, "100", None])
def test_impossible_budgets_are_refused_by_name(ms: object) -> None:
    with pytest.raises(ConfigError, match=r"deadline_ms: got .*allowed: a finite number of milliseconds from 0 to"):
        Deadline.after_ms(ms)  # type: ignore[arg-type]


def test_runs_on_a_monotonic_clock_by_default() -> None:
    deadline = Deadline.after_ms(60_000)
    assert 0 < deadline.remaining_ms <= 60_000
