"""The shape of a Qwen vision-language model, from its configuration: parameters, tokens and work, by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2-VL or Qwen3-VL: text decoder, then vision tower. See `parameters` for what follows from them.

    The last three are Qwen3-VL's: ``qk_norm`` norms queries and keys head by head, where Qwen2-VL has biases on q, k
    and v; ``positions`` are learned, and the patch embedding has a bias with them; ``deepstack`` counts the mergers
    beside the last one, which norm what they have merged.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    vision_layers: int
    vision_hidden: int
    vision_mlp: int
    patch_px: int
    merge: int = 2
    temporal: int = 2
    qk_norm: bool = False
    positions: int = 0
    deepstack: int = 0

    @property
    def q_width(self) -> int:
        """Of the decoder's query heads together; not always that of its hidden states."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Of the decoder's key heads together, and of its value heads."""
        return self.kv_heads * self.head_dim

    @property
    def decoder_layer(self) -> int:
        """Parameters of one decoder layer: attention (with biases, or norms of q and k), gated MLP, two norms."""
        attention = self.hidden * 2 * (self.q_width + self.kv_width)
        extra = 2 * self.head_dim if self.qk_norm else self.q_width + 2 * self.kv_width
        return attention + extra + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding, and of the head where it is not the same matrix."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def vision(self) -> int:
        """Parameters of the vision tower with its mergers."""
        width = self.vision_hidden
        patch = 3 * self.temporal * self.patch_px**2 * width + (width if self.positions else 0)
        block = 4 * width**2 + 4 * width + 2 * width * self.vision_mlp + width + self.vision_mlp + 4 * width
        merged = width * self.merge**2
        merger = merged * merged + merged + merged * self.hidden + self.hidden
        mergers = merger + 2 * width + self.deepstack * (merger + 2 * merged)
        return patch + self.positions * width + self.vision_layers * block + mergers

    @property
    def parameters(self) -> int:
        """All of them, as ``sum(p.numel() for p in model.parameters())`` counts."""
        return self.layers * self.decoder_layer + self.hidden + self.embeddings + self.vision

    def image_tokens(self, width_px: int, height_px: int) -> int:
        """Tokens that an image takes in the prompt, its sides rounded to whole tokens."""
        side = self.patch_px * self.merge
        return max(1, round(width_px / side)) * max(1, round(height_px / side))

    def forward_flops(self, tokens: int, image_tokens: int, images: int, *, scored: int) -> float:
        """Floating-point operations of one sequence's forward pass: two for each multiply-add of the matrix products.

        ``tokens``: in the sequence, ``image_tokens`` in each of its ``images``; ``scored``: positions that go through
        the head. Attention counts the whole square, as a kernel without a causal shortcut computes it.
        """
        projections = self.hidden * 2 * (self.q_width + self.kv_width) + 3 * self.hidden * self.intermediate
        decoder = self.layers * (projections * tokens + 2 * self.q_width * tokens**2)
        head = scored * self.hidden * self.vocabulary
        return 2.0 * (decoder + head + images * self._vision_products(image_tokens * self.merge**2))

    def _vision_products(self, patches: int) -> float:
        width = self.vision_hidden
        merged = width * self.merge**2
        blocks = self.vision_layers * ((4 * width**2 + 2 * width * self.vision_mlp) * patches + 2 * width * patches**2)
        merger = (merged * merged + merged * self.hidden) * patches / self.merge**2
        return blocks + 3 * self.temporal * self.patch_px**2 * width * patches + (1 + self.deepstack) * merger

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Of the cache that a rollout keeps for each token."""
        return 2 * self.layers * self.kv_width * bytes_per_value


QWEN2_VL_7B = Shape(28, 3584, 18944, 28, 4, 128, 152064, False, 32, 1280, 5120, 14)
QWEN2_VL_2B = Shape(28, 1536, 8960, 12, 2, 128, 151936, True, 32, 1280, 5120, 14)
QWEN3_VL_2B = Shape(
    28, 2048, 6144, 16, 8, 128, 151936, True, 24, 1024, 4096, 16, qk_norm=True, positions=48**2, deepstack=3
)
KNOWN = {"Qwen2-VL-7B": QWEN2_VL_7B, "Qwen2-VL-2B": QWEN2_VL_2B, "Qwen3-VL-2B": QWEN3_VL_2B}
"""By what a path or hub id ends with, before "-Instruct"; for plans on a machine without the checkpoint."""


MAX_SIZE = 10**9
"""Of any of a shape's numbers: what is beyond is a damaged file."""


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a checkpoint's ``config.json`` describes.

    Raises KeyError where it is neither Qwen2-VL nor Qwen3-VL, ValueError for a size that is no whole number from 1.
    """
    text = _section(config, "text_config", config)
    vision = _section(config, "vision_config")
    qwen3 = config.get("model_type") == "qwen3_vl"
    # Qwen2-VL calls the decoder's width hidden_size in the vision part.
    width = _size(vision, "hidden_size" if qwen3 else "embed_dim")
    layers, hidden, heads = (_size(text, name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    return Shape(
        layers=layers,
        hidden=hidden,
        intermediate=_size(text, "intermediate_size"),
        heads=heads,
        kv_heads=_size(text, "num_key_value_heads"),
        head_dim=_size(text, "head_dim") if qwen3 else hidden // heads,
        vocabulary=_size(text, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        vision_layers=_size(vision, "depth"),
        vision_hidden=width,
        vision_mlp=_size(vision, "intermediate_size") if qwen3 else math.floor(width * _number(vision, "mlp_ratio")),
        patch_px=_size(vision, "patch_size"),
        merge=_size(vision, "spatial_merge_size", 2),
        temporal=_size(vision, "temporal_patch_size", 2),
        qk_norm=qwen3,
        positions=_size(vision, "num_position_embeddings") if qwen3 else 0,
        deepstack=len(_list(vision, "deepstack_visual_indexes")) if qwen3 else 0,
    )


def _section(config: Mapping[str, Any], name: str, default: Any = None) -> Mapping[str, Any]:
    value = config[name] if default is None else config.get(name, default)
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: got {str(value)[:40]!r}, allowed: an object")
    return value


def _size(section: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = section[name] if default is None else section.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
        raise ValueError(f"{name}: got {str(value)[:40]!r}, allowed: a whole number from 1 to {MAX_SIZE}")
    return value


def _number(section: Mapping[str, Any], name: str) -> float:
    value = section[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_SIZE:
        raise ValueError(f"{name}: got {str(value)[:40]!r}, allowed: a number above 0, to {MAX_SIZE}")
    return float(value)


def _list(section: Mapping[str, Any], name: str) -> list[Any]:
    value = section[name]
    if not isinstance(value, list):
        raise ValueError(f"{name}: got {str(value)[:40]!r}, allowed: a list")
    return value
