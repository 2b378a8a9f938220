"""What training minimises: at each cell, over each image, and at the peaks that decide the verdict."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.lite.network import HEAT_STRIDE
from distill.lite.recipe import Recipe

#: Heat-map cells around a defect where a strong answer is no false alarm yet.
PEAK_MARGIN_CELLS = 4
#: Stands in for a logit that does not count in a maximum.
NEVER_LOGIT = -20.0


def heat_targets(label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Label and weight (N, 1, H, W) as float32 at the heat map's stride.

    Any defect pixel makes a cell a defect, any doubtful pixel takes the cell's vote.
    """
    return (
        F.max_pool2d(label.float(), HEAT_STRIDE),
        1 - F.max_pool2d(1 - weight.float(), HEAT_STRIDE),
    )


def loss_of(logits: Tensor, label: Tensor, weight: Tensor, recipe: Recipe) -> Tensor:
    """Weighted cross-entropy + Dice per image + the peaks that decide the verdict: a scalar.

    ``logits``: (N, 1, H/2, W/2). ``label``, ``weight``: (N, 1, H, W), 0 or 1. The peak term is the cross-entropy of
    each image's strongest answer outside its defects and strongest answer inside: those two numbers, not the mean
    pixel, make a false alarm or a miss.
    """
    truth, weight = heat_targets(label, weight)
    pixel = F.binary_cross_entropy_with_logits(
        logits, truth, weight, pos_weight=torch.tensor(recipe.positive_weight, device=logits.device)
    )
    probability = logits.sigmoid() * weight
    axes = (1, 2, 3)
    dice = 1 - (2 * (probability * truth).sum(axes) + 1) / (probability.sum(axes) + (truth * weight).sum(axes) + 1)
    smooth = F.avg_pool2d(logits, 3, 1, 1)
    margin = PEAK_MARGIN_CELLS
    near = F.max_pool2d(torch.maximum(truth, 1 - weight), 2 * margin + 1, 1, margin)
    outside = smooth.masked_fill(near > 0, NEVER_LOGIT).amax(axes)
    inside = smooth.masked_fill(truth * weight == 0, NEVER_LOGIT).amax(axes)
    bad = (truth * weight).amax(axes) > 0
    peak = F.softplus(outside).mean() + (F.softplus(-inside) * bad).mean()
    return pixel + dice.mean() + recipe.peak_weight * peak
