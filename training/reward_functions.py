"""The rewards of a recipe as TRL calls them: completions and the rows' columns in, a list of floats out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.recipe import RewardRecipe
from training.rewards import REWARDS, boxes_of, format_reward, student_format_reward
from training.rewards_iad import FocalConfig, accuracy_reward, consistency_reward, focal_reward, yes_no_format_reward

RewardFunction = Callable[..., list[float]]


@dataclass(frozen=True)
class RewardSet:
    """``functions`` and ``weights`` go together; ``judged``: index of the one that resampling and weights look at.

    ``boxes``: whether answers hold boxes.
    """

    functions: tuple[RewardFunction, ...]
    weights: tuple[float, ...]
    judged: int
    boxes: bool = False


def reward_set(recipe: RewardRecipe) -> RewardSet:
    """R = R_fmt + R_loc of DifferAD-R1, or the rewards of IAD-R1 or LR-IAD."""
    if recipe.kind == "iad-r1":
        return RewardSet((consistency, accuracy), (recipe.format_weight, 1.0), 1)
    if recipe.kind == "lr-iad":
        config = FocalConfig(recipe.focal_alpha, recipe.focal_gamma, recipe.defect_share, recipe.focal_f)
        return RewardSet((yes_no_format, _focal(config)), (recipe.format_weight, 1.0), 1)
    form = student_format if recipe.kind == "student" else grounding_format
    return RewardSet((form, _localisation(recipe)), (recipe.format_weight, 1.0), 1, boxes=True)


def texts_of(completions: Sequence[Any]) -> list[str]:
    """What the assistant said in each completion."""
    return [completion[0]["content"] for completion in completions]


def grounding_format(completions: Sequence[Any], **_: Any) -> list[float]:
    """R_fmt of DifferAD-R1."""
    return _floats(format_reward(texts_of(completions)))


def student_format(completions: Sequence[Any], **_: Any) -> list[float]:
    """The same of a student, which answers before it describes."""
    return _floats(student_format_reward(texts_of(completions)))


def consistency(completions: Sequence[Any], **_: Any) -> list[float]:
    """IAD-R1's consistency reward."""
    return _floats(consistency_reward(texts_of(completions)))


def accuracy(completions: Sequence[Any], location: Sequence[Any], type: Sequence[Any], **_: Any) -> list[float]:
    """IAD-R1's accuracy reward, which holds those of location and type; ``type`` is the name of the rows' column."""
    return _floats(accuracy_reward(texts_of(completions), location, type))


def yes_no_format(completions: Sequence[Any], **_: Any) -> list[float]:
    """LR-IAD's binary format reward."""
    return _floats(yes_no_format_reward(texts_of(completions)))


def _localisation(recipe: RewardRecipe) -> RewardFunction:
    reward = REWARDS[recipe.localisation]
    if recipe.localisation in ("dclr", "dclr_eq7"):
        reward = partial(reward, alpha=recipe.alpha)

    def localisation(completions: Sequence[Any], box: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return _floats(reward(boxes_of(texts_of(completions)), np.asarray(box, dtype=np.float64)))

    return localisation


def _focal(config: FocalConfig) -> RewardFunction:
    def focal(completions: Sequence[Any], box: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return _floats(focal_reward(texts_of(completions), [any(corners) for corners in box], config))

    return focal


def _floats(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in values]
