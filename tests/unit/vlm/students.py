"""Tiny Qwen3-VL models with random weights, large enough that answers and logits differ from one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from differad_edge.engines.vlm.box_head import BINS, QUERIES, BoxHead
from differad_edge.engines.vlm.grammar import AnswerTokens
from differad_edge.engines.vlm.layout import Layout, WorkingSize
from differad_edge.engines.vlm.questions import Question

VOCABULARY, IMAGE, VIDEO, VISION_START, VISION_END = 1000, 990, 993, 991, 992
GRAMMAR = AnswerTokens(
    opening=(40, 41),
    verdicts=(42, 43),
    box_open=(44,),
    stops=((45,), (46,), (45,)),
    close=(47, 41, 48),
    digits=tuple(range(50, 60)),
)


def student(seed: int = 0, dtype: torch.dtype = torch.float32, *, layers: int = 4, **text: Any) -> Any:
    """A model of the real architecture: MRoPE in three sections, grouped queries, DeepStack."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen3VLConfig(
        text_config={
            **sizes,
            "vocab_size": VOCABULARY,
            "num_hidden_layers": layers,
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            **text,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": sizes["hidden_size"],
            "deepstack_visual_indexes": [0, 1, 2],
            "num_position_embeddings": 2304,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.ndim > 1:
                weight.copy_(noise * (1.0 if "embed" in name else 1.6 / weight.shape[-1] ** 0.5))
            elif "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.1 * noise)
            else:
                weight.copy_(0.1 * noise)
    return model.to(dtype)


def question(side_px: int = 128, *, fit: str = "stretch", seed: int = 7) -> Layout:
    """A layout with random words around two images of ``side_px``."""
    rng = np.random.default_rng(seed)
    before, between, after = (tuple(rng.integers(100, 900, count).tolist()) for count in (20, 3, 8))
    return Layout(
        size=WorkingSize(side_px, side_px, fit),  # type: ignore[arg-type]
        before=(*before, VISION_START),
        between=(VISION_END, *between, VISION_START),
        after=(VISION_END, *after, *GRAMMAR.opening),
        capacity=28 + 13 + 2 * (side_px // 32) ** 2 + 64,
    )


QUESTION = Question(question(128), GRAMMAR, "student", frozenset({901}), IMAGE, ())


def picture(seed: int, side_px: int = 128) -> np.ndarray:
    """Random HxWx3 uint8."""
    return np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)


def box_head(seed: int = 0, width: int = 64) -> BoxHead:
    """Random queries and projections."""
    rng = np.random.default_rng(seed)
    shapes = ((QUERIES, width), (width,), (1,), (BINS, width), (BINS,))
    return BoxHead("0" * 64, *(rng.normal(size=shape).astype(np.float32) for shape in shapes))
