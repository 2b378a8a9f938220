"""Qwen3-VL at fixed sizes: what depends on the grid alone is a constant, and keys and values lie in one buffer.

The weights are those of transformers' model, shared and not copied. Sizes that never change are what lets a GPU
replay a captured graph, what an exporter can follow (transformers' own vision tower branches on data), and what makes
a cached reference equal an uncached one to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from differad_edge.engines.vlm.layout import Layout, WorkingSize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

__all__ = ["BufferMemory", "Decoder", "Memory", "Vision"]

_MIDDLE = 127.5  # of 0 to 255; with it taken off, every pixel value is exact in bfloat16


class Vision(nn.Module):
    """The vision tower for one working size: preprocessing, blocks, mergers.

    ``mean``, ``std``: of the image processor, per channel in RGB order, for pixels from 0 to 1.
    """

    patch_weight: Tensor
    patch_bias: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, tower: Any, size: WorkingSize, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.blocks, self.merger = tower.blocks, tower.merger
        self.deep_mergers, self.deep_blocks = tower.deepstack_merger_list, list(tower.deepstack_visual_indexes)
        self.heads: int = tower.config.num_heads
        self.size = size
        weight = tower.patch_embed.proj.weight
        # Both frames of a still image are equal: the two temporal taps add up. Channels are turned to BGR.
        folded = weight.detach().double().sum(2)
        spread = torch.tensor(std, dtype=torch.float64, device=weight.device)[None, :, None, None]
        middle = torch.tensor(mean, dtype=torch.float64, device=weight.device)[None, :, None, None]
        folded = folded / (255 * spread)
        bias = tower.patch_embed.proj.bias.detach().double() + (folded * (_MIDDLE - 255 * middle)).flatten(1).sum(1)
        grid = torch.tensor([[1, size.patch_rows, size.patch_columns]], device=weight.device)
        places, rotation = _grid_constants(tower, grid)
        self.register_buffer("patch_weight", folded.flip(1).permute(0, 2, 3, 1).flatten(1).to(weight.dtype))
        self.register_buffer("patch_bias", (places.double() + bias).to(weight.dtype))
        self.register_buffer("cos", rotation[0])
        self.register_buffer("sin", rotation[1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(H, W, 3) uint8 BGR at the working size to (tokens, width) and, for DeepStack, (levels, tokens, width)."""
        size = self.size
        merge, patch = size.merge, size.patch_px
        pixels = image.to(self.patch_weight.dtype) - _MIDDLE
        blocks = pixels.reshape(size.rows, merge, patch, size.columns, merge, patch, 3).permute(0, 3, 1, 4, 2, 5, 6)
        x = torch.addmm(self.patch_bias, blocks.reshape(self.patch_bias.shape[0], -1), self.patch_weight.t())
        deep = []
        for number, block in enumerate(self.blocks):
            x = x + self._attend(block.attn, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
            if number in self.deep_blocks:
                deep.append(self.deep_mergers[self.deep_blocks.index(number)](x))
        return self.merger(x), torch.stack(deep)

    def _attend(self, attention: Any, x: Tensor) -> Tensor:
        count = x.shape[0]
        query, key, value = attention.qkv(x).reshape(count, 3, self.heads, -1).permute(1, 2, 0, 3).unbind(0)
        query, key = (_rotated(states.float(), self.cos, self.sin).to(x.dtype) for states in (query, key))
        mixed = F.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        projected: Tensor = attention.proj(mixed.transpose(0, 1).reshape(count, -1))
        return projected


class Memory(Protocol):
    """Keys and values of the tokens so far."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Keep (kv_heads, T, head) keys and values, and attend to all so far: (heads, T, head)."""
        ...


class BufferMemory:
    """A buffer of (layers, 2, kv_heads, capacity, head), written in place from ``start``, an int64 tensor of one value.

    What lies beyond the tokens at hand is never seen: a token sees its own row and those before.
    """

    def __init__(self, buffer: Tensor, start: Tensor, count: int) -> None:
        self.buffer = buffer
        self.rows = start + torch.arange(count, device=buffer.device)
        self.seen = torch.arange(buffer.shape[3], device=buffer.device) <= self.rows[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See Memory."""
        keys, values = self.buffer[layer]
        keys.index_copy_(1, self.rows, key)
        values.index_copy_(1, self.rows, value)
        return F.scaled_dot_product_attention(
            query[None], keys[None], values[None], attn_mask=self.seen, enable_gqa=True
        )[0]


class Decoder(nn.Module):
    """The language model of a Qwen3-VL: a few tokens at a time, against a memory of those before.

    ``queries``: (Q, width) embeddings that are read behind the question; None: no such.
    """

    cos: Tensor
    sin: Tensor
    frequencies: Tensor
    queries: Tensor | None

    def __init__(self, model: PreTrainedModel, layout: Layout, queries: Tensor | None = None) -> None:
        super().__init__()
        language = model.model.language_model
        config = model.config.text_config
        self.layers, self.norm, self.embed = language.layers, language.norm, language.embed_tokens
        self.head_dim: int = config.head_dim
        self.layout = layout
        device = self.embed.weight.device
        self.register_buffer("queries", None if queries is None else queries.detach().to(self.embed.weight))
        after = layout.positions_after(0 if queries is None else len(queries))
        positions = torch.from_numpy(np.concatenate([layout.positions, after], axis=1))[:, None].to(device)
        cos, sin = language.rotary_emb(self.embed.weight, positions)
        self.register_buffer("cos", cos[0])
        self.register_buffer("sin", sin[0])
        self.register_buffer("frequencies", language.rotary_emb.inv_freq.float().clone())
        for name in ("before", "between", "after"):
            self.register_buffer(name, torch.tensor(getattr(layout, name), dtype=torch.int64, device=device))
        self.attention_scaling: float = language.rotary_emb.attention_scaling

    @property
    def answers(self) -> int:
        """Rows of a tail that somebody looks at, its last ones: the question's last token, and the queries."""
        return 1 if self.queries is None else 1 + len(self.queries)

    @property
    def tail_length(self) -> int:
        """Rows of a tail: tokens, and queries."""
        return self.layout.tail_length + self.answers - 1

    def read_prefix(self, features: Tensor, deep: Tensor, memory: Memory) -> Tensor:
        """Everything up to the target, given the reference's features; (prefix, width) hidden states."""
        layout = self.layout
        x = torch.cat([self.embed(self.before), features, self.embed(self.between)])
        return self._run(x, slice(0, layout.prefix_length), memory, self._at(len(layout.before), deep, len(x)))

    def read_tail(self, features: Tensor, deep: Tensor, memory: Memory) -> Tensor:
        """From the target to the end of the question, and the queries; (tail, width) hidden states."""
        start = self.layout.prefix_length
        x = torch.cat([features, self.embed(self.after), *([] if self.queries is None else [self.queries])])
        return self._run(x, slice(start, start + self.tail_length), memory, self._at(0, deep, len(x)))

    def read_tokens(self, x: Tensor, start: Tensor, memory: Memory) -> Tensor:
        """Tokens of the answer, (T, width) embeddings of which the first has the index ``start``; hidden states."""
        positions = start + self.layout.position_delta + torch.arange(x.shape[0], device=x.device)
        return self.read_at(x, positions, memory)

    def read_at(self, x: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """Text, (T, width) embeddings, at these (T,) positions; hidden states."""
        angles = positions[:, None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        cos, sin = (turned * self.attention_scaling for turned in (angles.cos(), angles.sin()))
        return self._run(x, (cos.to(x.dtype), sin.to(x.dtype)), memory, None)

    def _at(self, first: int, deep: Tensor, count: int) -> Tensor:
        """DeepStack features in their rows, zeros in those of text."""
        return F.pad(deep, (0, 0, first, count - first - deep.shape[1]))

    def _run(self, x: Tensor, where: slice | tuple[Tensor, Tensor], memory: Memory, deep: Tensor | None) -> Tensor:
        cos, sin = (self.cos[where], self.sin[where]) if isinstance(where, slice) else where
        for number, layer in enumerate(self.layers):
            attention = layer.self_attn
            h = _rms(x, layer.input_layernorm)
            query, key, value = (
                projection(h).reshape(len(h), -1, self.head_dim)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = _rms(query, attention.q_norm).transpose(0, 1), _rms(key, attention.k_norm).transpose(0, 1)
            mixed = memory.attend(
                number, _rotated(query, cos, sin), _rotated(key, cos, sin), value.transpose(0, 1).contiguous()
            )
            x = x + attention.o_proj(mixed.transpose(0, 1).reshape(len(h), -1))
            x = x + layer.mlp(_rms(x, layer.post_attention_layernorm))
            if deep is not None and number < len(deep):
                x = x + deep[number]
        return _rms(x, self.norm)


def _rms(x: Tensor, norm: Any) -> Tensor:
    """As transformers' RMSNorm: in float32, and the weight after the rounding."""
    flat = F.rms_norm(x.float(), (x.shape[-1],), eps=norm.variance_epsilon).to(x.dtype)
    scaled: Tensor = norm.weight * flat
    return scaled


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def _grid_constants(tower: Any, grid: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Learned place embeddings of the grid's patches, and cosine and sine of their rotation, float32."""
    from transformers import vision_utils

    merge = tower.spatial_merge_size
    taps, shares = vision_utils.get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=tower.num_grid_per_side,
        mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    with torch.no_grad():
        places = (tower.pos_embed(taps) * shares[:, :, None]).sum(1)
        cos, sin = tower.rotary_pos_emb(places, vision_utils.get_vision_position_ids(grid, merge))
    return places, (cos.float(), sin.float())
