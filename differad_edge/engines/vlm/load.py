"""Which engine a model gets: a student's own for a Qwen3-VL, transformers' ``generate`` for any other checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from differad_edge.config import ConfigModel, ModelConfig, load_config
from differad_edge.engines.base import Engine
from differad_edge.engines.vlm.checkpoint import load_model, load_processor, model_type, weights_identity
from differad_edge.engines.vlm.layout import Fit, WorkingSize
from differad_edge.engines.vlm.questions import AnswerOrder, question_of
from differad_edge.errors import ConfigError, ModelIntegrityError
from differad_edge.grounding import PROMPT_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["STUDENT_FILE", "StudentCard", "vlm_engine"]

STUDENT_FILE = "student.json"
"""Beside the weights of a student: how it was trained to be asked."""
_STUDENTS = "qwen3_vl"


class StudentCard(ConfigModel):
    """What a student was trained with, and is asked with."""

    prompt_version: str = PROMPT_VERSION
    order: AnswerOrder = "student"
    size_px: tuple[int, int] = (800, 800)
    """Width and height."""
    fit: Fit = "stretch"


def vlm_engine(model: ModelConfig, *, threads: int | None = None) -> Engine:
    """The engine for ``model.path``, a checkpoint folder or an id of the model hub.

    Raises MissingExtraError, ModelIntegrityError for what is no checkpoint of the Qwen-VL family or a student of other
    prompts, ConfigError for settings that do not fit it.
    """
    assert model.path is not None
    if model_type(model.path) != _STUDENTS or model.prompt == "general":
        from differad_edge.engines.vlm.generate import GenerateEngine

        _no_student_settings(model)
        return GenerateEngine(model, threads=threads)
    return _student(model, threads)


def read_card(path: str) -> StudentCard:
    """The card beside the weights, or the defaults. Raises ModelIntegrityError for one of other prompts or no card."""
    file = Path(path) / STUDENT_FILE
    if not file.is_file():
        return StudentCard()
    try:
        card = load_config(file, StudentCard)
    except ConfigError as exc:
        raise ModelIntegrityError(str(exc)) from exc
    if card.prompt_version != PROMPT_VERSION:
        detail = f"prompt_version: got {card.prompt_version!r}, allowed: {PROMPT_VERSION!r}"
        raise ModelIntegrityError(f"{file}: {detail}; this student was trained with other prompts")
    return card


def _student(model: ModelConfig, threads: int | None) -> Engine:
    processor = load_processor(str(model.path))
    import torch

    from differad_edge.engines.vlm.student import StudentEngine
    from differad_edge.engines.vlm.torch_runner import TorchRunner

    if threads is not None:
        torch.set_num_threads(threads)
    gpu = torch.cuda.is_available()
    weights = load_model(str(model.path), dtype="bfloat16" if gpu else "float32").eval().to("cuda" if gpu else "cpu")
    card = read_card(str(model.path))
    question = question_of(
        processor, _size(model, card, weights), order=_order(model, card), max_new_tokens=model.max_new_tokens
    )
    images = processor.image_processor
    tokenizer = processor.tokenizer
    runner = TorchRunner(weights, question.layout, mean=images.image_mean, std=images.image_std)
    return StudentEngine(
        runner,
        question,
        identity=f"{weights_identity(str(model.path))} {weights.dtype}",
        to_text=lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        max_new_tokens=model.max_new_tokens,
        describes=model.describe,
        references_bytes=model.references_mb * 1e6,
    )


def _size(model: ModelConfig, card: StudentCard, weights: PreTrainedModel) -> WorkingSize:
    vision = weights.config.vision_config
    width_px, height_px = card.size_px if model.size_px is None else model.size_px
    fit: Literal["stretch", "letterbox"] = card.fit if model.fit is None else model.fit
    try:
        return WorkingSize(width_px, height_px, fit, vision.patch_size, vision.spatial_merge_size)
    except ConfigError as exc:
        raise ConfigError(f"model.size_px: {exc}") from exc


def _order(model: ModelConfig, card: StudentCard) -> AnswerOrder:
    assert model.prompt != "general"
    return card.order if model.prompt is None else model.prompt


def _no_student_settings(model: ModelConfig) -> None:
    for name in ("size_px", "fit"):
        if getattr(model, name) is not None:
            allowed = "nothing for a model that transformers' generate answers for: it sees images in their own sizes"
            raise ConfigError(f"model.{name}: got {getattr(model, name)!r}, allowed: {allowed}")
