"""The student's stages as modules that an exporter can follow: fixed sizes, keys and values in and out, no branches.

========  ==============================================  ==========================================================
stage     in                                              out
========  ==============================================  ==========================================================
vision    image (H, W, 3) uint8 BGR                       features (tokens, width), deep (levels, tokens, width)
prefix    features, deep of the reference                 keys, values of every layer, (1, kv_heads, prefix, head)
tail      features, deep of the target; keys, values      hidden (1 + queries, width) float32; keys, values
step      x (1, width) float32, start (1,) int64; the     hidden (1, width) float32; keys, values
          same
jump      x (JUMP, width), start; the same                hidden (JUMP, width) float32; keys, values
head      hidden (1, width) float32                       logits (1, vocabulary) float32
========  ==============================================  ==========================================================

Keys and values of tail, step and jump are buffers of (1, kv_heads, capacity, head), which a runtime updates in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from differad_edge.engines.vlm.layout import Layout
from differad_edge.engines.vlm.modules import Decoder, Vision
from differad_edge.engines.vlm.runner import JUMP, Floats

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Stage", "stages_of"]

"""Tokens of a jump: NG and the longest drafted box fit in one."""
OPSET = 24  # the first with TensorScatter, and Attention on a buffer


@dataclass(frozen=True)
class Stage:
    """``inputs``: name to an example of the shape and type that it always has; ``outputs``: their names."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class _Buffers:
    """Memory of (1, kv_heads, capacity, head) buffers, one for each layer, that come in and go out."""

    def __init__(self, buffers: Sequence[Tensor], start: Tensor, count: int) -> None:
        self.keys, self.values = list(buffers[0::2]), list(buffers[1::2])
        self.start = start
        rows = start + torch.arange(count)
        self.seen = torch.arange(buffers[0].shape[2]) <= rows[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See Memory."""
        self.keys[layer] = self._updated(self.keys[layer], key)
        self.values[layer] = self._updated(self.values[layer], value)
        return _attention(query, self.keys[layer], self.values[layer], self.seen)

    @property
    def buffers(self) -> Iterator[Tensor]:
        for key, value in zip(self.keys, self.values, strict=True):
            yield from (key, value)

    def _updated(self, buffer: Tensor, rows: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            "TensorScatter",
            (buffer, rows[None], self.start),
            {"axis": 2, "mode": "linear"},
            dtype=buffer.dtype,
            shape=buffer.shape,
            version=OPSET,
        )


class _Fresh:
    """Memory of a text that begins here: what it keeps comes out in its own length."""

    def __init__(self) -> None:
        self.buffers: list[Tensor] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See Memory."""
        self.buffers += [key[None], value[None]]
        count = query.shape[1]
        seen = torch.arange(count) <= torch.arange(count)[:, None]
        return _attention(query, key[None], value[None], seen)


def _attention(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic(
        "Attention",
        (query[None], keys, values, seen),
        {"scale": float(query.shape[-1] ** -0.5)},
        dtype=query.dtype,
        shape=(1, *query.shape),
        version=OPSET,
    )[0]


class _Prefix(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor, deep: Tensor) -> tuple[Tensor, ...]:
        memory = _Fresh()
        self.decoder.read_prefix(features, deep, memory)
        return tuple(memory.buffers)


class _Tail(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor, deep: Tensor, *buffers: Tensor) -> tuple[Tensor, ...]:
        memory = _Buffers(buffers, torch.tensor([self.decoder.layout.prefix_length]), self.decoder.tail_length)
        hidden = self.decoder.read_tail(features, deep, memory)[-self.decoder.answers :]
        return (hidden.float(), *memory.buffers)


class _Tokens(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor, start: Tensor, *buffers: Tensor) -> tuple[Tensor, ...]:
        memory = _Buffers(buffers, start, len(x))
        hidden = self.decoder.read_tokens(x.to(buffers[0].dtype), start, memory)
        return (hidden.float(), *memory.buffers)


class _Head(nn.Module):
    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden.to(self.head.weight.dtype))
        return logits.float()


def stages_of(
    model: PreTrainedModel,
    layout: Layout,
    mean: Sequence[float],
    std: Sequence[float],
    queries: Floats | None = None,
) -> Iterator[Stage]:
    """The stages of a Qwen3-VL, one after the other, in the model's precision; its weights are shared.

    ``queries``: (Q, width) of a box head, which become constants of the tail; None without one.
    """
    config = model.config.text_config
    width, dtype = config.hidden_size, model.dtype
    levels = len(model.config.vision_config.deepstack_visual_indexes)
    size = layout.size
    features = {
        "features": torch.zeros(size.tokens, width, dtype=dtype),
        "deep": torch.zeros(levels, size.tokens, width, dtype=dtype),
    }
    names = [f"{kind}_{layer}" for layer in range(config.num_hidden_layers) for kind in ("keys", "values")]
    shape = (1, config.num_key_value_heads, layout.capacity, config.head_dim)
    buffers = {name: torch.zeros(shape, dtype=dtype) for name in names}
    kept = tuple(f"{name}_out" for name in names)
    image = torch.zeros(size.height_px, size.width_px, 3, dtype=torch.uint8)
    decoder = Decoder(model, layout, None if queries is None else torch.from_numpy(queries)).eval()
    yield Stage("vision", Vision(model.model.visual, size, mean, std).eval(), {"image": image}, tuple(features))
    yield Stage("prefix", _Prefix(decoder), features, kept)
    yield Stage("tail", _Tail(decoder), features | buffers, ("hidden", *kept))
    for name, count in (("step", 1), ("jump", JUMP)):
        tokens = {"x": torch.zeros(count, width), "start": torch.tensor([layout.length])}
        yield Stage(name, _Tokens(decoder), tokens | buffers, ("hidden", *kept))
    yield Stage("head", _Head(model.lm_head), {"hidden": torch.zeros(1, width)}, ("logits",))
