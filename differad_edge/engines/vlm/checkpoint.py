"""Loading a checkpoint of the Qwen vision-language family: its weights, tokenizer, chat template and preprocessing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from differad_edge.errors import MissingExtraError, ModelIntegrityError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["images_and_text", "load_model", "load_processor"]


def load_model(
    model: str | os.PathLike[str], *, dtype: str, revision: str | None = None, attention: str = "sdpa"
) -> PreTrainedModel:
    """The weights of ``model``, a folder or a hub id, on the CPU. ``dtype``: "float32" or "bfloat16".

    Raises MissingExtraError, and ModelIntegrityError for what is torn, or no vision-language model.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForImageTextToText
    except ImportError as exc:
        raise MissingExtraError("vlm", exc.name or "transformers") from exc
    try:
        return AutoModelForImageTextToText.from_pretrained(
            os.fspath(model), revision=revision, dtype=getattr(torch, dtype), attn_implementation=attention
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        raise ModelIntegrityError(f"model: {os.fspath(model)} cannot be loaded: {_first_line(exc)}") from exc


def load_processor(model: str | os.PathLike[str]) -> ProcessorMixin:
    """The processor of ``model``: a folder, or an id of the model hub.

    Images go through the PIL preprocessing on every machine, torchvision or not: the two differ by up to 0.31 of the
    normalised range, and what a model was trained with is what it must be asked with. The video part is left out.

    Raises MissingExtraError, and ModelIntegrityError where there is no processor of the Qwen-VL family.
    """
    try:
        from transformers.models.auto.processing_auto import processor_class_from_name
        from transformers.processing_utils import ProcessorMixin
    except ImportError as exc:
        raise MissingExtraError("vlm", exc.name or "transformers") from exc
    where = os.fspath(model)
    try:
        name, _ = ProcessorMixin.get_processor_dict(where)
        base = processor_class_from_name(str(name.get("processor_class")))
    except (OSError, ValueError, AttributeError) as exc:
        raise ModelIntegrityError(f"model: {where} has no processor that can be read: {_first_line(exc)}") from exc
    if base is None:
        allowed = "Qwen2VLProcessor, Qwen2_5_VLProcessor or Qwen3VLProcessor"
        raise ModelIntegrityError(f"model: the processor of {where} is {name.get('processor_class')!r}; {allowed}")
    try:
        return images_and_text(base).from_pretrained(where, backend="pil")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ModelIntegrityError(f"model: the processor of {where} cannot be read: {_first_line(exc)}") from exc


def images_and_text(processor: type[ProcessorMixin]) -> type[Any]:
    """``processor`` without its video part, which needs torchvision; it keeps its name when it is saved."""

    def get_attributes(cls: type[Any]) -> list[str]:
        return ["image_processor", "tokenizer"]

    return type(processor.__name__, (processor,), {"get_attributes": classmethod(get_attributes)})


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
