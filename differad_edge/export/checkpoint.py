"""What ``differad-edge export`` and ``verify`` do, from a checkpoint's folder to an export that is proven."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.checkpoint import model_type, weights_identity
from differad_edge.engines.vlm.exported import TOKENIZER, Exported, Precision
from differad_edge.engines.vlm.load import load_student, runner_for
from differad_edge.errors import ConfigError, ExportError, MissingExtraError
from differad_edge.export.onnx import write_export
from differad_edge.export.parity import (
    GOLDEN_PAIRS,
    Agreement,
    answers_of,
    compare_answers,
    generated_pictures,
    read_golden,
    record,
    write_golden,
)
from differad_edge.export.ranges import watched, write_ranges

__all__ = ["export_checkpoint", "verify_export"]

Told = Callable[[str], None]


def export_checkpoint(
    model: ModelConfig, out: Path, *, precision: str, pairs: int = GOLDEN_PAIRS, told: Told | None = None
) -> Exported:
    """Write ``model``, a Qwen3-VL, as an export with PyTorch's own answers about ``pairs`` generated pairs beside it.

    ``precision``: "float32", "float16" or "bfloat16"; ``told``: is told each step that begins.

    Raises ConfigError, ExportError, MissingExtraError, and what reading a checkpoint raises.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: got {precision!r}, allowed: {', '.join(get_args(Precision))}")
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
        runner = TorchRunner(loaded.weights, loaded.question.layout, mean=loaded.mean, std=loaded.std, graphs=False)
        pictures = generated_pictures(loaded.question, pairs)
        with watched(runner) as ranges:
            write_golden(answers_of(runner, loaded.question, pictures), folder)
        write_ranges(ranges, folder)

    write_export(
        loaded.weights,
        loaded.question,
        out,
        identity=weights_identity(str(model.path)),
        mean=loaded.mean,
        std=loaded.std,
        write_beside=write_beside,
        progress=told,
    )
    return Exported(out)


def verify_export(exported: Exported, *, threads: int | None = None) -> tuple[str, Agreement, bool]:
    """Compare this machine's runtime with PyTorch's answers and write down what came of it.

    Returns the runtime's name, the figures, and whether they agree. Raises ModelIntegrityError for files that differ
    from the manifest, ExportError, and EngineError where the runtime fails.
    """
    exported.check_files()
    runner = runner_for(exported, threads=threads)
    golden = read_golden(exported)
    question = exported.question
    found = answers_of(runner, question, generated_pictures(question, len(golden.ng)))
    agreement = compare_answers(golden, found)
    return runner.name, agreement, record(exported, runner.name, agreement)
