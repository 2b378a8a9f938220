"""differad-edge evaluate"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from differad_edge.cli._options import (
    EngineOption,
    JsonOption,
    ModelOption,
    PromptOption,
    ServerOption,
    ThreadsOption,
    inspector_config,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["evaluate"]

_SHOWN_NOTES = 10


def evaluate(
    data: Annotated[Path, typer.Argument(help="A pair set: a folder with pairs.jsonl.")],
    calibrate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Register each product with up to N good parts of the set, and learn from them what may vary.",
        ),
    ] = None,
    json_file: JsonOption = None,
    sheet: Annotated[Path | None, typer.Option(metavar="HTML", help="Write the worst cases as one HTML file.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Only N pairs, evenly spread over the set.")] = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    server: ServerOption = None,
    prompt: PromptOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Score an engine on a pair set: every figure with its 95 % interval."""
    import tempfile

    from differad_edge.cli._console import output, progress
    from differad_edge.cli._files import STDOUT, check_output, write_json
    from differad_edge.errors import ConfigError
    from differad_edge.evaluation import run_evaluation
    from differad_edge.inspector import EdgeInspector
    from differad_edge.pairs import load_pairs

    check_output(json_file, "--json")
    check_output(sheet, "--sheet")
    if sheet == STDOUT:
        raise ConfigError("--sheet: got '-', allowed: a file")
    pair_set = load_pairs(data)
    config = inspector_config("evaluate", model=model, server=server, prompt=prompt)
    with (
        tempfile.TemporaryDirectory(prefix="differad-evaluate-") as folder,
        EdgeInspector(store=folder, engine=engine, threads=threads, config=config) as inspector,
        progress(pair_set.name) as moved,
    ):
        evaluation = run_evaluation(pair_set, inspector, calibrate_n=calibrate, progress=moved, limit=limit)
    if json_file is not None:
        write_json(evaluation.report, json_file)
    if sheet is not None:
        from differad_edge.evaluation_sheet import write_sheet

        write_sheet(evaluation, sheet)
    _check_answered(evaluation.report)
    if json_file == STDOUT:
        return
    console = output()
    _show(console, evaluation.report)
    for name, file in (("Report", json_file), ("Worst cases", sheet)):
        if file is not None:
            console.print(f"{name}: {file}", soft_wrap=True)


def _check_answered(report: Mapping[str, Any]) -> None:
    """Raise EngineError where no pair was answered at all: then there is nothing to score."""
    from differad_edge.errors import EngineError

    failures = report["failures"]
    if failures and len(failures) == report["n"]:
        raise EngineError(f"all {report['n']} pairs failed; the first: {failures[0]['message']}")


def _show(console: Console, report: Mapping[str, Any]) -> None:
    from differad_edge.cli._console import figure, interval, milliseconds, table
    from differad_edge.scoring import DETECTION_FIGURES, ONE_BOX_FIGURES

    console.print(
        f"{report['set']}: {report['n']} of {report['pairs_in_set']} pairs, engine {report['engine']}, "
        f"threshold {_threshold(report)}"
    )
    micro, macro, detection = report["micro"], report["macro"], report["detection"]
    names = ONE_BOX_FIGURES
    console.print("\nOne box a part (IoU >= 0.3)", style="bold")
    rows = table("product", "n", *names, numbers=("n", *names))
    for product, entry in report["classes"].items():
        rows.add_row(product, str(entry["n"]), *(figure(entry[name]) for name in names))
    console.print(rows)
    rows = table("over all", "micro", "95 % interval", "macro", "95 % interval", numbers=("micro", "macro"))
    for name in names:
        means = [(figure(mean[name]), interval(mean[f"{name}_ci"])) for mean in (micro, macro)]
        rows.add_row(name, *means[0], *means[1])
    console.print(rows)
    console.print(f"\nAll boxes, class-agnostic (IoU > {detection['iou_above']})", style="bold")
    rows = table("over all", "value", "95 % interval", numbers=("value",))
    for name in DETECTION_FIGURES:
        rows.add_row(name, figure(detection[name]), interval(detection[f"{name}_ci"]))
    console.print(rows)
    console.print()
    if report["annotation_margin_px"]:
        margin_px = report["annotation_margin_px"]
        console.print(f"Predicted boxes grew by {margin_px:g} px before matching: the set's annotation margin.")
    total = report["timings"].get("total_ms")
    if total is not None:
        console.print(f"Time of a part: p50 {milliseconds(total['p50'])}, p95 {milliseconds(total['p95'])}.")
    for line in _remarks(report):
        console.print(line, soft_wrap=True)


def _threshold(report: Mapping[str, Any]) -> str:
    return "of each product" if report["threshold"] is None else f"{report['threshold']:.4f}"


def _remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """What the figures alone do not say: parts without an answer, failures, how products are compared."""
    if report["identical_pairs"]:
        yield f"{report['identical_pairs']} pairs are two times the same file: no comparison can get them wrong."
    if report["reasons"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in report["reasons"].items())
        yield f"Without an answer: {counts}."
    failures = report["failures"]
    for failure in failures[:_SHOWN_NOTES]:
        yield f"failed: {failure['id']}: {failure['code']}: {failure['message']}"
    if len(failures) > _SHOWN_NOTES:
        yield f"and {len(failures) - _SHOWN_NOTES} more failures"
    if report["calibrate"] is not None:
        for name, product in report["calibrate"]["products"].items():
            note = f" ({product['note']})" if product["note"] else ""
            way = "" if product["learning"] is None else f", compared by {product['learning']['way']}"
            yield f"{name}: {product['mode']}, {len(product['references'])} good parts{way}{note}"
