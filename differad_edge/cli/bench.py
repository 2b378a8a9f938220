"""differad-edge bench"""

from __future__ import annotations

from collections.abc import Mapping
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

__all__ = ["bench"]


def bench(
    size: Annotated[int, typer.Option(metavar="PX", help="Side of the generated frames.")] = 800,
    pairs: Annotated[int, typer.Option(metavar="N", help="Inspections that are measured, after a warm-up.")] = 200,
    good: Annotated[
        int,
        typer.Option(metavar="N", help="Good parts to register; with more than one, of a product whose parts differ."),
    ] = 1,
    json_file: JsonOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    server: ServerOption = None,
    prompt: PromptOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Measure how long an inspection takes on this machine."""
    from differad_edge.benchmarking import run_benchmark
    from differad_edge.cli._console import output, progress
    from differad_edge.cli._files import STDOUT, check_output, write_json

    check_output(json_file, "--json")
    config = inspector_config("bench", model=model, server=server, prompt=prompt)
    with progress("inspecting") as moved:
        report = run_benchmark(
            size=size, pairs=pairs, good=good, threads=threads, engine=engine, config=config, progress=moved
        )
    if json_file is not None:
        write_json(report, json_file)
    if json_file != STDOUT:
        console = output()
        _show(console, report)
        if json_file is not None:
            console.print(f"Report: {json_file}", soft_wrap=True)


def _show(console: Console, report: Mapping[str, Any]) -> None:
    from differad_edge.cli._console import milliseconds, table

    width, height = report["size_px"]
    console.print(f"{report['n']} inspections of {width}x{height} px frames in memory, engine {report['engine']}")
    rows = table("stage", "p50", "p95", "p99", "max", numbers=("p50", "p95", "p99", "max"))
    for stage, times in report["stages"].items():
        rows.add_row(stage, milliseconds(times["p50_ms"]), milliseconds(times["p95_ms"]), "", "")
    rows.add_section()
    rows.add_row("in all", *(milliseconds(report[f"{name}_ms"]) for name in ("p50", "p95", "p99", "max")))
    console.print(rows)
    warm_up, prepare = report["warm_up"], report["prepare_ms"]
    console.print(
        f"Jitter {milliseconds(report['jitter_ms'])} (p99 - p50), standard deviation {milliseconds(report['std_ms'])}"
    )
    console.print(
        f"Warm-up: {warm_up['n']} inspections apart, the first one {milliseconds(warm_up['first_ms'])}; "
        f"registering took {milliseconds(prepare['register'])}"
    )
    if report["learning"] is not None:
        held_mib = report["learning"]["memory_bytes"] / 2**20
        console.print(f"Product {report['product']}, {report['good']} good parts: {held_mib:.1f} MiB held for it")
    if report["memory"]["peak_mib"] is not None:
        console.print(f"Memory: {report['memory']['peak_mib']:.0f} MiB at most, in this process")
    console.print("Verdicts: " + ", ".join(f"{name} {count}" for name, count in report["verdicts"].items()))
    if set(report["verdicts"]) - {"OK", "NG"}:
        console.print("Some parts got no verdict, and their times may be of less work than an inspection.", style="red")
    machine = report["machine"]
    console.print(
        f"Machine: {machine['cpu']}, {machine['usable_cores']} cores usable, {machine['memory_gib']} GiB, "
        f"{machine['os']}, ONNX Runtime {machine['onnxruntime']}",
        soft_wrap=True,
    )
    cores, load = machine["usable_cores"], report["load_1min"]
    if load is not None and cores and load > 0.5 * cores:
        console.print(f"The machine was busy before: load {load:g}. On an idle one it is faster.", style="yellow")
