"""What the localisation rewards take and refuse, their registry, and the boxes and formats of texts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from differad_edge.errors import TrainingError
from training.rewards import REWARDS, Floats, boxes_of, center_only, dual_consistency, format_reward, iou_reward

Corners = tuple[float, float, float, float]

ZERO = (0.0, 0.0, 0.0, 0.0)
MISSING = (math.nan,) * 4
GT = (100.0, 100.0, 300.0, 300.0)


class TestArguments:
    def test_one_truth_for_all(self) -> None:
        pred = [GT, ZERO, (200.0, 100.0, 400.0, 300.0)]
        expected = dual_consistency(pred, [GT] * 3)
        np.testing.assert_array_equal(dual_consistency(pred, GT), expected)
        np.testing.assert_array_equal(dual_consistency(pred, [GT]), expected)
        assert dual_consistency(GT, GT).tolist() == [1.0]

    def test_none_at_all(self) -> None:
        assert dual_consistency([], []).shape == (0,)
        assert dual_consistency(np.zeros((0, 4)), GT).shape == (0,)

    def test_inputs_are_left_alone(self) -> None:
        pred, gt = np.array([[300.0, 0.0, 100.0, 50.0]]), np.array([GT])
        before = pred.copy(), gt.copy()
        dual_consistency(pred, gt)
        np.testing.assert_array_equal(pred, before[0])
        np.testing.assert_array_equal(gt, before[1])

    @pytest.mark.parametrize("function", [dual_consistency, iou_reward, center_only])
    @pytest.mark.parametrize(
        "bad",
        [
            (300.0, 100.0, 100.0, 300.0),
            (100.0, 100.0, 100.0, 300.0),
            (-1.0, 100.0, 300.0, 300.0),
            (100.0, 100.0, 300.0, 1001.0),
            MISSING,
            (100.0, 100.0, math.inf, 300.0),
        ],
    )
    def test_a_bad_truth_is_named(self, function: Callable[..., Floats], bad: Corners) -> None:
        with pytest.raises(TrainingError, match=r"gt: row 1 is .* allowed: x1 < x2"):
            function([GT, GT], [GT, bad])

    @pytest.mark.parametrize(
        ("pred", "gt", "message"),
        [
            ([1.0, 2.0, 3.0], GT, r"pred: got shape \(3,\), allowed: \(N, 4\)"),
            (np.zeros((2, 2, 4)), GT, r"pred: got shape \(2, 2, 4\)"),
            (5.0, GT, r"pred: got shape \(\)"),
            ([GT], np.zeros((1, 5)), r"gt: got shape \(1, 5\)"),
            ([GT] * 3, [GT] * 2, "gt: got 2 rows for 3 predictions, allowed: as many, or one"),
            ([GT], [GT] * 2, "gt: got 2 rows for 1 predictions"),
            ([GT], [], "gt: got 0 rows for 1 predictions"),
            ([GT, GT[:3]], GT, "pred: got .* allowed: an array of numbers"),
            ([["a", "b", "c", "d"]], GT, "pred: got .* allowed: an array of numbers"),
        ],
    )
    def test_shapes(self, pred: object, gt: object, message: str) -> None:
        with pytest.raises(TrainingError, match=message):
            dual_consistency(pred, gt)  # type: ignore[arg-type]

    @pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf, "0.6", None, True, [0.6]])
    def test_alpha(self, alpha: object) -> None:
        with pytest.raises(TrainingError, match=r"alpha: got .* allowed: 0 to 1"):
            dual_consistency(GT, GT, alpha=alpha)  # type: ignore[arg-type]

    @pytest.mark.parametrize("mode", ["eq7", "", None, np.array(["released", "paper_eq7"]), ["released"]])
    def test_mode(self, mode: object) -> None:
        with pytest.raises(TrainingError, match=r"mode: got .* allowed: 'released' or 'paper_eq7'"):
            dual_consistency(GT, GT, mode=mode)  # type: ignore[arg-type]

    def test_a_tensor_that_wants_gradients_is_named(self) -> None:
        torch = pytest.importorskip("torch")
        with pytest.raises(TrainingError, match=r"pred: got .* allowed: an array of numbers"):
            dual_consistency(torch.zeros(2, 4, requires_grad=True), GT)
        assert dual_consistency(torch.tensor([GT]), GT).tolist() == [1.0]


class TestRegistry:
    def test_each_name_is_its_reward(self) -> None:
        pred, gt = [(200.0, 100.0, 400.0, 300.0), (150.0, 150.0, 250.0, 250.0)], [GT, GT]
        expected = {
            "iou": iou_reward(pred, gt),
            "center": center_only(pred, gt),
            "dclr": dual_consistency(pred, gt),
            "dclr_eq7": dual_consistency(pred, gt, mode="paper_eq7"),
        }
        assert REWARDS.keys() == expected.keys()
        for name, rewards in expected.items():
            np.testing.assert_array_equal(REWARDS[name](pred, gt), rewards)
        assert len({tuple(rewards) for rewards in expected.values()}) == 4

    def test_it_is_read_only(self) -> None:
        with pytest.raises(TypeError):
            REWARDS["other"] = iou_reward  # type: ignore[index]


class TestTexts:
    TEXTS = (
        "<think>chip</think><answer>(120,300),(245,388)</answer>",
        "<think>same</think><answer>(0,0),(0,0)</answer>",
        "<think>chip</think><answer>[120,300,245,388]</answer> Anything else?",
        "<think>chip</think><answer>(245,300),(120,388)</answer>",
        "<answer>(120,300),(245,388)</answer>",
        "<think>chip</think><answer>lower edge</answer>",
        "",
    )

    def test_boxes(self) -> None:
        found = boxes_of(self.TEXTS)
        box = [120.0, 300.0, 245.0, 388.0]
        none = [math.nan] * 4
        np.testing.assert_array_equal(found, [box, ZERO, box, none, box, none, none])
        assert found.dtype == np.float64
        assert boxes_of([]).shape == (0, 4)

    def test_format(self) -> None:
        # The reversed box has the right form; the localisation reward is what it loses.
        assert format_reward(self.TEXTS).tolist() == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
        assert format_reward([]).shape == (0,)

    def test_an_answer_that_cannot_be_read_earns_nothing_on_a_normal(self) -> None:
        assert dual_consistency(boxes_of(self.TEXTS), ZERO).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
