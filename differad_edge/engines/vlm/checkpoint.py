"""Loading a checkpoint of the Qwen vision-language family: its weights, tokenizer, chat template and preprocessing."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.engines.vlm.box_head import BOX_HEAD_FILE
from differad_edge.errors import MissingExtraError, ModelIntegrityError
from differad_edge.grounding import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = [
    "chat_text",
    "file_beside",
    "images_and_text",
    "load_model",
    "load_processor",
    "model_type",
    "weights_identity",
    "weights_sha256",
]

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def load_model(
    model: str | os.PathLike[str], *, dtype: str, revision: str | None = None, attention: str = "sdpa"
) -> PreTrainedModel:
    """The weights of ``model``, a folder or a hub id, on the CPU. ``dtype``: "float32", "bfloat16" or "float16".

    Weights are safetensors: those of another kind are pickles. Raises MissingExtraError, and ModelIntegrityError for
    what is torn, lacks weights or has others than its config says, or is no vision-language model.
    """
    try:
        import torch
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging
    except ImportError as exc:
        raise MissingExtraError("vlm", exc.name or "transformers") from exc
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    if Path(model).is_dir():
        _weights(Path(model))
    try:
        loaded, said = AutoModelForImageTextToText.from_pretrained(
            os.fspath(model),
            revision=revision,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as exc:  # a wrong config fails wherever it is first used
        raise _refused(model, exc) from exc
    # transformers draws missing weights at random, leaves others out, and goes on.
    for kind, words in (("missing_keys", "are missing"), ("unexpected_keys", "are not those of its config")):
        odd = sorted(str(name) for name in said[kind])
        if kind == "unexpected_keys":
            odd = [name for name in odd if not name.endswith("lm_head.weight")]  # tied, and kept all the same
        if odd:
            detail = f"{len(odd)} weights {words}, {odd[0]} first"
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
    except Exception as exc:  # as above
        raise _refused(model, exc) from exc


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
        raise _refused(model, exc, "has no processor that can be read") from exc
    if not name:
        raise ModelIntegrityError(f"model: got {where!r}, allowed: a checkpoint folder, or an id that the hub knows")
    if base is None:
        allowed = "Qwen2VLProcessor, Qwen2_5_VLProcessor or Qwen3VLProcessor"
        raise ModelIntegrityError(f"model: the processor of {where} is {name.get('processor_class')!r}; {allowed}")
    try:
        processor = images_and_text(base).from_pretrained(where, backend="pil", revision=revision)
    except Exception as exc:  # tokenizers raises Exception itself
        raise ModelIntegrityError(f"model: the processor of {where} cannot be read: {_first_line(exc)}") from exc
    processor.tokenizer.padding_side = "left"
    return processor


def images_and_text(processor: type[ProcessorMixin]) -> type[Any]:
    """``processor`` without its video part, which needs torchvision; it keeps its name when it is saved."""

    def get_attributes(cls: type[Any]) -> list[str]:
        return ["image_processor", "tokenizer"]

    return type(processor.__name__, (processor,), {"get_attributes": classmethod(get_attributes)})


def chat_text(processor: ProcessorMixin, chat: list[Message]) -> str:
    """``chat`` up to the answer, as the checkpoint's chat template writes it.

    Raises ModelIntegrityError for a template that is missing or fails.
    """
    try:
        return str(processor.apply_chat_template(chat, add_generation_prompt=True))
    except Exception as exc:  # a template is a program
        raise ModelIntegrityError(f"chat template: cannot be used: {_first_line(exc)}") from exc


def file_beside(model: str, name: str) -> Path | None:
    """A file beside the weights of ``model``, a folder or a hub id; None where there is none.

    Raises ModelIntegrityError where the hub cannot be asked.
    """
    if Path(model).is_dir():
        file = Path(model) / name
        return file if file.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(model, name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as exc:
        raise _refused(model, exc) from exc
    return None if found is None else Path(found)


def weights_identity(path: str) -> str:
    """What tells this model from others: the SHA-256 of a folder's weights and settings, or the hub id with its commit.

    A box head counts among the weights. Raises ModelIntegrityError where neither can be read.
    """
    if not Path(path).is_dir():
        config = file_beside(path, "config.json")
        if config is None:
            raise ModelIntegrityError(f"model: {path} cannot be loaded: it has no config.json")
        return f"{path}@{config.parent.name}"  # the hub's cache has a folder for each commit
    settings = [file for kind in ("*.json", "*.jinja") for file in sorted(Path(path).glob(kind))]
    return _sha256([*_weights(Path(path)), *settings, *Path(path).glob(BOX_HEAD_FILE)])


def weights_sha256(folder: Path) -> str:
    """Of the weights in a checkpoint's folder alone: what a box head is bound to. Raises ModelIntegrityError."""
    return _sha256(_weights(folder))


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _weights(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.glob("*.safetensors") if file.name != BOX_HEAD_FILE)
    if not files:
        others = next((file.name for kind in ("*.bin", "*.pt", "*.pth") for file in sorted(folder.glob(kind))), "none")
        raise ModelIntegrityError(f"model: {folder} holds no weights: got {others}, allowed: safetensors")
    return files


def _refused(model: str | os.PathLike[str], error: Exception, words: str = "cannot be loaded") -> ModelIntegrityError:
    where, why = os.fspath(model), _first_line(error)
    if Path(where).exists():
        return ModelIntegrityError(f"model: {where} {words}: {why}")
    # What transformers says of the hub is beside the point where a folder was meant.
    said = f": {why}" if _HUB_ID.fullmatch(where) else ""
    return ModelIntegrityError(f"model: got {where!r}, allowed: a checkpoint folder, or an id that the hub knows{said}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
