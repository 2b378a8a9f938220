"""The losses of the box head: values that can be computed by hand, and what holds for all."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.errors import ConfigError
from differad_edge.geometry import iou
from differad_edge.results import Box
from distill.head_losses import HeadLossConfig, expected, focal, giou, head_losses, soft_bins

CONFIG = HeadLossConfig()
Edge = st.floats(0, 1000, width=32)


def boxes(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_focal_by_hand() -> None:
    logits, truth = torch.tensor([0.0, math.log(3), math.log(3)]), torch.tensor([True, True, False])
    found = focal(logits, truth, 2.0)
    right = [0.5**2 * math.log(2), 0.25**2 * math.log(4 / 3), 0.75**2 * math.log(4)]
    np.testing.assert_allclose(found, right, rtol=1e-5)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none")
    np.testing.assert_allclose(focal(logits, truth, 0.0), plain, rtol=1e-5)


@given(st.floats(-1e4, 1e4), st.booleans(), st.floats(0, 5))
def test_focal_is_never_negative_and_below_cross_entropy(logit: float, truth: bool, focus: float) -> None:
    logits, truths = torch.tensor([logit], dtype=torch.float64), torch.tensor([truth])
    found = float(focal(logits, truths, focus))
    assert 0 <= found <= float(focal(logits, truths, 0.0)) + 1e-12


def test_soft_bins_by_hand() -> None:
    """Three steps, the truth in the middle: the bell's sides are exp(-1/2) as high."""
    side, all_of_them = math.exp(-0.5), 1 + 2 * math.exp(-0.5)
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    log_sum = math.log(1 + math.e**2 + math.e)
    right = log_sum - (0 * side + 2 * 1 + 1 * side) / all_of_them
    assert float(soft_bins(logits, torch.tensor([1.0]), 1.0)) == pytest.approx(right, rel=1e-5)
    flat = soft_bins(torch.zeros(2, 4, 1001), torch.full((2, 4), 500.0), 3.0)
    np.testing.assert_allclose(flat, np.full((2, 4), math.log(1001)), rtol=1e-5)


@pytest.mark.parametrize("step", [0, 3, 500, 1000])
def test_soft_bins_are_least_at_the_truth(step: int) -> None:
    """At the bell itself no direction leads down, and a sharp peak elsewhere costs more the farther it lies."""
    places = torch.arange(1001, dtype=torch.float64)
    truth = torch.tensor([float(step)], dtype=torch.float64)
    bell = (-0.5 * ((places - step) / 3.0) ** 2)[None].requires_grad_()
    least = soft_bins(bell, truth, 3.0)
    (slope,) = torch.autograd.grad(least.sum(), bell)
    bell, least = bell.detach(), least.detach()
    assert float(slope.abs().max()) < 1e-12
    draw = torch.Generator().manual_seed(step)
    for _ in range(20):
        other = bell + torch.randn(bell.shape, generator=draw, dtype=torch.float64)
        assert float(soft_bins(other, truth, 3.0)) > float(least)
    away = [float(soft_bins((-0.1 * (places - step - off).abs())[None], truth, 3.0)) for off in (0, 5, 50, 300)]
    assert away == sorted(away)


def test_the_expected_step() -> None:
    logits = torch.full((4, 1001), -1e4)
    for row, step in enumerate((0, 17, 500, 1000)):
        logits[row, step] = 0.0
    np.testing.assert_allclose(expected(logits), [0, 17, 500, 1000], atol=1e-3)
    np.testing.assert_allclose(expected(torch.zeros(1, 1001)), [500], atol=1e-3)


def test_giou_by_hand() -> None:
    right = boxes((0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 10))
    found = boxes((0, 0, 10, 10), (10, 0, 20, 10), (20, 0, 30, 10), (5, 5, 15, 15))
    # The last: 25 of 175, in a hull of 225.
    np.testing.assert_allclose(giou(found, right), [1, 0, -1 / 3, 25 / 175 - 50 / 225], rtol=1e-12)


@given(st.tuples(Edge, Edge, Edge, Edge), st.tuples(Edge, Edge, Edge, Edge))
def test_giou_stays_in_its_range(found: tuple[float, ...], right: tuple[float, ...]) -> None:
    x1, x2, y1, y2 = *sorted(right[:2]), *sorted(right[2:])
    right = (x1, y1, x2 + 1, y2 + 1)
    value = float(giou(boxes(found), boxes(right)))
    assert -1 - 1e-9 <= value <= 1 + 1e-9
    if found[0] < found[2] and found[1] < found[3]:
        assert value <= iou(Box(*found), Box(*right)) + 1e-9
    assert float(giou(boxes(right), boxes(right))) == pytest.approx(1.0)


def test_the_parts_and_their_sum() -> None:
    bins = torch.zeros(3, 4, 1001, dtype=torch.float64)
    ng, truth = torch.tensor([True, False, True]), boxes((400, 400, 600, 600), (0, 0, 0, 0), (0, 0, 1000, 1000))
    found = head_losses(torch.zeros(3, dtype=torch.float64), bins, ng, truth, CONFIG)
    assert float(found.verdict) == pytest.approx(0.25 * math.log(2))
    assert float(found.bins) == pytest.approx(math.log(1001), rel=1e-3)
    assert float(found.l1) == pytest.approx((0.1 + 0.5) / 2)
    assert float(found.giou) == pytest.approx(1.0)  # a point at the middle of both: its hull is the truth
    weights = HeadLossConfig(verdict=1, bins=10, l1=100, giou=1000)
    parts = [float(part) for part in (found.verdict, found.bins, found.l1, found.giou)]
    assert float(found.total(weights)) == pytest.approx(np.dot(parts, [1, 10, 100, 1000]))


def test_good_parts_teach_the_verdict_alone() -> None:
    verdicts, bins = torch.zeros(2, requires_grad=True), torch.randn(2, 4, 1001).requires_grad_()
    found = head_losses(verdicts, bins, torch.tensor([False, False]), torch.full((2, 4), torch.nan), CONFIG)
    found.total(CONFIG).backward()
    assert verdicts.grad is not None
    assert bins.grad is not None
    assert float(verdicts.grad.abs().min()) > 0
    assert float(bins.grad.abs().max()) == 0


def test_parts_that_are_ng_do_not_read_the_others() -> None:
    draw = torch.Generator().manual_seed(0)
    bins, truth = torch.randn(3, 4, 1001, generator=draw), torch.tensor([[100.0, 200, 300, 400]] * 3)
    ng = torch.tensor([True, False, True])
    one = head_losses(torch.zeros(3), bins, ng, truth, CONFIG)
    truth[1], bins[1] = torch.nan, 99.0
    other = head_losses(torch.zeros(3), bins, ng, truth, CONFIG)
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("bins", "l1", "giou"))


@pytest.mark.parametrize("settings", [{"l1": -1.0}, {"spread_steps": 0.0}, {"focus": math.nan}, {"dice": 1.0}])
def test_settings_that_are_none_are_refused(settings: dict[str, float]) -> None:
    from differad_edge.config import parse_config

    with pytest.raises(ConfigError, match=next(iter(settings))):
        parse_config(settings, HeadLossConfig)
