"""The batches that the student learns from: generated pairs, and a share of labelled ones among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from differad_edge.pairs import Pair
from distill.lite.generate import TrainingPair, training_pair
from distill.lite.labelled import labelled_pair
from distill.lite.network import to_tensor
from distill.lite.recipe import Recipe

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class GeneratedBatches(Dataset[Batch]):
    """Batch number k: (reference, target) (B, 3, S, S) uint8 RGB, (label, weight) (B, 1, S, S) uint8.

    ``offset``: number of the first pair of batch 0.
    """

    def __init__(self, recipe: Recipe, *, offset: int = 0) -> None:
        self.recipe, self.offset = recipe, offset

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(1)  # where workers start afresh; their threads would only get in each other's way
        first = self.offset + index * self.recipe.batch
        pairs = [self.pair(first + i) for i in range(self.recipe.batch)]
        return (
            to_tensor([p.reference for p in pairs]),
            to_tensor([p.target for p in pairs]),
            torch.from_numpy(np.stack([p.label for p in pairs])[:, None]),
            torch.from_numpy(np.stack([p.weight for p in pairs])[:, None]),
        )

    def pair(self, number: int) -> TrainingPair:
        """Pair ``number`` of the run; it follows from the seed and the number alone."""
        return training_pair(np.random.default_rng((self.recipe.seed, number)), self.recipe.side_px)


class MixedBatches(GeneratedBatches):
    """The same with ``recipe.pairs_share`` of the numbers given to ``labelled`` pairs, drawn with replacement.

    Each pair is as likely as any other: what is frequent in the sets is frequent here.
    """

    def __init__(self, recipe: Recipe, labelled: Sequence[Pair]) -> None:
        super().__init__(recipe)
        self.labelled = tuple(labelled)

    def pair(self, number: int) -> TrainingPair:
        if not is_labelled(number, self.recipe.pairs_share):
            return super().pair(number)
        rng = np.random.default_rng((self.recipe.seed, number))
        return labelled_pair(rng, self.labelled[int(rng.integers(len(self.labelled)))], self.recipe.side_px)


def is_labelled(number: int, share: float) -> bool:
    """Whether pair ``number`` is a labelled one: of any n numbers in a row, share x n are, rounded up or down.

    So every batch holds the share as exactly as its size allows, and the run holds it whatever the size.
    """
    exact = Fraction(share).limit_denominator(1_000_000)  # 0.29 as it was typed, not the double below it
    return math.floor((number + 1) * exact) > math.floor(number * exact)
