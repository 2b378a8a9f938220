"""The shape of a Qwen vision-language model, from its configuration: parameters, tokens and work, by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2-VL: text decoder, then vision tower. See `parameters` for what follows from them."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    vision_layers: int
    vision_hidden: int
    vision_mlp: int
    patch_px: int
    merge: int = 2
    temporal: int = 2

    @property
    def head_dim(self) -> int:
        """Width of an attention head of the decoder."""
        return self.hidden // self.heads

    @property
    def decoder_layer(self) -> int:
        """Parameters of one decoder layer: attention (biases on q, k, v), gated MLP, two norms."""
        kv = self.kv_heads * self.head_dim
        attention = self.hidden * (2 * self.hidden + 2 * kv) + self.hidden + 2 * kv
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding, and of the head where it is not the same matrix."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def vision(self) -> int:
        """Parameters of the vision tower with its merger."""
        width = self.vision_hidden
        patch = 3 * self.temporal * self.patch_px**2 * width
        block = 4 * width**2 + 4 * width + 2 * width * self.vision_mlp + width + self.vision_mlp + 4 * width
        merged = width * self.merge**2
        merger = 2 * width + merged * merged + merged + merged * self.hidden + self.hidden
        return patch + self.vision_layers * block + merger

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
        kv = self.kv_heads * self.head_dim
        projections = self.hidden * (2 * self.hidden + 2 * kv) + 3 * self.hidden * self.intermediate
        decoder = self.layers * (projections * tokens + 2 * self.hidden * tokens**2)
        head = scored * self.hidden * self.vocabulary
        return 2.0 * (decoder + head + images * self._vision_products(image_tokens * self.merge**2))

    def _vision_products(self, patches: int) -> float:
        width = self.vision_hidden
        merged = width * self.merge**2
        blocks = self.vision_layers * ((4 * width**2 + 2 * width * self.vision_mlp) * patches + 2 * width * patches**2)
        merger = (merged * merged + merged * self.hidden) * patches / self.merge**2
        return blocks + 3 * self.temporal * self.patch_px**2 * width * patches + merger

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Of the cache that a rollout keeps for each token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value


QWEN2_VL_7B = Shape(28, 3584, 18944, 28, 4, 152064, False, 32, 1280, 5120, 14)
QWEN2_VL_2B = Shape(28, 1536, 8960, 12, 2, 151936, True, 32, 1280, 5120, 14)
KNOWN = {"Qwen2-VL-7B": QWEN2_VL_7B, "Qwen2-VL-2B": QWEN2_VL_2B}
"""By what a path or hub id ends with, before "-Instruct"; for plans on a machine without the checkpoint."""


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a Qwen2-VL checkpoint's ``config.json`` describes."""
    text = config.get("text_config", config)
    vision = config["vision_config"]
    width = vision["embed_dim"]
    return Shape(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        vocabulary=text["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        vision_layers=vision["depth"],
        vision_hidden=width,
        vision_mlp=math.floor(width * vision["mlp_ratio"]),
        patch_px=vision["patch_size"],
        merge=vision.get("spatial_merge_size", 2),
        temporal=vision.get("temporal_patch_size", 2),
    )
