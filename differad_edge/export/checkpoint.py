"""What ``differad-edge export`` and ``verify`` do, from a checkpoint's folder to an export that is proven."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.checkpoint import model_type, weights_identity
from differad_edge.engines.vlm.exported import ON_PAIRS, TOKENIZER, Exported, Precision
from differad_edge.engines.vlm.load import load_student, runner_for
from differad_edge.engines.vlm.onnx_runner import OnnxRunner
from differad_edge.errors import ConfigError, ExportError, MissingExtraError
from differad_edge.export.onnx import write_export
from differad_edge.export.parity import (
    GOLDEN_PAIRS,
    Agreement,
    Answers,
    answers_of,
    compare_answers,
    generated_pictures,
    read_golden,
    real_pictures,
    record,
    write_golden,
)
from differad_edge.export.quantise import quantise_export
from differad_edge.export.ranges import watched, write_ranges
from differad_edge.pairs import load_pairs

if TYPE_CHECKING:
    from differad_edge.images import Image

__all__ = ["Verification", "export_checkpoint", "verify_export"]

CALIBRATION_PAIRS = 64
Told = Callable[[str], None]


def export_checkpoint(
    model: ModelConfig,
    out: Path,
    *,
    precision: str,
    pairs: int = GOLDEN_PAIRS,
    calibration: Path | None = None,
    told: Told | None = None,
) -> Exported:
    """Write ``model``, a Qwen3-VL, as an export with PyTorch's own answers about ``pairs`` generated pairs beside it.

    ``precision``: "float32", "float16" or "bfloat16"; ``calibration``: a pair set, of which CALIBRATION_PAIRS at most
    say what flows into the layers, for fewer bits at compilation; None: the generated pairs; ``told``: is told each
    step that begins.

    Raises ConfigError, ExportError, MissingExtraError, PairsError, and what reading a checkpoint raises.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: got {precision!r}, allowed: {', '.join(get_args(Precision))}")
    if out.exists():
        raise ExportError(f"out: got {out}, allowed: a folder that is not there yet")
    if calibration is not None:
        load_pairs(calibration)
    try:
        from differad_edge.engines.vlm.torch_runner import TorchRunner
    except ImportError as exc:
        raise MissingExtraError("export", exc.name or "torch") from exc
    kind = model_type(str(model.path))
    if kind != "qwen3_vl":
        raise ExportError(f"model: {model.path} is a {kind!r}, allowed: a Qwen3-VL")
    loaded = load_student(model, dtype=precision)

    def write_beside(folder: Path) -> None:
        loaded.processor.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        if told is not None:
            told("PyTorch's answers")
        runner = TorchRunner(
            loaded.weights,
            loaded.question.layout,
            mean=loaded.mean,
            std=loaded.std,
            queries=loaded.queries,
            graphs=False,
        )
        pictures = generated_pictures(loaded.question, pairs)
        with watched(runner) as ranges:
            golden = answers_of(runner, loaded.question, pictures)
        if calibration is not None:
            with watched(runner) as ranges:
                answers_of(runner, loaded.question, real_pictures(loaded.question, calibration, CALIBRATION_PAIRS))
        write_golden(golden, folder)
        write_ranges(ranges, folder)

    write_export(
        loaded.weights,
        loaded.question,
        out,
        identity=weights_identity(str(model.path)),
        mean=loaded.mean,
        std=loaded.std,
        write_beside=write_beside,
        box_head=loaded.box_head,
        progress=told,
    )
    return Exported(out)


@dataclass(frozen=True)
class Verification:
    """``runtime``: that was compared with PyTorch; ``agreed``: whether it is the same model."""

    runtime: str
    agreement: Agreement
    agreed: bool


def verify_export(
    exported: Exported,
    *,
    precision: str | None = None,
    simulate: str | None = None,
    pairs: Path | None = None,
    checkpoint: str | None = None,
    threads: int | None = None,
    told: Told | None = None,
) -> Verification:
    """Compare this machine's runtime with PyTorch's answers and write down what came of it.

    ``precision``: of the compiled engines, None for those compiled last. ``simulate``: "fp8", "int8" or "int4",
    computed on ONNX Runtime: a measurement, nothing is written down. ``pairs``: a folder with pairs.jsonl to ask about
    instead of the generated pictures; PyTorch then answers from ``checkpoint``, what the export was made from.

    Raises ConfigError, ModelIntegrityError for files that differ from the manifest, ExportError, PairsError, and
    EngineError where the runtime fails.
    """
    if (pairs is None) != (checkpoint is None):
        raise ConfigError("--pairs and --checkpoint: got one of them, allowed: both or neither")
    exported.check_files()
    question = exported.question
    if pairs is None or checkpoint is None:
        golden = read_golden(exported)
        pictures = generated_pictures(question, len(golden.ng))
    else:
        pictures = real_pictures(question, pairs)
        golden = _answers_of_checkpoint(exported, checkpoint, pictures, told)
    if told is not None:
        told("this machine's answers")
    if simulate is not None:
        with tempfile.TemporaryDirectory() as folder:
            copy = quantise_export(exported, simulate, Path(folder) / simulate)
            found = answers_of(OnnxRunner(copy, threads=threads), question, pictures)
        agreement = compare_answers(golden, found)
        return Verification(f"onnxruntime-{simulate}", agreement, agreement.agreed(simulate))
    runner = runner_for(exported, precision=precision, threads=threads)
    agreement = compare_answers(golden, answers_of(runner, question, pictures))
    done = Verification(runner.name, agreement, agreement.agreed(runner.precision))
    record(exported, done.runtime + (ON_PAIRS if pairs else ""), runner.version, agreement, agreed=done.agreed)
    return done


def _answers_of_checkpoint(
    exported: Exported, checkpoint: str, pictures: Sequence[tuple[Image, Image]], told: Told | None
) -> Answers:
    from differad_edge.engines.vlm.torch_runner import TorchRunner

    manifest, size = exported.manifest, exported.question.layout.size
    if weights_identity(checkpoint) != manifest.model:
        raise ConfigError(f"--checkpoint: got {checkpoint}, allowed: the one that {exported.folder} was made from")
    if told is not None:
        told("PyTorch's answers")
    model = ModelConfig(path=checkpoint, size_px=(size.width_px, size.height_px), fit=size.fit)
    loaded = load_student(model, dtype=manifest.precision)
    queries = None if manifest.box_head is None else loaded.queries
    runner = TorchRunner(loaded.weights, exported.question.layout, mean=loaded.mean, std=loaded.std, queries=queries)
    return answers_of(runner, exported.question, pictures)
