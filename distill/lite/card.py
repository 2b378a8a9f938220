"""Write the model card beside the shipped model: `python -m distill.lite.card runs/lite differad_edge/models`.

Everything in it is read: from the manifest, the run's log, the generator's own tables, and the reports of
`differad-edge evaluate` where there are any. Nothing is typed in twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from differad_edge.errors import ConfigError, DifferadError
from distill.lite import card_text
from distill.lite.defects import KINDS
from distill.lite.export import MANIFEST
from distill.lite.generate import BINARISED_SHARE, EXCHANGED_SHARE, FAINT, GOOD_SHARE, SMALLEST_DEFECT_PX
from distill.lite.network import DifferenceNet
from distill.lite.photographs import PHOTOGRAPHS
from distill.lite.recipe import Recipe
from distill.lite.scenes import ASSEMBLY_SHARE, SIMPLE_SCENES, assembly
from distill.lite.train import VALIDATION_BATCHES

CARD = "README.md"
#: Sets whose reports the card quotes, in this order; a report is `<set>.json`.
SETS = ("deeppcb_one", "deeppcb", "hripcb")
#: Column -> (group, figure) of an evaluation report.
FIGURES = {
    "F1": ("micro", "f1"),
    "Acc@0.3": ("micro", "acc"),
    "true-normal rate": ("micro", "tnr"),
    "box F": ("detection", "f"),
    "box precision": ("detection", "precision"),
    "box recall": ("detection", "recall"),
    "box AP": ("detection", "ap"),
}
#: Recipe fields that the training command takes -> its option.
OPTIONS = {
    "steps": "--steps",
    "batch": "--batch",
    "side_px": "--side",
    "learning_rate": "--learning-rate",
    "seed": "--seed",
}

#: Recipe fields that the card names elsewhere: in the commands, and with the labelled sets.
NOT_IN_TABLE = ("init_sha256", "pairs_sha256", "pairs_share")


def write_card(run: Path, models: Path, *, results: Path | None = None, notes: Sequence[str] = ()) -> str:
    """Write ``models``/README.md and return its text.

    ``run``: the folder of the training run that was exported. ``results``: folder of evaluation reports. ``notes``:
    what else a reader must know of the training, a sentence each.

    Raises ConfigError when the manifest is missing or not that of the files, when ``run`` is another run, or when a
    report was made at another threshold than the manifest's.
    """
    manifest = _read_json(models / MANIFEST)
    _check_hashes(models, manifest)
    training: list[dict[str, Any]] = manifest["training"]
    if not isinstance(training, list):
        raise ConfigError(f"training: got {training} in {models / MANIFEST}, allowed: a list of stages; export again")
    if training[-1]["run"] != run.resolve().name:
        raise ConfigError(
            f"run: got {run}, allowed: {training[-1]['run']}, from which {models / MANIFEST} was exported"
        )
    sections = [
        card_text.HEAD,
        _model(manifest),
        card_text.USE,
        card_text.LIMITS.format(smallest=SMALLEST_DEFECT_PX, faint=FAINT),
        _data(training),
        _training(run, training, notes),
        _operating_point(manifest),
        _evaluation(results, manifest),
        card_text.NOT_MEASURED,
        _commands(training),
    ]
    text = _join(sections) + "\n"
    (models / CARD).write_text(text, encoding="utf-8")
    return text


def _model(manifest: dict[str, Any]) -> str:
    parameters = sum(p.numel() for p in DifferenceNet().parameters())
    files = [[f"`{n}`", f"{f['bytes'] / 1e6:.2f} MB", f"`{f['sha256']}`"] for n, f in manifest["files"].items()]
    return _join([card_text.MODEL.format(parameters=parameters), _table(["file", "size", "SHA-256"], files)])


def _data(training: Sequence[dict[str, Any]]) -> str:
    scenes = [*((draw, (1 - ASSEMBLY_SHARE) * share) for draw, share in SIMPLE_SCENES), (assembly, ASSEMBLY_SHARE)]
    labelled = _labelled(training)
    text = card_text.DATA.format(
        pair="pair but the labelled ones below" if labelled else "pair",
        good=f"{GOOD_SHARE:.0%}",
        binarised=f"{BINARISED_SHARE:.0%}",
        exchanged=f"{EXCHANGED_SHARE:.0%}",
    )
    photographs = _table(["`skimage.data.`", "author and licence"], [[f"`{n}`", who] for n, who in PHOTOGRAPHS.items()])
    said = labelled if labelled else [card_text.UNSEEN]
    return _join([text, *said, _kinds("scene", scenes), _kinds("defect", KINDS), card_text.PHOTOGRAPHS, photographs])


def _labelled(training: Sequence[dict[str, Any]]) -> list[str]:
    """The paragraphs about labelled pair sets; none where every pair was generated."""
    rows = [
        [
            f"`{stage['run']}`",
            f"{counts['name']} (`{counts['folder']}`)",
            *(str(counts[n]) for n in ("ok", "ng", "left_out")),
            f"{stage['pairs_share']:g}",
            f"`{stage['pairs_sha256']}`",
        ]
        for stage in training
        for counts in stage.get("pair_sets", ())
    ]
    head = ["stage", "set (folder)", "OK pairs", "NG pairs", "left out", "share of the stage's pairs", "SHA-256"]
    return [card_text.LABELLED, _table(head, rows), card_text.LABELLED_UNKNOWN] if rows else []


def _kinds(name: str, kinds: Iterable[tuple[Callable[..., Any], float]]) -> str:
    rows = [[draw.__name__.replace("_", " "), f"{share:.0%}", _first_sentence(draw)] for draw, share in kinds]
    return _table([name, "share", "what it is"], rows)


def _first_sentence(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())


def _training(run: Path, training: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    names = ["steps_done", *(name for name in Recipe.__dataclass_fields__ if name not in NOT_IN_TABLE)]
    rows = [[name, *(str(stage.get(name, "")) for stage in training)] for name in names]
    table = _table(["", *(f"`{stage['run']}`" for stage in training)], rows)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    reached = [line for line in log if line["step"] == training[-1]["steps_done"]]
    if not reached:
        raise ConfigError(
            f"log: {run / 'log.jsonl'} has no line of step {training[-1]['steps_done']}, allowed: that one"
        )
    figures = {name: value for name, value in reached[-1].items() if name not in ("step", "seconds", "loss")}
    pairs = VALIDATION_BATCHES * int(training[-1]["batch"])
    said = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in figures.items())
    validation = card_text.VALIDATION.format(pairs=pairs, figures=said)
    return _join([card_text.TRAINING, table, *notes, validation])


def _operating_point(manifest: dict[str, Any]) -> str:
    if "operating_point" not in manifest:
        raise ConfigError("operating_point: none in the manifest, allowed: what distill.lite.operating_point sets")
    point = dict(manifest["operating_point"])
    pairs, threshold = point.pop("pairs"), manifest["default_threshold"]
    said = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in point.items())
    return card_text.OPERATING_POINT.format(threshold=f"{threshold:g}", pairs=pairs, figures=said)


def _evaluation(results: Path | None, manifest: dict[str, Any]) -> str:
    rows, missing, margins = [], [], []
    for name in SETS:
        file = None if results is None else results / f"{name}.json"
        if file is None or not file.is_file():
            missing.append(name)
            continue
        report = _read_json(file)
        _check_threshold(file, report, manifest)
        rows.append([name, str(report["n"]), *(_with_interval(report[g], f) for g, f in FIGURES.values())])
        if report.get("annotation_margin_px"):
            margins.append(f"{name} {report['annotation_margin_px']:g} px")
    parts = [card_text.EVALUATION]
    if rows:
        parts.append(_table(["set", "pairs", *FIGURES], rows))
    if margins:
        parts.append(card_text.MARGIN.format(margins=", ".join(margins)))
    if missing:
        parts.append(f"Without a report here, so not claimed: {', '.join(missing)}.")
    return _join(parts)


def _commands(training: Sequence[dict[str, Any]]) -> str:
    lines, before = [], ""
    for stage in training:
        options = " ".join(f"{option} {stage[name]}" for name, option in OPTIONS.items())
        for counts in stage.get("pair_sets", ()):
            options += f" --pairs {counts['folder']}"
        if stage.get("pair_sets"):
            options += f" --pairs-share {stage['pairs_share']:g}"
        start = f" --init {before}" if before else ""
        lines.append(f"python -m distill.lite.train --out runs/{stage['run']}{start} {options}")
        if stage["steps_done"] < stage["steps"]:
            lines[-1] += f"  # stopped after step {stage['steps_done']}"
        before = f"runs/{stage['run']}/checkpoint.pt"
    run = f"runs/{training[-1]['run']}"
    lines += [
        f"python -m distill.lite.export {run} differad_edge/models",
        "python -m distill.lite.operating_point differad_edge/models",
        f"python -m distill.lite.card {run} differad_edge/models --results benchmarks/results",
    ]
    return card_text.COMMANDS.format(commands="\n".join(lines))


def _check_hashes(models: Path, manifest: dict[str, Any]) -> None:
    for name, entry in manifest["files"].items():
        found = hashlib.sha256((models / name).read_bytes()).hexdigest()
        if found != entry["sha256"]:
            raise ConfigError(f"{name}: got SHA-256 {found}, allowed: the manifest's {entry['sha256']}; export again")


def _check_threshold(file: Path, report: dict[str, Any], manifest: dict[str, Any]) -> None:
    """A report does not name the weights it was made with, but one at another threshold was made with others."""
    wanted, found = manifest["default_threshold"], report.get("threshold")
    if report.get("calibrate") is not None:
        raise ConfigError(f"{file}: got figures with calibrated thresholds, allowed: those of the default threshold")
    if found != wanted:
        raise ConfigError(f"{file}: got figures at threshold {found}, allowed: at the model's {wanted}; evaluate again")


def _with_interval(figures: dict[str, Any], name: str) -> str:
    interval = figures.get(f"{name}_ci")
    if figures.get(name) is None or interval is None:
        return _number(figures.get(name))
    return f"{_number(figures[name])} [{_number(interval[0])}, {_number(interval[1])}]"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _join(paragraphs: Iterable[str]) -> str:
    return "\n\n".join(paragraph.strip() for paragraph in paragraphs)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: got a {type(content).__name__}, allowed: an object")
    return content


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training run that was exported")
    parser.add_argument("models", type=Path, help="folder of the shipped model; its README.md is written")
    parser.add_argument("--results", type=Path, help="folder of reports of `differad-edge evaluate --json`")
    parser.add_argument("--note", action="append", default=[], help="a sentence about the training; may be repeated")
    a = parser.parse_args(arguments)
    try:
        write_card(a.run, a.models, results=a.results, notes=a.note)
    except DifferadError as error:
        parser.error(str(error))
    print(a.models / CARD)


if __name__ == "__main__":
    main()
