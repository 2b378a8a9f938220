"""A Qwen2-VL with the real architecture, processor and answer format, small enough to learn on a CPU.

``python -m training.tiny OUT`` writes a checkpoint with random weights, which ``training.cold_start`` starts from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.engines.vlm.checkpoint import images_and_text
from differad_edge.errors import MissingExtraError
from differad_edge.grounding import EVALUATION_PROMPT, format_answer
from training.formats import location_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

PATCH_PX, MERGE, TOKENS_A_SIDE = 7, 2, 4
SIDE_PX = TOKENS_A_SIDE * PATCH_PX * MERGE  # as the processor resizes images
WIDTH, LAYERS, HEADS = 128, 4, 8
VISION_WIDTH, VISION_LAYERS, VISION_HEADS = 96, 2, 6
VOCABULARY = 2048
ROPE_THETA = 10.0  # four tokens a side: with Qwen's 1e6 the slow half of so few channels would not tell them apart
INIT_STD = 0.05  # narrow layers: Qwen's 0.02 leaves the images' share of the first activations too faint to learn from

# The special tokens of Qwen2-VL in its order; the tags are tokens of their own in Qwen3's vocabulary, and here.
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
# A digit is one token, as in Qwen's vocabulary. A phrase between digits and stops may become one token, and the prompt
# of the recipes is one: on a CPU a step costs by the token.
SPLIT = r"\p{N}|[^\p{N}.;:<>]+|[.;:<>]+"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' or 'image' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_checkpoint(folder: str | os.PathLike[str], *, seed: int = 0) -> Path:
    """Write model (random weights of ``seed``) and processor into ``folder``; returns it.

    Raises MissingExtraError without the training packages.
    """
    processor = tiny_processor()
    model = tiny_model(processor, seed=seed)
    target = Path(folder)
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return target


def tiny_processor() -> ProcessorMixin:
    """Its own tokenizer, and Qwen2-VL's PIL image preprocessing to 56x56 px: 8x8 patches, 4x4 tokens after merging."""
    try:
        from transformers import Qwen2VLImageProcessorPil, Qwen2VLProcessor
    except ImportError as exc:
        raise MissingExtraError("train", exc.name or "transformers") from exc
    pixels = SIDE_PX**2
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH_PX,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": pixels, "longest_edge": pixels},
    )
    return images_and_text(Qwen2VLProcessor)(
        image_processor=images, tokenizer=tiny_tokenizer(), chat_template=CHAT_TEMPLATE
    )


def tiny_tokenizer(whole: Sequence[str] = (EVALUATION_PROMPT, *TAGS)) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the texts that the tiny model writes; each of ``whole`` is one token."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(TAGS) - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(), trainer)
    bpe.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    # Text, not special: the parser reads the tags.
    bpe.add_tokens([AddedToken(text, special=False, normalized=False) for text in whole])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(processor: ProcessorMixin, *, seed: int) -> PreTrainedModel:
    """Random weights of `tiny_config`, float32."""
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    tokenizer: Any = processor.tokenizer
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(tiny_config(processor))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def tiny_config(processor: ProcessorMixin) -> PreTrainedConfig:
    """4 text layers of width 128, 2 vision layers of width 96."""
    from transformers import Qwen2VLConfig

    tokenizer: Any = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH * 3,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": [2, 3, 3]},
            "max_position_embeddings": 4096,
            "initializer_range": INIT_STD,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": VISION_LAYERS,
            "embed_dim": VISION_WIDTH,
            "hidden_size": WIDTH,
            "num_heads": VISION_HEADS,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "mlp_ratio": 3,
            "initializer_range": INIT_STD,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def _texts() -> Iterator[str]:
    """What the tokenizer learns from; a text that it does not know it reads byte by byte."""
    thirds = (160, 500, 840)
    for _ in range(20):
        yield format_answer(None, "Nothing differs.")
        for x in thirds:
            for y in thirds:
                yield format_answer((10, 20, 300, 400), f"It differs at the {location_name((x, y, x, y))}.")
        yield "user\n"
        yield "assistant\n"
