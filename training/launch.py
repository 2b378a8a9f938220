"""What both stages share: the model and its processor, the arguments of the run, errors of a start that fails."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from differad_edge.engines.vlm import checkpoint
from differad_edge.engines.vlm.checkpoint import load_processor
from differad_edge.errors import ConfigError, DifferadError, MissingExtraError, TrainingError
from differad_edge.pairs import Pair
from training.context import context_of
from training.data import CanvasSource, PairSource, Source, TinySource, rows
from training.preflight import usable_pairs
from training.recipe import DEEPSPEED, ModelRecipe, Recipe, RunRecipe, load_recipe
from training.student import working_size

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, ProcessorMixin

_log = logging.getLogger(__name__)


def load_model(
    recipe: ModelRecipe, dtype: Literal["float32", "bfloat16"] | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model, vision tower frozen where the recipe says so, and its processor; ``dtype``: None for the recipe's.

    Raises MissingExtraError, and ModelIntegrityError for what is no checkpoint of a vision-language model.
    """
    processor = load_processor(recipe.path, revision=recipe.revision)
    model = checkpoint.load_model(
        recipe.path, dtype=dtype or recipe.dtype, revision=recipe.revision, attention=recipe.attention
    )
    if recipe.freeze_vision:
        freeze_vision(model)
    return model, processor


def freeze_vision(model: PreTrainedModel) -> int:
    """Stop training of the vision tower and its merger; returns how many parameters that are.

    Raises TrainingError where there is none: a recipe that believes it froze something must not train it.
    """
    frozen = 0
    for name, parameter in model.named_parameters():
        if "visual." in name:
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    if not frozen:
        raise TrainingError(f"model.freeze_vision: {type(model).__name__} has no parameters under 'visual.'")
    return frozen


def adapters(recipe: ModelRecipe) -> Any:
    """The LoRA configuration for TRL, or None."""
    if recipe.lora is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError as exc:
        raise MissingExtraError("train", "peft") from exc
    lora = recipe.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


def training_rows(recipe: Recipe) -> Dataset:
    """The examples of the recipe as TRL reads them. Raises DatasetError when too many are bad."""
    data = recipe.data
    source: Source
    if data.tiny is not None:
        tiny = data.tiny
        source = TinySource(tiny.pairs, recipe.run.seed, tiny.ramp_start, tiny.ramp_end, tiny.loose, tiny.hardest)
    else:
        source = PairSource(_judged(usable_pairs(data.pair_sets, context_of(recipe))))
    if recipe.is_student:
        source = CanvasSource(source, working_size(recipe.model))
    return rows(source, answers=data.answers, seed=recipe.run.seed)


def _judged(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Without good parts that hold a region to be ignored: neither "no anomaly" nor a box there would be wrong."""
    judged = tuple(pair for pair in pairs if pair.boxes or not pair.ignore_boxes)
    if len(judged) < len(pairs):
        _log.warning("%d good parts with ignore_boxes are left out of training", len(pairs) - len(judged))
    return judged


def run_arguments(recipe: Recipe) -> dict[str, Any]:
    """Arguments that TRL's SFTConfig and GRPOConfig share."""
    import torch

    run, optimiser = recipe.run, recipe.optimiser
    gpu = torch.cuda.is_available()
    # With use_cpu DeepSpeed would be skipped without a word.
    on_cpu = {} if gpu or run.deepspeed else {"use_cpu": True}
    return {
        **on_cpu,
        "output_dir": str(run.out),
        "seed": run.seed,
        "bf16": recipe.model.dtype == "bfloat16",
        "learning_rate": optimiser.learning_rate,
        "lr_scheduler_type": optimiser.schedule,
        "warmup_steps": optimiser.warmup_steps,
        "weight_decay": optimiser.weight_decay,
        "adam_beta2": optimiser.beta2,
        "max_grad_norm": optimiser.max_grad_norm,
        "max_steps": optimiser.steps or -1,
        "num_train_epochs": optimiser.epochs,
        "per_device_train_batch_size": optimiser.batch,
        "gradient_accumulation_steps": optimiser.accumulation,
        "activation_checkpointing": optimiser.gradient_checkpointing,
        "logging_steps": run.log_steps,
        "save_steps": run.save_steps,
        "save_total_limit": run.keep_checkpoints,
        "report_to": list(run.trackers),
        "deepspeed": str(DEEPSPEED / f"{run.deepspeed}.json") if run.deepspeed else None,
        "ddp_backend": "gloo" if not gpu and (_processes() or 1) > 1 else None,
        "remove_unused_columns": False,
        "dataloader_num_workers": recipe.data.workers,
        "disable_tqdm": not sys.stderr.isatty(),
    }


def main(stage: str, train: Callable[[Recipe], None]) -> int:
    """``RECIPE [key=value ...]`` from the command line.

    0; 2 with a line on stderr for what cannot be run; 130 when it was stopped.
    """
    usage = f"usage: python -m training.{stage.replace('-', '_')} RECIPE [key=value ...]"
    if not sys.argv[1:]:
        print(usage, file=sys.stderr)
        return 2
    name, *changes = sys.argv[1:]
    if name in ("-h", "--help"):
        print(usage)
        return 0

    def work() -> None:
        recipe = load_recipe(name, changes, stage=stage)
        check_processes(recipe.run, f"training.{recipe.stage.replace('-', '_')}")
        train(recipe)

    return told(work)


def told(work: Callable[[], None]) -> int:
    """Do ``work``: 0; 2 with a line on stderr for what cannot be run; 130 when it was stopped."""
    try:
        work()
    except DifferadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


@contextmanager
def set_up() -> Iterator[None]:
    """What the training packages refuse while a trainer is built, as MissingExtraError or TrainingError."""
    try:
        yield
    except ImportError as exc:
        raise MissingExtraError("train", exc.name or str(exc).split("\n")[0][:200]) from exc
    except (OSError, ValueError, TypeError, RuntimeError) as exc:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        raise TrainingError(f"recipe: the training cannot be set up: {lines[0][:300]}") from exc


def check_processes(run: RunRecipe, module: str) -> None:
    """Raise ConfigError where the run was started with other processes than the recipe counts on."""
    processes = _processes()
    if processes is None and run.deepspeed is not None:
        remedy = f"torchrun --nproc-per-node {run.gpus} -m {module} ..."
        raise ConfigError(f"run.deepspeed: {run.deepspeed!r} needs a launcher, for one device too: {remedy}")
    if (processes or 1) != run.gpus:
        started = f"started with {processes or 1} process(es)"
        raise ConfigError(f"run.gpus: got {run.gpus}, {started}; allowed: as many as torchrun starts")


def _processes() -> int | None:
    """As many as the launcher says that it started; None without one. Raises ConfigError."""
    text = os.environ.get("WORLD_SIZE")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ConfigError(f"WORLD_SIZE: got {text[:40]!r}, allowed: a whole number from 1, as torchrun sets it")
    return int(text)
