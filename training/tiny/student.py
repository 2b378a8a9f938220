"""A Qwen3-VL with the real architecture, processor and answer format, small enough for a CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.engines.vlm.checkpoint import images_and_text
from differad_edge.errors import MissingExtraError
from differad_edge.grounding import STUDENT_PROMPT
from differad_edge.results import Verdict
from training.tiny.model import CHAT_TEMPLATE, INIT_STD, ROPE_THETA, TAGS, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

PATCH_PX, MERGE = 8, 2
WIDTH, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH = 128, 4, 8, 4, 16
VISION_WIDTH, VISION_LAYERS, VISION_HEADS = 96, 3, 6
DEEPSTACK = (0, 1)
LEARNED_GRID = 16


def write_tiny_student(folder: str | os.PathLike[str], *, seed: int = 0) -> Path:
    """Write model (random weights of ``seed``) and processor into ``folder``; returns it.

    Raises MissingExtraError without the training packages.
    """
    processor = student_processor()
    target = Path(folder)
    student_model(processor, seed=seed).save_pretrained(target)
    processor.save_pretrained(target)
    return target


def student_processor() -> ProcessorMixin:
    """Its own tokenizer, and Qwen3-VL's PIL image preprocessing; the engine brings images to its size before that."""
    try:
        from transformers import Qwen2VLImageProcessorPil, Qwen3VLProcessor
    except ImportError as exc:
        raise MissingExtraError("train", exc.name or "transformers") from exc
    token_px = PATCH_PX * MERGE
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH_PX,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": token_px**2, "longest_edge": (32 * token_px) ** 2},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    whole = (STUDENT_PROMPT, *TAGS, Verdict.OK.value, Verdict.NG.value)
    return images_and_text(Qwen3VLProcessor)(
        image_processor=images, tokenizer=tiny_tokenizer(whole), chat_template=CHAT_TEMPLATE
    )


def student_model(processor: ProcessorMixin, *, seed: int) -> PreTrainedModel:
    """Random weights of `student_config`, float32."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    tokenizer: Any = processor.tokenizer
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(student_config(processor))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def student_config(processor: ProcessorMixin) -> PreTrainedConfig:
    """4 text layers of width 128, 3 vision layers of width 96 with DeepStack."""
    from transformers import Qwen3VLConfig

    tokenizer: Any = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH * 3,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_VALUE_HEADS,
            "head_dim": HEAD_WIDTH,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_THETA,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "max_position_embeddings": 4096,
            "initializer_range": INIT_STD,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": VISION_WIDTH * 3,
            "num_heads": VISION_HEADS,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": LEARNED_GRID**2,
            "deepstack_visual_indexes": list(DEEPSTACK),
            "initializer_range": INIT_STD,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
