"""What a migration was worth: the student before it and after each stage, on the same held-out pairs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import differad_edge
from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.checkpoint import weights_identity
from differad_edge.engines.vlm.load import load_student
from differad_edge.errors import TrainingError
from differad_edge.machine import describe_machine
from differad_edge.scoring import Outcome, judge, summarise
from distill.ask import evaluate_student
from distill.card import write_card
from distill.recipe import MigrateRecipe
from distill.whole import whole_checkpoint
from training.batch_journal import replace_file
from training.data import PairSource, Source
from training.preflight import usable_pairs
from training.recipe import ModelRecipe

__all__ = ["REPORT_FILE", "figures_of", "gain", "measure", "write_report"]

REPORT_FILE = "report.json"
SHOWN = ("acc", "recall", "tnr", "miou_ano")


def write_report(recipe: MigrateRecipe) -> str:
    """Measure, write ``report.json``, ``final`` and its card into ``run.out``; returns a table.

    Raises TrainingError where a stage has not been trained.
    """
    folders = {"before": recipe.model.path}
    for stage in recipe.stages():
        final = stage.recipe.run.out / "final"
        if not final.is_dir():
            raise TrainingError(f"{final}: not there yet; train first")
        folders[stage.name] = str(whole_checkpoint(final, dtype=recipe.model.dtype))
    report: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "version": differad_edge.__version__,
        "machine": describe_machine(),
        "held_out": [str(folder) for folder in recipe.held_out],
        "stages": {},
    }
    if recipe.held_out:
        source = PairSource(usable_pairs(recipe.held_out))
        measured = {name: measure(folder, recipe.model, source) for name, folder in folders.items()}
        for name, outcomes in measured.items():
            report["stages"][name] = {
                **figures_of(outcomes),
                "gain_acc": gain(measured["before"], outcomes),
                "weights": weights_identity(folders[name]),
            }
    replace_file(recipe.run.out / REPORT_FILE, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    final = _place(Path(list(folders.values())[-1]), recipe.run.out / "final")
    write_card(final, report, recipe)
    return _table(report["stages"]) + f"student: {final}"


def measure(path: str, model: ModelRecipe, source: Source) -> list[Outcome]:
    """What a checkpoint answers about every pair of ``source``, asked at the recipe's size; on the GPU where there is
    one."""
    import torch

    gpu = torch.cuda.is_available()
    config = ModelConfig(path=path, size_px=model.size_px, fit=model.fit)
    student = load_student(config, dtype="bfloat16" if gpu else "float32", device="cuda" if gpu else "cpu")
    return evaluate_student(student, source)


def figures_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The one-box figures with their 95 % intervals (bootstrap over pairs), and what each pair counted for."""
    summary: dict[str, Any] = summarise(outcomes, margin_px=0.0)["micro"]
    judged = [judge(outcome) for outcome in outcomes]
    kinds = {"kinds": [one.kind for one in judged], "ious": [round(one.iou, 4) for one in judged]}
    return {"n": len(outcomes), **summary, **kinds}


def gain(before: Sequence[Outcome], after: Sequence[Outcome], *, resamples: int = 2000, seed: int = 0) -> list[float]:
    """Acc@0.3 of ``after`` less that of ``before`` on the same pairs, and its 95 % interval: paired bootstrap."""
    right = [np.array([judge(one).kind in ("TP", "TN") for one in outcomes], float) for outcomes in (before, after)]
    difference = right[1] - right[0]
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (resamples, len(difference)))].mean(1)
    return [float(difference.mean()), *(float(edge) for edge in np.percentile(means, [2.5, 97.5]))]


def _place(source: Path, final: Path) -> Path:
    """Copy the last stage's student to ``final``, all of it or nothing; one that was there goes."""
    unfinished = final.with_name("final.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("*.bin", "README.md"))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(unfinished, final)
    return final


def _table(stages: dict[str, Any]) -> str:
    if not stages:
        return ""
    lines = [f"{'':8}{'n':>6} " + " ".join(f"{name:>21}" for name in SHOWN) + f"{'gain of acc':>26}"]
    for name, figures in stages.items():
        cells = []
        for figure in SHOWN:
            low, high = figures[f"{figure}_ci"] or (float("nan"),) * 2
            value = float("nan") if figures[figure] is None else figures[figure]
            cells.append(f"{value:6.3f} [{low:.3f}, {high:.3f}]")
        mean, low, high = figures["gain_acc"]
        lines.append(f"{name:8}{figures['n']:6d} " + " ".join(cells) + f"  {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return "\n".join(lines) + "\n"
