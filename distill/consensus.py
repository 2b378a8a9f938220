"""Several answers to one question become one label, or the reason why they do not.

Without a truth, what the answers agree on counts: the majority's verdict, and of its boxes the one that lies nearest to
all others (the medoid). With a truth the best answer is taken (rejection sampling), as far as the dual-consistency
reward finds it good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from differad_edge.config import ConfigModel
from differad_edge.geometry import iou_matrix
from differad_edge.grounding import Answer, GridBox
from training.data import ZERO_BOX
from training.rewards import dual_consistency

__all__ = ["Consensus", "Rules", "consensus_of"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Rules(ConfigModel):
    """What a label must reach."""

    least_valid: Share = 0.5
    """Share of the answers that can be parsed."""
    least_majority: Share = 0.6
    """Share of those that give the majority's verdict."""
    least_overlap: Share = 0.3
    """Mean IoU of the chosen box with the majority's other boxes."""
    least_reward: Share = 0.5
    """Dual-consistency reward of the chosen answer, where there is a truth."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """``chosen``: number of the answer that stands for all, None where there is no label; ``why``: then the reason.

    ``ng_share``: of the answers that can be parsed; ``overlap``: mean IoU of the chosen box with the other boxes, 1 for
    OK; ``reward``: of the chosen answer against the truth, None without one. Confidence is the product of the share of
    all answers that give the label's verdict and of the overlap.
    """

    chosen: int | None
    why: str | None
    ng_share: float
    overlap: float
    confidence: float
    reward: float | None


def consensus_of(answers: Sequence[Answer | None], rules: Rules, *, truth: GridBox | None = None) -> Consensus:
    """``answers``: one that cannot be parsed is None; ``truth``: on the 0-1000 grid, ZERO_BOX for a good part."""
    valid = [number for number, answer in enumerate(answers) if answer is not None]
    if not valid or len(valid) < rules.least_valid * len(answers):
        return _none(f"unparsable: {len(answers) - len(valid)} of {len(answers)} answers")
    boxes = {number: answer.box for number, answer in enumerate(answers) if answer is not None}
    ng_share = sum(box is not None for box in boxes.values()) / len(valid)
    overlaps = _overlaps(boxes)
    reward = None
    if truth is not None:
        rewards = _rewards([boxes[number] for number in valid], truth)
        best = int(np.lexsort((np.array([-overlaps[number] for number in valid]), -rewards))[0])
        chosen, reward = valid[best], float(rewards[best])
        if reward < rules.least_reward:
            return _none(f"wrong: the best reward is {reward:.2f}", ng_share=ng_share, reward=reward)
    else:
        is_ng = ng_share > 0.5
        majority = [number for number in valid if (boxes[number] is not None) == is_ng]
        if len(majority) < rules.least_majority * len(valid) or ng_share == 0.5:
            return _none(f"split: {ng_share:.0%} of the answers are NG", ng_share=ng_share)
        chosen = max(majority, key=lambda number: overlaps[number])
        if overlaps[chosen] < rules.least_overlap:
            return _none(f"scattered: the boxes overlap by {overlaps[chosen]:.2f}", ng_share=ng_share)
    is_ng = boxes[chosen] is not None
    same = sum((box is not None) == is_ng for box in boxes.values()) / len(answers)
    return Consensus(chosen, None, ng_share, overlaps[chosen], same * overlaps[chosen], reward)


def _none(why: str, *, ng_share: float = 0.0, reward: float | None = None) -> Consensus:
    return Consensus(None, why, ng_share, 0.0, 0.0, reward)


def _overlaps(boxes: dict[int, GridBox | None]) -> dict[int, float]:
    """Of each answer: the mean IoU of its box with the other boxes; 1 for OK, and for a box that stands alone."""
    real = [number for number, box in boxes.items() if box is not None]
    overlaps = dict.fromkeys(boxes, 1.0)
    if len(real) > 1:
        corners = np.array([boxes[number] for number in real], np.float64)
        matrix = np.asarray(iou_matrix(corners, corners))
        for row, number in enumerate(real):
            overlaps[number] = float((matrix[row].sum() - 1.0) / (len(real) - 1))
    return overlaps


def _rewards(boxes: Sequence[GridBox | None], truth: GridBox) -> NDArray[np.float64]:
    said = np.array([ZERO_BOX if box is None else box for box in boxes], np.float64)
    return dual_consistency(said, np.array([truth], np.float64))
