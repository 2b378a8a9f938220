"""The chain's figures: every model of it on the same held-out pairs, and whether the engine answers as the trainer."""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from differad_edge import EdgeInspector, Verdict
from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.load import load_student
from differad_edge.evaluation import run_evaluation
from differad_edge.geometry import to_grid
from differad_edge.images import load_image
from differad_edge.machine import describe_machine
from differad_edge.pairs import Pair, load_pairs
from differad_edge.scoring import Outcome
from distill.ask import StudentAnswer, ask_student, evaluate_student
from distill.labelling import TEACHER_FILE
from distill.report import REPORT_FILE, figures_of, gain
from training.data import CanvasSource, PairSource
from training.evaluate import evaluate
from training.launch import load_model
from training.recipe import ModelRecipe

__all__ = ["chain_figures", "draw_chain", "same_answers"]

STAGES = {"sft": "SFT", "logits": "probabilities", "grpo": "GRPO"}


def chain_figures(*, teacher: Path, student: Path, labels: Path, exported: Path, held_out: Path) -> dict[str, Any]:
    """Ask every model; see `distill.chain`. ``models``: the one-box figures of each, with 95 % intervals."""
    pairs = load_pairs(held_out)
    source = PairSource(pairs.pairs)
    models: dict[str, Any] = {}
    for name in ("cold-start", "grpo"):
        model, processor = load_model(ModelRecipe(path=str(teacher / name / "final"), dtype="float32"))
        models[f"teacher {name}"] = figures_of(evaluate(model, processor, source, max_new_tokens=48))
    ends: dict[str, list[Outcome]] = {}
    for arm in ("distilled", "truth"):
        report = json.loads((student / arm / REPORT_FILE).read_text(encoding="utf-8"))
        models.setdefault("student before", report["stages"]["before"])
        for name, title in STAGES.items():
            if name in report["stages"]:
                models[f"student {arm} {title}"] = report["stages"][name]
        final = str(student / arm / "final")
        ends[arm] = evaluate_student(load_student(ModelConfig(path=final), dtype="float32"), source)
    with tempfile.TemporaryDirectory() as store, EdgeInspector(store, engine="vlm", model=str(exported)) as inspector:
        evaluation = run_evaluation(pairs, inspector)
    models["student distilled, EdgeInspector on ONNX Runtime"] = {"n": len(pairs.pairs), **evaluation.report["micro"]}
    checkpoint = student / "distilled" / "final"
    return {
        "machine": describe_machine(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "onnxruntime")},
        "held_out_pairs": len(pairs.pairs),
        "labels": json.loads((labels / TEACHER_FILE).read_text(encoding="utf-8")),
        "models": models,
        "distilled_against_truth": gain(ends["truth"], ends["distilled"]),
        "same_answers": {
            name: same_answers(str(folder), checkpoint, pairs.pairs)
            for name, folder in (("checkpoint on PyTorch", checkpoint), ("export on ONNX Runtime", exported))
        },
    }


def same_answers(model: str, checkpoint: Path, pairs: tuple[Pair, ...]) -> dict[str, Any]:
    """Whether `EdgeInspector` with ``model`` gives the answers that training's evaluation of ``checkpoint`` does.

    Equal: the same verdict, and for NG the same four integers. ``not_asked``: parts whose picture the inspector refuses
    before it asks the model (too dark, blurred).
    """
    student = load_student(ModelConfig(path=str(checkpoint)), dtype="float32")
    seen = CanvasSource(PairSource(pairs), student.question.layout.size)
    counts = {"pairs": len(pairs), "equal": 0, "different": 0, "not_asked": 0}
    with tempfile.TemporaryDirectory() as store, EdgeInspector(store, engine="vlm", model=model) as inspector:
        for start in range(0, len(pairs), 64):
            some = range(start, min(start + 64, len(pairs)))
            answers = ask_student(student, [seen[index] for index in some])
            for index, answer in zip(some, answers, strict=True):
                counts[_compared(inspector, pairs[index], answer)] += 1
    return counts


def _compared(inspector: EdgeInspector, pair: Pair, answer: StudentAnswer) -> str:
    target = load_image(pair.target)
    result = inspector.compare(load_image(pair.reference), target)
    if result.reason == "bad-frame":
        return "not_asked"
    box = None if result.box is None else to_grid(result.box, target.shape[1], target.shape[0])
    same = result.verdict is answer.verdict and (result.verdict is not Verdict.NG or box == answer.box)
    return "equal" if same else "different"


def draw_chain(figures: dict[str, Any], file: Path) -> None:
    """Acc@0.3 of every model with its interval, and how long each step took, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = figures["models"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), width_ratios=(3, 2), layout="constrained")
    names = list(models)[::-1]
    for place, name in enumerate(names):
        low, high = models[name]["acc_ci"]
        colour = "tab:gray" if name.startswith("teacher") else "tab:green" if "truth" in name else "tab:blue"
        left.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.5)
        left.plot(models[name]["acc"], place, "o", color=colour)
    left.set_yticks(range(len(names)), names)
    left.set_xlabel(f"Acc@0.3 on {figures['held_out_pairs']} held-out pairs, 95 % interval")
    left.grid(axis="x", alpha=0.3)
    seconds = {name: value for name, value in figures["seconds"].items() if value >= 5}
    right.barh(list(seconds)[::-1], [value / 60 for value in list(seconds.values())[::-1]], color="tab:gray")
    right.set_xlabel(f"minutes; {sum(figures['seconds'].values()) / 60:.0f} together")
    figure.savefig(file, dpi=100)
    plt.close(figure)
