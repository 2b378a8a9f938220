"""Which engine a model gets: a student's own for a Qwen3-VL, transformers' ``generate`` for any other checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from differad_edge.config import ConfigModel, ModelConfig, SidePx, load_config
from differad_edge.engines.vlm.box_head import BOX_HEAD_FILE, BoxHead, read_box_head
from differad_edge.engines.vlm.checkpoint import (
    file_beside,
    load_model,
    load_processor,
    model_type,
    weights_identity,
    weights_sha256,
)
from differad_edge.engines.vlm.exported import MANIFEST, Exported
from differad_edge.engines.vlm.layout import Fit, WorkingSize
from differad_edge.engines.vlm.questions import AnswerOrder, Question, question_of
from differad_edge.engines.vlm.runner import Floats, Runner
from differad_edge.engines.vlm.student import StudentEngine
from differad_edge.engines.vlm.tokens import check_tokenizer_file, check_tokens
from differad_edge.errors import ConfigError, EngineError, MissingExtraError, ModelIntegrityError
from differad_edge.grounding import PROMPT_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from differad_edge.engines.vlm.generate import GenerateEngine

__all__ = ["STUDENT_FILE", "LoadedStudent", "StudentCard", "load_student", "read_card", "runner_for", "vlm_engine"]

_log = logging.getLogger(__name__)

STUDENT_FILE = "student.json"
"""Beside the weights of a student: how it was trained to be asked."""
_STUDENTS = "qwen3_vl"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "bfloat16"}
"""Precisions in which PyTorch runs a student, and its type of number."""


class StudentCard(ConfigModel):
    """What a student was trained with, and is asked with."""

    prompt_version: str = PROMPT_VERSION
    order: AnswerOrder = "student"
    size_px: tuple[SidePx, SidePx] = (800, 800)
    """Width and height."""
    fit: Fit = "stretch"
    tokenizer_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of the tokenizer.json beside the weights; None: not checked."""


def vlm_engine(model: ModelConfig, *, threads: int | None = None) -> StudentEngine | GenerateEngine:
    """The engine for ``model.path``, a checkpoint folder, an id of the model hub, or the folder of an export.

    Raises MissingExtraError, ModelIntegrityError for what is no checkpoint of the Qwen-VL family or a student of other
    prompts, ConfigError for settings that do not fit it.
    """
    assert model.path is not None
    if (Path(model.path) / MANIFEST).is_file():
        return _exported(model, threads)
    if model_type(model.path) != _STUDENTS or model.prompt == "general":
        from differad_edge.engines.vlm.generate import GenerateEngine

        _no_other(
            model,
            ("size_px", "fit", "precision"),
            "nothing where transformers' generate answers: it sees images as they are",
        )
        return GenerateEngine(model, threads=threads)
    return _student(model, threads)


def read_card(path: str) -> StudentCard:
    """The card beside the weights, or the defaults. Raises ModelIntegrityError for one of other prompts or no card."""
    file = file_beside(path, STUDENT_FILE)
    if file is None:
        return StudentCard()
    try:
        card = load_config(file, StudentCard)
    except ConfigError as exc:
        raise ModelIntegrityError(str(exc)) from exc
    if card.prompt_version != PROMPT_VERSION:
        detail = f"prompt_version: got {card.prompt_version!r}, allowed: {PROMPT_VERSION!r}"
        raise ModelIntegrityError(f"{file}: {detail}; this student was trained with other prompts")
    return card


@dataclass(frozen=True)
class LoadedStudent:
    """A checkpoint and how it is asked. ``mean``, ``std``: of its images; ``box_head``: None where it has none."""

    weights: PreTrainedModel
    processor: ProcessorMixin
    question: Question
    mean: tuple[float, ...]
    std: tuple[float, ...]
    box_head: BoxHead | None = None

    @property
    def queries(self) -> Floats | None:
        """Of the box head."""
        return None if self.box_head is None else self.box_head.queries


def load_student(model: ModelConfig, *, dtype: str, device: str = "cpu", with_head: bool = True) -> LoadedStudent:
    """Read the checkpoint of a student, and its box head unless ``with_head`` is False. Raises as `vlm_engine` does."""
    path = str(model.path)
    processor = load_processor(path)
    weights = load_model(path, dtype=dtype).eval()
    try:
        weights.to(device)
    except RuntimeError as exc:  # PyTorch's out of memory
        raise EngineError(f"model: {path} cannot be brought to {device}: {str(exc).splitlines()[0][:200]}") from exc
    card = read_card(path)
    if card.tokenizer_sha256 is not None:
        check_tokenizer_file(path, card.tokenizer_sha256)
    check_tokens(path, processor.tokenizer, weights)
    question = question_of(
        processor, _size(model, card, weights), order=_order(model, card), max_new_tokens=model.max_new_tokens
    )
    rows = weights.get_input_embeddings().weight.shape[0]
    largest = max(question.image_token, *question.layout.before, *question.layout.between, *question.layout.after)
    if max(largest, *question.grammar.choices) >= rows:
        detail = f"its tokenizer gives the token {largest}, allowed with {rows} embeddings: 0 to {rows - 1}"
        raise ModelIntegrityError(f"model: {path}: {detail}")
    head = None
    if with_head and question.order == "student":  # who thinks first has nothing to say where its queries stand
        head = _box_head(path, weights.config.text_config.hidden_size)
    images = processor.image_processor
    return LoadedStudent(weights, processor, question, tuple(images.image_mean), tuple(images.image_std), head)


def _box_head(path: str, width: int) -> BoxHead | None:
    file = file_beside(path, BOX_HEAD_FILE)
    if file is None:
        return None
    head, weights = read_box_head(file, width), weights_sha256(file.parent)
    if head.model != weights:
        detail = f"model: got {head.model[:12]}..., allowed: {weights[:12]}... of the weights beside it"
        raise ModelIntegrityError(f"{file}: {detail}; train it again or take it away")
    return head


def _student(model: ModelConfig, threads: int | None) -> StudentEngine:
    try:
        import torch
    except ImportError as exc:
        raise MissingExtraError("vlm", "torch") from exc

    from differad_edge.engines.vlm.torch_runner import TorchRunner

    if threads is not None:
        torch.set_num_threads(threads)
    gpu = torch.cuda.is_available()
    if not gpu:
        _log.warning(
            "the language model runs on the CPU, far slower: PyTorch %s sees no NVIDIA GPU; check nvidia-smi, and that "
            "PyTorch was installed for CUDA",
            torch.__version__,
        )
    precision = model.precision or ("bf16" if gpu else "fp32")
    if precision not in _DTYPES:
        raise ConfigError(
            f"model.precision: got {precision!r}, allowed for a checkpoint: {', '.join(_DTYPES)}; others are compiled"
        )
    loaded = load_student(model, dtype=_DTYPES[precision], device="cuda" if gpu else "cpu")
    if precision == "fp8":
        from differad_edge.engines.vlm.float8 import hold_in_float8

        hold_in_float8(loaded.weights)
    tokenizer = loaded.processor.tokenizer
    return StudentEngine(
        TorchRunner(loaded.weights, loaded.question.layout, mean=loaded.mean, std=loaded.std, queries=loaded.queries),
        loaded.question,
        identity=f"{weights_identity(str(model.path))} {precision}",
        to_text=lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        max_new_tokens=model.max_new_tokens,
        describes=model.describe,
        references_bytes=model.references_mb * 1e6,
        box_head=loaded.box_head,
    )


def _exported(model: ModelConfig, threads: int | None) -> StudentEngine:
    _no_other(model, ("size_px", "fit", "prompt"), "nothing for an export, which holds them")
    exported = Exported(str(model.path))
    exported.check_files()
    runner = runner_for(exported, precision=model.precision, threads=threads)
    exported.check_verified(runner.name, runner.version)
    return StudentEngine(
        runner,
        exported.question,
        identity=f"{exported.sha256} {runner.name}",
        to_text=exported.text_of(),
        max_new_tokens=model.max_new_tokens,
        describes=model.describe,
        references_bytes=model.references_mb * 1e6,
        box_head=exported.box_head,
    )


def runner_for(exported: Exported, *, precision: str | None = None, threads: int | None = None) -> Runner:
    """What runs an export on this machine: TensorRT where it was compiled for its GPU, else ONNX Runtime.

    The log says why compiled engines are not used.

    ``precision``: of the compiled engines; None for those compiled last. Raises MissingExtraError, ModelIntegrityError,
    ConfigError for a precision that was not compiled for this GPU, and EngineError where the runtime fails.
    """
    from differad_edge.engines.vlm.onnx_runner import OnnxRunner
    from differad_edge.engines.vlm.tensorrt_runner import TensorRtRunner, engines_for, gpu_capability

    remedy = "this machine has no NVIDIA GPU, or no driver; check nvidia-smi"
    try:
        capability = gpu_capability() if exported.is_compiled else None
    except MissingExtraError as exc:
        if precision is not None:
            raise
        capability, remedy = None, str(exc)  # its graphs run without
    folder = None if capability is None else engines_for(exported, capability, precision)
    if folder is not None:
        return TensorRtRunner(exported, folder)
    if precision is not None:
        gpu = "this machine, which has no GPU" if capability is None else "sm{}{}".format(*capability)
        raise ConfigError(f"precision: got {precision!r}, allowed: one that was compiled for {gpu}")
    if capability is not None:
        remedy = "for this GPU run: differad-edge compile {} --target sm{}{}".format(exported.folder, *capability)
    if exported.is_compiled:
        _log.warning("the compiled engines of %s are not used, ONNX Runtime is: %s", exported.folder, remedy)
    return OnnxRunner(exported, threads=threads)


def _size(model: ModelConfig, card: StudentCard, weights: PreTrainedModel) -> WorkingSize:
    vision = weights.config.vision_config
    width_px, height_px = card.size_px if model.size_px is None else model.size_px
    fit: Literal["stretch", "letterbox"] = card.fit if model.fit is None else model.fit
    try:
        return WorkingSize(width_px, height_px, fit, vision.patch_size, vision.spatial_merge_size)
    except ConfigError as exc:
        where = f"{model.path}/{STUDENT_FILE}: " if model.size_px is None else "model."
        raise ConfigError(f"{where}size_px: {exc}") from exc


def _order(model: ModelConfig, card: StudentCard) -> AnswerOrder:
    assert model.prompt != "general"
    return card.order if model.prompt is None else model.prompt


def _no_other(model: ModelConfig, names: Sequence[str], allowed: str) -> None:
    for name in names:
        if getattr(model, name) is not None:
            raise ConfigError(f"model.{name}: got {getattr(model, name)!r}, allowed: {allowed}")
