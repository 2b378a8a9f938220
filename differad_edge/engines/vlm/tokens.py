"""Whether a tokenizer is the one that a checkpoint was trained with: one of another model would answer all the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.engines.vlm.checkpoint import file_beside
from differad_edge.engines.vlm.exported import TOKENIZER, sha256_of
from differad_edge.errors import ModelIntegrityError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_tokenizer_file", "check_tokens", "tokenizer_sha256"]

_SPECIAL = {
    "<|image_pad|>": "image_token_id",
    "<|vision_start|>": "vision_start_token_id",
    "<|vision_end|>": "vision_end_token_id",
}
"""Tokens whose ids a checkpoint's config names too."""


def check_tokens(path: str, tokenizer: Any, weights: PreTrainedModel) -> None:
    """Raise ModelIntegrityError where the tokenizer has other ids for special tokens than the config of ``weights``."""
    for token, name in _SPECIAL.items():
        found, wanted = tokenizer.convert_tokens_to_ids(token), getattr(weights.config, name)
        if found != wanted:
            _refuse(path, token, found, f"{wanted}, the {name} of its config")
    ends = _several(weights.config.text_config.eos_token_id)
    ends |= _several(getattr(weights.generation_config, "eos_token_id", None))
    if ends and tokenizer.eos_token_id not in ends:
        known = " or ".join(str(one) for one in sorted(ends))
        _refuse(path, str(tokenizer.eos_token), tokenizer.eos_token_id, f"{known}, the eos_token_id of its config")


def tokenizer_sha256(folder: Path) -> str | None:
    """Hex digest of the tokenizer beside the weights in ``folder``; None where there is none."""
    file = folder / TOKENIZER
    return sha256_of(file) if file.is_file() else None


def check_tokenizer_file(path: str, sha256: str) -> None:
    """Raise ModelIntegrityError unless the tokenizer of ``path``, a folder or a hub id, is that of this digest.

    The ids of special tokens do not tell whether OK and NG have changed places.
    """
    file = file_beside(path, TOKENIZER)
    found = "none" if file is None else sha256_of(file)
    if found != sha256:
        detail = f"tokenizer_sha256: got {found[:12]} of its {TOKENIZER}, allowed: {sha256[:12]}... as its card says"
        raise ModelIntegrityError(f"model: {path}: {detail}")


def _several(value: int | list[int] | None) -> set[int]:
    return set() if value is None else {value} if isinstance(value, int) else set(value)


def _refuse(path: str, token: str, found: object, allowed: str) -> None:
    detail = f"{token}: got the id {found} of its tokenizer, allowed: {allowed}"
    raise ModelIntegrityError(f"model: {path}: {detail}; the tokenizer is another model's")
