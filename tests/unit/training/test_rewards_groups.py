"""What GRPO makes of a group's rewards: difficulty weight, degenerate groups, advantages."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from differad_edge.errors import TrainingError
from training.rewards import Floats, difficulty_weight, group_advantages, is_degenerate

quick = settings(max_examples=60, deadline=None)
UNIT = st.floats(0, 1)
GROUP = st.lists(UNIT, min_size=2, max_size=16)
GROUPS = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 8)), elements=UNIT)


class TestDifficultyWeight:
    def test_by_hand(self) -> None:
        # Mean (0.2 + 0.4 + 0.6 + 0.8) / 4 = 0.5; one of four below 0.3.
        # (e^0.5 + sqrt(1.25)) / 2 = (1.648721270700 + 1.118033988750) / 2 = 1.383377629725.
        weight = difficulty_weight([0.2, 0.4, 0.6, 0.8])
        assert isinstance(weight, float)
        assert weight == pytest.approx(1.383377629725, abs=1e-9)

    def test_tau_itself_is_no_miss(self) -> None:
        # Mean 0.3, no miss: (e^0.7 + 1) / 2 = (2.013752707470 + 1) / 2.
        assert difficulty_weight([0.3, 0.3]) == pytest.approx(1.506876353735, abs=1e-9)
        # With tau 0.5 both miss: (2.013752707470 + 1.414213562373) / 2.
        assert difficulty_weight([0.3, 0.3], tau=0.5) == pytest.approx(1.713983134922, abs=1e-9)

    def test_ends(self) -> None:
        assert difficulty_weight([1.0] * 8) == 1.0
        assert difficulty_weight([0.0] * 8) == pytest.approx((math.e + math.sqrt(2)) / 2, abs=1e-12)

    def test_many_groups(self) -> None:
        groups = np.array([[[0.2, 0.4, 0.6, 0.8], [1.0] * 4, [0.0] * 4]])
        weights = np.asarray(difficulty_weight(groups))
        assert weights.shape == (1, 3)
        expected = [[1.383377629725, 1.0, (math.e + math.sqrt(2)) / 2]]
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-9)

    @quick
    @given(GROUP)
    def test_bounded(self, group: list[float]) -> None:
        assert 1.0 - 1e-12 <= difficulty_weight(group) <= (math.e + math.sqrt(2)) / 2 + 1e-12

    @quick
    @given(GROUPS, UNIT)
    def test_as_the_scalar_version(self, groups: Floats, tau: float) -> None:
        def scalar(group: list[float]) -> float:
            mean = sum(group) / len(group)
            misses = sum(1 for reward in group if reward < tau)
            return (math.exp(1 - mean) + math.sqrt(1 + misses / len(group))) / 2

        expected = [scalar(group) for group in groups.tolist()]
        np.testing.assert_allclose(difficulty_weight(groups, tau), expected, rtol=0, atol=1e-12)

    @quick
    @given(GROUP, st.data())
    def test_falls_as_a_member_gets_better(self, group: list[float], data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(group) - 1))
        better = [*group]
        better[index] = data.draw(st.floats(group[index], 1))
        assert difficulty_weight(better) <= difficulty_weight(group) + 1e-12
        assert difficulty_weight(group[::-1]) == pytest.approx(difficulty_weight(group), abs=1e-12)

    @pytest.mark.parametrize("tau", [-0.1, 1.5, math.nan, "0.3", None, True, [0.3]])
    def test_tau(self, tau: object) -> None:
        with pytest.raises(TrainingError, match=r"tau: got .* allowed: 0 to 1"):
            difficulty_weight([0.1], tau)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("r_loc", "message"),
        [
            ([], r"r_loc: got shape \(0,\), allowed: \(\.\.\., G\) with G >= 1"),
            (np.zeros((3, 0)), r"r_loc: got shape \(3, 0\)"),
            (0.5, r"r_loc: got shape \(\)"),
            ([0.1, math.nan], "r_loc: got nan, allowed: finite numbers"),
            ([0.1, -math.inf], "r_loc: got -inf, allowed: finite numbers"),
            (["high"], "r_loc: got .* allowed: an array of numbers"),
            ([[0.1, 0.2], [0.3]], "r_loc: got .* allowed: an array of numbers"),
        ],
    )
    def test_rewards(self, r_loc: object, message: str) -> None:
        with pytest.raises(TrainingError, match=message):
            difficulty_weight(r_loc)  # type: ignore[arg-type]


class TestDegenerate:
    @pytest.mark.parametrize(
        ("group", "degenerate"),
        [
            ([0.0] * 8, True),
            ([0.37] * 8, True),
            ([1.0] * 8, False),  # all right: nothing is to be drawn again
            ([1.0 - 1e-9] * 8, True),  # nearly right is not right
            ([0.4] * 7 + [0.4001], False),
            ([0.0] * 7 + [1.0], False),
            # std, ddof 1, of two values d apart is d / sqrt(2): 1.4e-6 gives 0.99e-6, 1.5e-6 gives 1.06e-6.
            # With ddof 0 it would be d / 2, and the second were degenerate too.
            ([0.4, 0.4 + 1.4e-6], True),
            ([0.4, 0.4 + 1.5e-6], False),
            # 1.0 in a group without spread.
            ([1.0, 1.0 - 1e-7], False),
        ],
    )
    def test_rule(self, group: list[float], degenerate: bool) -> None:
        answer = is_degenerate(group)
        assert answer.dtype == np.bool_
        assert answer.shape == ()
        assert bool(answer) is degenerate

    def test_many_groups(self) -> None:
        groups = np.array([[[0.0] * 4, [1.0] * 4], [[0.1, 0.2, 0.1, 0.2], [0.5] * 4]])
        assert is_degenerate(groups).tolist() == [[True, False], [False, True]]

    @pytest.mark.parametrize("group", [[0.5], [], 0.5])
    def test_too_few(self, group: object) -> None:
        with pytest.raises(TrainingError, match=r"r_loc: got shape .* G >= 2"):
            is_degenerate(group)  # type: ignore[arg-type]

    def test_not_finite(self) -> None:
        with pytest.raises(TrainingError, match="r_loc: got nan"):
            is_degenerate([[0.1, 0.2], [0.1, math.nan]])


class TestAdvantages:
    def test_by_hand(self) -> None:
        # 0, 1, 2, 3: mean 1.5, std with ddof 1 sqrt((2.25 + 0.25 + 0.25 + 2.25) / 3) = sqrt(5/3) = 1.290994448736.
        # -1.5 / (1.290994448736 + 1e-4) = -1.161805010332; -0.5 / ... = -0.387268336777.
        advantages = group_advantages([0.0, 1.0, 2.0, 3.0], 4)
        assert advantages.tolist() == pytest.approx(
            [-1.161805010332, -0.387268336777, 0.387268336777, 1.161805010332], abs=1e-9
        )

    def test_groups_lie_one_after_the_other(self) -> None:
        # Two groups of two: (0, 1) and (5, 5). std (ddof 1) of the first is sqrt(0.5); the second has no spread.
        first = 0.5 / (math.sqrt(0.5) + 1e-4)
        assert group_advantages([0.0, 1.0, 5.0, 5.0], 2).tolist() == pytest.approx([-first, first, 0.0, 0.0], abs=1e-12)

    @quick
    @given(GROUPS)
    def test_each_group_is_centred_and_of_at_most_unit_spread(self, groups: Floats) -> None:
        advantages = group_advantages(groups.reshape(-1), groups.shape[1]).reshape(groups.shape)
        np.testing.assert_allclose(advantages.mean(axis=1), 0.0, atol=1e-9)
        assert (advantages.std(axis=1, ddof=1) < 1.0).all()
        # Only rounding of the mean stands against the order.
        order = np.argsort(groups, axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(advantages, order, axis=1), axis=1) >= 0).all()

    @quick
    @given(GROUPS, st.integers(-8, 8))
    def test_a_constant_added_to_all_changes_nothing(self, groups: Floats, constant: int) -> None:
        size = groups.shape[1]
        moved = group_advantages(groups.reshape(-1) + constant, size)
        np.testing.assert_allclose(moved, group_advantages(groups.reshape(-1), size), atol=1e-9)

    @pytest.mark.parametrize("size", [1, 0, -4, 2.0, None])
    def test_group_size(self, size: object) -> None:
        with pytest.raises(TrainingError, match=r"num_generations: got .* allowed: an integer from 2"):
            group_advantages([0.0] * 4, size)  # type: ignore[arg-type]

    @pytest.mark.parametrize("rewards", [[0.0] * 5, [], np.zeros((2, 4)), 1.0])
    def test_shape(self, rewards: object) -> None:
        with pytest.raises(TrainingError, match=r"rewards: got shape .* N a multiple of 4"):
            group_advantages(rewards, 4)  # type: ignore[arg-type]

    def test_not_finite(self) -> None:
        with pytest.raises(TrainingError, match="rewards: got inf, allowed: finite numbers"):
            group_advantages([0.0, math.inf], 2)
