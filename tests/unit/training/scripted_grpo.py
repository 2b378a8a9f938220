"""Runs GRPO with completions that are given, not sampled: ``python scripted_grpo.py RECIPE [key=value ...]``.

What a completion says is a function of its example, its place in the group and how often its group was drawn, whatever
process asks. Some groups agree wholly at first, and some for ever, so that resampling and dropping have work. Writes
``parameters.npz`` and ``log.json`` into the run's folder, and goes on from its checkpoints. $SCRIPTED_OPTIMISER: in
place of the recipe's; $SCRIPTED_KILL: the step in which it kills itself. Tests start it on one process, on several, and
under DeepSpeed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections import Counter
from typing import Any

import numpy as np

from differad_edge.grounding import format_answer
from training.grpo import grpo_trainer
from training.grpo_trainer import DifferenceGrpoTrainer
from training.recipe import load_recipe
from training.resume import begin, run


class Scripted(DifferenceGrpoTrainer):
    """Draws from the script."""

    def _generate_single_turn(
        self,
        prompt_ids: Any,
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        *arguments: Any,
        **options: Any,
    ) -> tuple[list[list[int]], None]:
        if self.state.global_step == int(os.environ.get("SCRIPTED_KILL", "-1")):
            os.kill(os.getpid(), signal.SIGKILL)
        keys = [hashlib.sha256(pair[1].tobytes()).hexdigest() for pair in images]
        rows = len(keys)
        first = self.accelerator.process_index * rows if rows % num_generations else 0
        tokenizer = self.processing_class.tokenizer
        drawn = []
        for position, key in enumerate(keys):
            text = said(key, (first + position) % num_generations, self.draws[key])
            drawn.append([*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id])
        for key in set(keys):
            self.draws[key] += 1
        return drawn, None

    @property
    def draws(self) -> Counter[str]:
        return self.__dict__.setdefault("_draws", Counter())  # type: ignore[no-any-return]


def said(key: str, member: int, draw: int) -> str:
    """The completion of one member of a group."""
    stubborn = int(key[0], 16)
    flat = stubborn < 4 or (stubborn < 10 and draw == 0)
    rng = random.Random(f"{key}{0 if flat else member}{draw}")
    if flat:
        return format_answer((0, 0, 1, 1), "It differs.")
    if rng.random() < 0.2:
        return "<think>I cannot tell.</think>"
    x, y = rng.randrange(0, 700, 10), rng.randrange(0, 700, 10)
    return format_answer((x, y, x + rng.randrange(100, 300, 10), y + rng.randrange(100, 300, 10)), "It differs.")


def main() -> None:
    recipe = load_recipe(sys.argv[1], sys.argv[2:])
    out = recipe.run.out
    begin(recipe)
    trainer = grpo_trainer(recipe, trainer=Scripted)
    trainer.args.optim = os.environ.get("SCRIPTED_OPTIMISER", trainer.args.optim)
    run(trainer, recipe)
    if trainer.accelerator.is_main_process:
        from safetensors.numpy import load_file

        after = load_file(out / "final" / "model.safetensors")
        np.savez(out / "parameters.npz", **after)
        keys = ("step", "loss", "reward", "grad_norm", "iou", "length", "weight/mean")
        keys += ("groups/degenerate_before", "groups/degenerate_after")
        log = [{key: row[key] for key in keys if key in row} for row in trainer.state.log_history if "reward" in row]
        (out / "log.json").write_text(json.dumps(log))


if __name__ == "__main__":
    main()
