"""``python -m distill.migrate RECIPE [key=value ...]``: a teacher's labels become a Qwen3-VL student.

Up to three stages: SFT on the labels, the teacher's probabilities, GRPO. Each is a run of its own in ``run.out``, goes
on after a kill, and is not run again once it is finished. Then the student before and after each stage is measured on
the held-out pairs (``report.json``), and the last one stands in ``run.out/final`` with its model card.

With several devices start it through torchrun; the measuring is then left to ``--report``, on one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from differad_edge.pairs import load_pairs
from distill.recipe import MigrateRecipe, Stage, load_migrate_recipe, migrate_recipe_names
from distill.report import write_report
from distill.whole import whole_checkpoint
from training.cold_start import train as train_cold_start
from training.grpo import train as train_grpo
from training.launch import check_processes, told
from training.resume import begin, run

__all__ = ["migrate", "train_stage"]

_USAGE = "usage: python -m distill.migrate RECIPE [key=value ...] [--report]"


def migrate(recipe: MigrateRecipe) -> None:
    """Run the stages that are not finished; raises PairsError, TrainingError, DatasetError and ConfigError."""
    for folder in recipe.held_out:
        load_pairs(folder)  # hours of training are not to end at a path that was wrong
    for stage in recipe.stages():
        print(f"{recipe.name}: {stage.name}", file=sys.stderr)
        train_stage(stage)


def train_stage(stage: Stage) -> None:
    """Run one stage up to a whole checkpoint, or go on where it was."""
    recipe = stage.recipe
    if stage.name == "logits":
        from distill.logits import logit_trainer

        if begin(recipe):
            run(logit_trainer(recipe, stage.weight), recipe)
    else:
        (train_grpo if stage.name == "grpo" else train_cold_start)(recipe)
    if os.environ.get("RANK", "0") == "0":
        whole_checkpoint(recipe.run.out / "final", dtype=recipe.model.dtype)
    _wait_for_all()


def main(arguments: Sequence[str]) -> int:
    """0; 2 with a line on stderr for what cannot be run; 130 when it was stopped."""
    words = [word for word in arguments if word != "--report"]
    if not words or words[0] in ("-h", "--help"):
        print(f"{_USAGE}\nrecipes: {', '.join(migrate_recipe_names())}")
        return 0 if words else 2

    def work() -> None:
        recipe = load_migrate_recipe(words[0], words[1:])
        if len(words) == len(arguments):
            check_processes(recipe.run, "distill.migrate")
            migrate(recipe)
        if os.environ.get("WORLD_SIZE", "1") == "1":
            print(write_report(recipe))
        elif os.environ.get("RANK", "0") == "0":
            print(f"trained; now: python -m distill.migrate {' '.join(words)} --report")

    return told(work)


def _wait_for_all() -> None:
    """The next stage reads what the first process has merged."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
