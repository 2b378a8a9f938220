"""The model card beside a student: what it was made from, how, how good it is, and what may be done with it.

Everything in it is read from the run: recipe, the labels' own account (``teacher.json``), figures, hashes. Licences are
read from a set's ``set.json`` (``"licence"``); where a set states none, the card says so rather than leave it out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from differad_edge.engines.vlm.exported import sha256_of
from differad_edge.grounding import PROMPT_VERSION
from differad_edge.pairs import PAIRS_FILE, SET_FILE
from distill.labelling import TEACHER_FILE
from distill.recipe import MigrateRecipe
from training.batch_journal import replace_file

__all__ = ["card_text", "write_card"]

CARD = "README.md"
_FIGURES = {"acc": "Acc@0.3", "f1": "F1", "recall": "recall@0.3", "tnr": "true-normal rate", "miou_ano": "mIoU_ano"}


def write_card(folder: Path, report: Mapping[str, Any], recipe: MigrateRecipe) -> Path:
    """Write ``folder``/README.md about the student in ``folder``; returns the file."""
    file = folder / CARD
    replace_file(file, card_text(folder, report, recipe).encode())
    return file


def card_text(folder: Path, report: Mapping[str, Any], recipe: MigrateRecipe) -> str:
    """The card, with the header that model hubs read."""
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(recipe.model.path)}",
            "pipeline_tag: image-text-to-text",
            "library_name: differad-edge",
            "tags: [anomaly-detection, visual-inspection, differad-edge]",
            "---",
            "",
            f"# {recipe.name}",
            "",
            recipe.about.strip(),
            "",
            (
                "A student of differad-edge: it sees a golden sample and a part, answers OK or NG first, then a box, "
                "then words. Its licence is that of its base model and of the data below, whichever allows less."
            ),
            "",
            "```python",
            f'inspector = EdgeInspector(engine="vlm", model="{folder.name}")',
            "```",
            "",
            "## Data",
            "",
            *_data(recipe),
            "",
            "## Training",
            "",
            f"`python -m distill.migrate` with the recipe below, differad-edge {report['version']}, prompts "
            f"{PROMPT_VERSION}. Base model: `{recipe.model.path}`"
            + (f" at {recipe.model.revision}." if recipe.model.revision else "."),
            "",
            "```json",
            json.dumps(report["recipe"], indent=1),
            "```",
            "",
            "## Figures",
            "",
            *_figures(report),
            "",
            (
                "One box a part, hit from IoU 0.3; UNDECIDED counts against the student. They hold for pairs like the "
                "held-out ones. A line is to be measured on its own parts: `differad-edge evaluate`."
            ),
            "",
            "## Files",
            "",
            "| file | bytes | SHA-256 |",
            "|---|---|---|",
            *(f"| {file.name} | {file.stat().st_size} | `{sha256_of(file)}` |" for file in _files(folder)),
            "",
        ]
    )


def _data(recipe: MigrateRecipe) -> Iterator[str]:
    yield "| set | pairs | SHA-256 of pairs.jsonl | licence | labels |"
    yield "|---|---|---|---|---|"
    learnt = [*recipe.pair_sets, *(recipe.grpo.pair_sets if recipe.grpo is not None else ())]
    for folder in dict.fromkeys((*learnt, *recipe.held_out)):
        file = folder / PAIRS_FILE
        count = sum(bool(line.strip()) for line in file.read_text(encoding="utf-8").splitlines())
        held_out = "; held out, not learnt from" if folder in recipe.held_out else ""
        yield f"| {folder.name} | {count} | `{sha256_of(file)}` | {_licence(folder)} | {_labels(folder)}{held_out} |"


def _licence(folder: Path) -> str:
    stated = _object(folder / SET_FILE).get("licence")
    return stated if isinstance(stated, str) else "not stated"


def _labels(folder: Path) -> str:
    told = _object(folder / TEACHER_FILE)
    if not told:
        return "as in the set"
    counts = told["counts"]
    dropped = sum(counts["dropped"].values())
    who = ", ".join(f"`{name[:80]}`" for name in told["identities"])
    return (
        f"by {told['teacher']['model']} ({who}), {told['teacher']['samples']} answers each at temperature "
        f"{told['teacher']['temperature']}; {counts['ok']} OK, {counts['ng']} NG, {dropped} dropped"
    )


def _figures(report: Mapping[str, Any]) -> Sequence[str]:
    stages = report["stages"]
    if not stages:
        return ["Not measured: the recipe names no held-out pairs."]
    lines = ["| | n | " + " | ".join(_FIGURES.values()) + " |", "|---|---|" + "---|" * len(_FIGURES)]
    for name, figures in stages.items():
        cells = []
        for key in _FIGURES:
            value, interval = figures[key], figures[f"{key}_ci"]
            shown = "-" if value is None else f"{value:.3f}"
            cells.append(shown if interval is None else f"{shown} [{interval[0]:.3f}, {interval[1]:.3f}]")
        lines.append(f"| {name} | {figures['n']} | " + " | ".join(cells) + " |")
    return lines


def _object(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name != CARD)
