"""A student's weights in eight bits in PyTorch: half the memory; arithmetic stays as it was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from differad_edge.engines.vlm.exported import KEPT_VISION_BLOCKS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Float8Linear", "hold_in_float8"]

_LARGEST = 448.0  # of E4M3
_LAYER = re.compile(r"(visual\.blocks|language_model\.layers)\.(\d+)\.")


class Float8Linear(nn.Module):
    """y = x W^T + b with W as E4M3 and a scale for each output; x and y in the scale's precision."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        exact = linear.weight.detach()
        scale = (exact.abs().amax(1, keepdim=True).float() / _LARGEST).clamp(min=1e-12).to(exact.dtype)
        self.register_buffer("weight", (exact / scale).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return F.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def hold_in_float8(model: PreTrainedModel) -> int:
    """Replace the linear layers of vision and language that bear it, in place; how many those were."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (place := _LAYER.search(name)) is not None
        and (place[1] != "visual.blocks" or int(place[2]) >= KEPT_VISION_BLOCKS)
    ]
    for name, module in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Float8Linear(module))
    return len(found)
