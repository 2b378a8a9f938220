"""The localisation rewards: worked by hand, against a scalar version, and their invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from training.rewards import REWARDS, Mode, center_only, dual_consistency, iou_reward

Corners = tuple[float, float, float, float]

quick = settings(max_examples=40, deadline=None)

ZERO = (0.0, 0.0, 0.0, 0.0)
MISSING = (math.nan,) * 4
GT = (100.0, 100.0, 300.0, 300.0)


@st.composite
def boxes(draw: st.DrawFn, smallest: int = 1, low: int = 0, high: int = 1000) -> Corners:
    x1 = draw(st.integers(low, high - smallest))
    y1 = draw(st.integers(low, high - smallest))
    x2 = draw(st.integers(x1 + smallest, high))
    y2 = draw(st.integers(y1 + smallest, high))
    return float(x1), float(y1), float(x2), float(y2)


ANYTHING = st.one_of(
    boxes(),
    st.just(ZERO),
    st.just(MISSING),
    st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4),
    st.tuples(*[st.integers(-50, 1050).map(float)] * 4),
)


def one(pred: Corners, gt: Corners, mode: Mode = "released", alpha: float = 0.6) -> float:
    return float(dual_consistency([pred], [gt], mode=mode, alpha=alpha)[0])


def scalar(pred: Corners, gt: Corners, mode: Mode, alpha: float) -> float:
    """The equations once more, for one pair, term by term and without NumPy."""
    if not any(gt):
        return float(not any(pred))  # any() of NaN is True: no box is not "no anomaly"
    px1, py1, px2, py2 = pred
    gx1, gy1, gx2, gy2 = gt
    if not all(0 <= value <= 1000 for value in pred) or px2 <= px1 or py2 <= py1:
        return 0.0
    area_p, area_gt = (px2 - px1) * (py2 - py1), (gx2 - gx1) * (gy2 - gy1)
    inter = max(0.0, min(px2, gx2) - max(px1, gx1)) * max(0.0, min(py2, gy2) - max(py1, gy1))
    overlap = inter / (area_p + area_gt - inter)
    apart = math.dist(((px1 + px2) / 2, (py1 + py2) / 2), ((gx1 + gx2) / 2, (gy1 + gy2) / 2))
    diagonal = max(math.dist(pred[:2], pred[2:]), math.dist(gt[:2], gt[2:]), 1.0)
    s_center = 1 - min(1.0, apart / (diagonal + 1e-6))
    s_scale = 1 - min(1.0, abs(area_p - area_gt) / (area_gt + 1e-6))
    s_cons = alpha * s_center + (1 - alpha) * s_scale
    if mode == "released":
        return overlap + (1 - overlap) * s_cons
    if overlap >= 0.3:
        return min(1.0, overlap + max(0.0, 0.05 * (s_cons - overlap)))
    return overlap + (1 - overlap) * 0.3 * s_cons


class TestWorkedByHand:
    def test_shifted_by_half_its_width(self) -> None:
        # Both 200x200. Overlap 100x200 = 20000, union 60000: IoU = 1/3. Centres 100 apart, diagonals 200*sqrt(2):
        # s_center = 1 - 100 / (282.842713 + 1e-6) = 0.646446610657; same area: s_scale = 1.
        # S = 0.6 * 0.646446610657 + 0.4 = 0.787867966394. R = 1/3 + 2/3 * S = 0.858578644263.
        pred = (200.0, 100.0, 400.0, 300.0)
        s_cons = 0.6 * (1 - 100 / (200 * math.sqrt(2) + 1e-6)) + 0.4
        assert s_cons == pytest.approx(0.787867966394, abs=1e-9)
        assert one(pred, GT) == pytest.approx(0.858578644263, abs=1e-9)
        # Eq. 7, IoU above tau: delta = 0.05 * (0.787867966394 - 1/3) = 0.022726731653.
        assert one(pred, GT, "paper_eq7") == pytest.approx(1 / 3 + 0.022726731653, abs=1e-9)
        assert iou_reward([pred], [GT]).tolist() == pytest.approx([1 / 3], abs=1e-12)
        assert center_only([pred], [GT]).tolist() == pytest.approx([0.646446610657], abs=1e-9)

    def test_nested_about_the_same_centre(self) -> None:
        # 100x100 in 200x200: IoU = 10000 / 40000 = 0.25, s_center = 1, s_scale = 1 - 30000 / (40000 + 1e-6)
        # = 0.25 + 1.875e-11. S = 0.6 + 0.4 * 0.25 = 0.7. R = 0.25 + 0.75 * 0.7 = 0.775.
        pred = (150.0, 150.0, 250.0, 250.0)
        assert one(pred, GT) == pytest.approx(0.775, abs=1e-9)
        # Eq. 7, below tau: 0.25 + 0.75 * 0.3 * 0.7 = 0.4075.
        assert one(pred, GT, "paper_eq7") == pytest.approx(0.4075, abs=1e-9)
        # alpha 1: S = 1, so R = 1; alpha 0: S = 0.25, R = 0.25 + 0.75 * 0.25 = 0.4375.
        assert one(pred, GT, alpha=1.0) == pytest.approx(1.0, abs=1e-9)
        assert one(pred, GT, alpha=0.0) == pytest.approx(0.4375, abs=1e-9)

    def test_far_apart_but_of_the_right_size(self) -> None:
        # No overlap; centres 600 * sqrt(2) apart, more than the diagonal: s_center = 0. S = 0.4, R = 0.4.
        pred = (700.0, 700.0, 900.0, 900.0)
        assert one(pred, GT) == pytest.approx(0.4, abs=1e-12)
        assert one(pred, GT, "paper_eq7") == pytest.approx(0.12, abs=1e-12)  # 0.3 * 0.4
        assert center_only([pred], [GT]).tolist() == [0.0]

    def test_more_than_twice_the_area_has_no_scale(self) -> None:
        # 400x400 around 200x200: IoU 0.25, s_center 1, |160000 - 40000| / 40000 = 3, cut at 1: s_scale = 0.
        # R = 0.25 + 0.75 * 0.6 = 0.7.
        assert one((0.0, 0.0, 400.0, 400.0), GT) == pytest.approx(0.7, abs=1e-12)

    def test_diagonals_below_one_count_as_one(self) -> None:
        # 0.3 x 0.4 boxes (diagonal 0.5), 0.6 apart: s_center = 1 - 0.6 / (1 + 1e-6) = 0.4000006 - 6e-13.
        pred, gt = (10.0, 10.0, 10.3, 10.4), (10.6, 10.0, 10.9, 10.4)
        assert center_only([pred], [gt]).tolist() == pytest.approx([1 - 0.6 / 1.000001], abs=1e-9)

    def test_eq7_falls_at_tau(self) -> None:
        """The reason for which paper_eq7 is not the default: a better box earns less.

        Boxes of one size s, shifted by d on one axis: IoU = (s - d) / (s + d), which is 0.3 at d = 7/13 s. There
        s_center = 1 - (7/13) / sqrt(2) = 0.619250, S = 0.6 * 0.619250 + 0.4 = 0.771550. Below: 0.3 + 0.7 * 0.3 * S
        = 0.462; above: 0.3 + 0.05 * (S - 0.3) = 0.324.
        """
        gt = (0.0, 0.0, 260.0, 260.0)
        just_below, just_above = (140.0001, 0.0, 400.0001, 260.0), (139.9999, 0.0, 399.9999, 260.0)
        overlap = iou_reward([just_below, just_above], gt)
        assert overlap[0] < 0.3 < overlap[1]
        assert overlap.tolist() == pytest.approx([0.3, 0.3], abs=1e-5)
        reward = dual_consistency([just_below, just_above], gt, mode="paper_eq7")
        assert reward.tolist() == pytest.approx([0.4620, 0.3236], abs=5e-5)
        released = dual_consistency([just_below, just_above], gt)
        assert released[0] < released[1] < released[0] + 1e-5


@pytest.mark.parametrize("name", sorted(REWARDS))
class TestNoBox:
    """Decision 6, the same for every reward of the registry."""

    def test_both_zero(self, name: str) -> None:
        assert REWARDS[name]([ZERO], [ZERO]).tolist() == [1.0]
        assert REWARDS[name]([(-0.0, 0.0, 0.0, 0.0)], [ZERO]).tolist() == [1.0]

    def test_one_zero(self, name: str) -> None:
        corner = (0.0, 0.0, 1.0, 1.0)
        assert REWARDS[name]([ZERO, corner], [corner, ZERO]).tolist() == [0.0, 0.0]

    @pytest.mark.parametrize(
        "pred",
        [
            MISSING,
            (300.0, 100.0, 100.0, 300.0),
            (100.0, 300.0, 300.0, 100.0),
            (300.0, 300.0, 100.0, 100.0),  # both reversed: its area would be positive
            (100.0, 100.0, 100.0, 300.0),
            (-1.0, 100.0, 300.0, 300.0),
            (100.0, 100.0, 300.0, 1000.5),
            (100.0, 100.0, math.inf, 300.0),
            (100.0, math.nan, 300.0, 300.0),
            (1e308, -1e308, 1e308, 1e308),
        ],
    )
    def test_what_is_no_box_earns_nothing(self, name: str, pred: Corners) -> None:
        assert REWARDS[name]([pred, pred, GT], [GT, ZERO, GT]).tolist() == [0.0, 0.0, 1.0]


class TestInvariants:
    @quick
    @given(st.lists(st.tuples(ANYTHING, st.one_of(boxes(), st.just(ZERO))), max_size=12), st.floats(0, 1))
    def test_as_the_scalar_version(self, pairs: list[tuple[Corners, Corners]], alpha: float) -> None:
        pred, gt = [p for p, _ in pairs], [g for _, g in pairs]
        modes: tuple[Mode, ...] = ("released", "paper_eq7")
        for mode in modes:
            rewards = dual_consistency(pred, gt, alpha=alpha, mode=mode)
            expected = [scalar(p, g, mode, alpha) for p, g in pairs]
            assert rewards.dtype == np.float64
            assert rewards.shape == (len(pairs),)
            np.testing.assert_allclose(rewards, expected, rtol=0, atol=1e-12)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("name", sorted(REWARDS))
    @quick
    @given(pred=ANYTHING, gt=st.one_of(boxes(), st.just(ZERO)))
    def test_bounded(self, name: str, pred: Corners, gt: Corners) -> None:
        reward = REWARDS[name]([pred], [gt])[0]
        assert 0.0 <= reward <= 1.0

    @quick
    @given(box=boxes(), pred=ANYTHING)
    def test_one_only_for_the_box_itself(self, box: Corners, pred: Corners) -> None:
        assume(pred != box)
        for name in ("iou", "dclr", "dclr_eq7"):
            assert REWARDS[name]([box], [box])[0] == 1.0
            assert REWARDS[name]([pred], [box])[0] < 1.0

    @quick
    @given(pred=boxes(), gt=boxes())
    def test_consistency_only_adds(self, pred: Corners, gt: Corners) -> None:
        overlap = iou_reward([pred], [gt])[0]
        assert overlap <= one(pred, gt, "paper_eq7") <= one(pred, gt) + 1e-12

    @quick
    @given(st.integers(20, 400), st.integers(20, 400), st.integers(0, 500), st.integers(1, 99))
    def test_rises_as_a_box_of_the_right_size_comes_nearer(self, width: int, height: int, far: int, near: int) -> None:
        gt = (0.0, 0.0, float(width), float(height))
        closer = far * near / 100

        def shifted(by: float) -> Corners:
            return by, by, width + by, height + by

        assert one(shifted(far), gt) <= one(shifted(closer), gt) + 1e-12  # rounding where both have no overlap
        if 0 < far < min(width, height):
            assert one(shifted(far), gt) < one(shifted(closer), gt)
            assert iou_reward([shifted(far)], gt) < iou_reward([shifted(closer)], gt)

    @quick
    @given(st.integers(100, 500), st.floats(0.05, 0.9), st.floats(0.01, 0.09))
    def test_rises_as_a_nested_box_fills_it(self, half: int, share: float, more: float) -> None:
        def nested(part: float) -> Corners:
            return 500 - half * part, 500 - half * part, 500 + half * part, 500 + half * part

        assert one(nested(share), nested(1.0)) < one(nested(share + more), nested(1.0))

    @pytest.mark.parametrize("name", sorted(REWARDS))
    @quick
    @given(pred=boxes(), gt=boxes())
    def test_mirrored_and_transposed(self, name: str, pred: Corners, gt: Corners) -> None:
        def views(box: Corners) -> list[Corners]:
            x1, y1, x2, y2 = box
            return [box, (1000 - x2, y1, 1000 - x1, y2), (x1, 1000 - y2, x2, 1000 - y1), (y1, x1, y2, x2)]

        rewards = REWARDS[name](views(pred), views(gt))
        np.testing.assert_allclose(rewards, rewards[0], rtol=0, atol=1e-9)

    @pytest.mark.parametrize("name", sorted(REWARDS))
    @quick
    @given(pred=boxes(high=400), gt=boxes(high=400), right=st.integers(0, 600), down=st.integers(0, 600))
    def test_translated(self, name: str, pred: Corners, gt: Corners, right: int, down: int) -> None:
        step = np.array([right, down, right, down], dtype=np.float64)
        moved = REWARDS[name]([np.array(pred) + step], [np.array(gt) + step])
        np.testing.assert_allclose(moved, REWARDS[name]([pred], [gt]), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", sorted(REWARDS))
    @quick
    @given(pred=boxes(smallest=20, high=250), gt=boxes(smallest=20, high=250), factor=st.sampled_from([2.0, 4.0]))
    def test_scaled(self, name: str, pred: Corners, gt: Corners, factor: float) -> None:
        # Sides of at least 20: epsilon changes s_center by at most 1e-6 / 28 and s_scale by 1e-6 / 400. A power of two,
        # so that IoU stays on its side of tau.
        scaled = REWARDS[name]([np.array(pred) * factor], [np.array(gt) * factor])
        np.testing.assert_allclose(scaled, REWARDS[name]([pred], [gt]), rtol=0, atol=1e-7)

    @quick
    @given(st.lists(st.tuples(boxes(), boxes()), min_size=2, max_size=8))
    def test_each_row_by_itself(self, pairs: list[tuple[Corners, Corners]]) -> None:
        pred, gt = np.array([p for p, _ in pairs]), np.array([g for _, g in pairs])
        together = dual_consistency(pred, gt)
        np.testing.assert_array_equal(together[::-1], dual_consistency(pred[::-1], gt[::-1]))
        np.testing.assert_array_equal(together, [one(p, g) for p, g in pairs])
