"""What the box head of a student learns by: focal loss of the verdict, and three views of the same four coordinates.

A coordinate is read as a distribution over the 1001 steps of the grid. Cross entropy to a narrow bell around the truth
says which steps are near; the distribution's mean is an edge, for L1 and for the overlap of the box (GIoU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from differad_edge.config import ConfigModel

__all__ = ["HeadLossConfig", "HeadLosses", "expected", "focal", "giou", "head_losses", "soft_bins"]

Weight = Annotated[float, Field(ge=0)]


class HeadLossConfig(ConfigModel):
    """The weights of the parts, and their constants."""

    verdict: Weight = 1.0
    bins: Weight = 1.0
    l1: Weight = 5.0
    """Of edges from 0 to 1; this and the next as in DETR."""
    giou: Weight = 2.0
    focus: Weight = 2.0
    """Focal loss's gamma: how much less a part counts that is told apart already; 0: cross entropy."""
    spread_steps: PositiveFloat = 3.0
    """Standard deviation of the bell around a true edge, in steps of the grid."""


@dataclass(frozen=True)
class HeadLosses:
    """Means over a batch, scalars, before their weights: ``bins``, ``l1`` and ``giou`` of the NG parts alone."""

    verdict: Tensor
    bins: Tensor
    l1: Tensor
    giou: Tensor

    def total(self, config: HeadLossConfig) -> Tensor:
        """Their sum, each by its weight."""
        return config.verdict * self.verdict + config.bins * self.bins + config.l1 * self.l1 + config.giou * self.giou


def head_losses(verdicts: Tensor, bins: Tensor, ng: Tensor, boxes: Tensor, config: HeadLossConfig) -> HeadLosses:
    """The losses of N parts.

    ``verdicts``: (N,) how far the logit of NG lies above that of OK; ``bins``: (N, 4, B) logits of the steps from 0 to
    B - 1; ``ng``: (N,) bool, the truth; ``boxes``: (N, 4) its edges in steps, read where ``ng`` alone.
    """
    verdict = focal(verdicts, ng, config.focus).mean()
    if not ng.any():
        nothing = bins.sum() * 0.0
        return HeadLosses(verdict, nothing, nothing, nothing)
    bins, boxes = bins[ng], boxes[ng].to(bins.dtype)
    last = bins.shape[-1] - 1
    found = expected(bins)
    return HeadLosses(
        verdict,
        soft_bins(bins, boxes, config.spread_steps).mean(),
        (found - boxes).abs().mean() / last,
        (1.0 - giou(found, boxes)).mean(),
    )


def focal(logits: Tensor, truth: Tensor, focus: float) -> Tensor:
    """(N,) binary cross entropy, each times (1 - probability of what is right) to the power of ``focus``."""
    right = torch.where(truth, logits, -logits)
    return torch.sigmoid(-right) ** focus * F.softplus(-right)


def soft_bins(logits: Tensor, steps: Tensor, spread_steps: float) -> Tensor:
    """(...) cross entropy of (..., B) logits to a bell around each of the (...) steps, cut at 0 and B - 1."""
    places = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    bell = (-0.5 * ((places - steps[..., None]) / spread_steps) ** 2).softmax(-1)
    return -(bell * logits.log_softmax(-1)).sum(-1)


def expected(logits: Tensor) -> Tensor:
    """(...) mean step of the distributions whose (..., B) logits these are."""
    places = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return (logits.softmax(-1) * places).sum(-1)


def giou(found: Tensor, right: Tensor) -> Tensor:
    """(N,) generalised IoU (arXiv 1902.09630), from -1 to 1, of (N, 4) boxes x1, y1, x2, y2.

    ``right``: boxes with an area. ``found``: any four edges; reversed ones have none.
    """
    overlap = _area(torch.maximum(found[:, :2], right[:, :2]), torch.minimum(found[:, 2:], right[:, 2:]))
    union = _area(found[:, :2], found[:, 2:]) + _area(right[:, :2], right[:, 2:]) - overlap
    ends = torch.cat([found, right], dim=1).reshape(-1, 4, 2)
    hull = _area(ends.amin(1), ends.amax(1))
    return overlap / union - (hull - union) / hull


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)
