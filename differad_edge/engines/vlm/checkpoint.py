"""Loading a checkpoint of the Qwen vision-language family: its weights, tokenizer, chat template and preprocessing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.errors import MissingExtraError, ModelIntegrityError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["images_and_text", "load_model", "load_processor", "model_type", "weights_identity"]


def load_model(
    model: str | os.PathLike[str], *, dtype: str, revision: str | None = None, attention: str = "sdpa"
) -> PreTrainedModel:
    """The weights of ``model``, a folder or a hub id, on the CPU. ``dtype``: "float32", "bfloat16" or "float16".

    Raises MissingExtraError, and ModelIntegrityError for what is torn, lacks weights, or is no vision-language model.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForImageTextToText
    except ImportError as exc:
        raise MissingExtraError("vlm", exc.name or "transformers") from exc
    try:
        loaded, said = AutoModelForImageTextToText.from_pretrained(
            os.fspath(model),
            revision=revision,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        raise ModelIntegrityError(f"model: {os.fspath(model)} cannot be loaded: {_first_line(exc)}") from exc
    # transformers draws missing weights at random and goes on.
    lacking = sorted(str(name) for name in said["missing_keys"])
    if lacking:
        detail = f"{len(lacking)} weights are missing, {lacking[0]} first"
        raise ModelIntegrityError(f"model: {os.fspath(model)} cannot be loaded: {detail}")
    return loaded


def model_type(model: str | os.PathLike[str]) -> str:
    """What kind of model a folder or hub id holds, as "qwen3_vl". Raises as `load_model` does."""
    try:
        from transformers import AutoConfig
    except ImportError as exc:
        raise MissingExtraError("vlm", exc.name or "transformers") from exc
    try:
        return str(AutoConfig.from_pretrained(os.fspath(model)).model_type)
    except (OSError, ValueError, KeyError) as exc:
        raise ModelIntegrityError(f"model: {os.fspath(model)} cannot be loaded: {_first_line(exc)}") from exc


def load_processor(model: str | os.PathLike[str], *, revision: str | None = None) -> ProcessorMixin:
    """The processor of ``model``: a folder, or an id of the model hub.

    Images go through the PIL preprocessing on every machine, torchvision or not: the two differ by up to 0.31 of the
    normalised range, and what a model was trained with is what it must be asked with. The video part is left out.
    Texts are padded on the left, where generation and the positions of images need it, whatever the tokenizer says.

    Raises MissingExtraError, and ModelIntegrityError where there is no processor of the Qwen-VL family.
    """
    try:
        from transformers.models.auto.processing_auto import processor_class_from_name
        from transformers.processing_utils import ProcessorMixin
    except ImportError as exc:
        raise MissingExtraError("vlm", exc.name or "transformers") from exc
    where = os.fspath(model)
    try:
        name, _ = ProcessorMixin.get_processor_dict(where, revision=revision)
        base = processor_class_from_name(str(name.get("processor_class")))
    except (OSError, ValueError, AttributeError) as exc:
        raise ModelIntegrityError(f"model: {where} has no processor that can be read: {_first_line(exc)}") from exc
    if not name:
        raise ModelIntegrityError(f"model: got {where!r}, allowed: a checkpoint folder, or an id that the hub knows")
    if base is None:
        allowed = "Qwen2VLProcessor, Qwen2_5_VLProcessor or Qwen3VLProcessor"
        raise ModelIntegrityError(f"model: the processor of {where} is {name.get('processor_class')!r}; {allowed}")
    try:
        processor = images_and_text(base).from_pretrained(where, backend="pil", revision=revision)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ModelIntegrityError(f"model: the processor of {where} cannot be read: {_first_line(exc)}") from exc
    processor.tokenizer.padding_side = "left"
    return processor


def images_and_text(processor: type[ProcessorMixin]) -> type[Any]:
    """``processor`` without its video part, which needs torchvision; it keeps its name when it is saved."""

    def get_attributes(cls: type[Any]) -> list[str]:
        return ["image_processor", "tokenizer"]

    return type(processor.__name__, (processor,), {"get_attributes": classmethod(get_attributes)})


def weights_identity(path: str) -> str:
    """What tells these weights from others: the SHA-256 of a folder's weight files, or the hub id with its commit.

    Raises ModelIntegrityError where neither can be read.
    """
    if not Path(path).is_dir():
        from transformers.utils import cached_file

        try:
            config = cached_file(path, "config.json")
        except (OSError, ValueError) as exc:
            raise ModelIntegrityError(f"model: {path} cannot be loaded: {_first_line(exc)}") from exc
        return f"{path}@{Path(config).parent.name}"  # the hub's cache has a folder for each commit
    files = sorted(Path(path).glob("*.safetensors")) or sorted(Path(path).glob("*.bin"))
    if not files:
        raise ModelIntegrityError(f"model: {path} holds no weights")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
