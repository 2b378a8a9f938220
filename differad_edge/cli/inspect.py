"""differad-edge inspect"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from differad_edge.cli._errors import NO_VERDICT
from differad_edge.cli._options import (
    EngineOption,
    JsonOption,
    ModelOption,
    PromptOption,
    ServerOption,
    StoreOption,
    ThreadsOption,
    inspector_config,
)
from differad_edge.errors import ConfigError

if TYPE_CHECKING:
    from differad_edge.inspector import EdgeInspector
    from differad_edge.results import InspectionResult

__all__ = ["inspect"]

_EXIT_CODES = {"OK": 0, "NG": 1}
_SHOWN_FINDINGS = 10


def inspect(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="REF TARGET: golden sample and part; with --product only TARGET."),
    ],
    product: Annotated[
        str | None, typer.Option("--product", "-p", help="Compare with this registered product.")
    ] = None,
    json_file: JsonOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Write the part with its findings drawn in.")
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(help="UNDECIDED when it takes longer; loading and preparing do not count.")
    ] = None,
    store: StoreOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    server: ServerOption = None,
    prompt: PromptOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Inspect one part. Exit code: 0 OK, 1 NG, 2 wrong usage or bad input, 3 UNDECIDED or ERROR."""
    wanted = 2 if product is None else 1
    if len(images) != wanted:
        raise ConfigError(f"images: got {len(images)}, allowed: REF TARGET, or --product NAME TARGET")

    from differad_edge.cli._files import STDOUT, check_image_output, check_output, write_image, write_json
    from differad_edge.deadline import Deadline
    from differad_edge.images import load_image
    from differad_edge.inspector import EdgeInspector

    check_output(json_file, "--json")
    check_image_output(out, "--out")
    if deadline_ms is not None:
        Deadline.after_ms(deadline_ms)  # a wrong one is refused before anything is loaded
    config = inspector_config("inspect", model=model, server=server, prompt=prompt)
    with EdgeInspector(store=store, engine=engine, threads=threads, config=config) as inspector:
        result = _inspect(inspector, images, product, deadline_ms)
    if json_file is not None:  # first: a picture that cannot be written must not cost the record
        write_json(result.to_dict(), json_file)
    if out is not None:
        write_image(result.draw(load_image(images[-1], name="target")), out)
    if json_file != STDOUT:
        _show(result, out)
    raise typer.Exit(_EXIT_CODES.get(result.verdict.value, NO_VERDICT))


def _inspect(
    inspector: EdgeInspector, images: list[Path], product: str | None, deadline_ms: float | None
) -> InspectionResult:
    """With a deadline everything is prepared first: on a line that happened long before the part came."""
    if product is not None:
        if deadline_ms is not None:
            inspector.warm_up(product)
        return inspector.inspect(images[0], product, deadline_ms=deadline_ms)
    reference, target = images
    if deadline_ms is not None:
        inspector.compare(reference, reference)
    return inspector.compare(reference, target, deadline_ms=deadline_ms)


def _show(result: InspectionResult, out: Path | None) -> None:
    from differad_edge.cli._console import milliseconds, output, table, verdict

    console = output()
    line = verdict(result.verdict.value)
    line.append(f"  score {result.score:.3f}", "default")
    if result.threshold is not None:
        line.append(f", threshold {result.threshold:.3f}", "default")
    line.append(f", {milliseconds(result.timings.total_ms)}", "default")
    console.print(line)
    if result.reason is not None:
        console.print(f"{result.reason}: {result.detail or ''}", soft_wrap=True)
    for note in result.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if result.findings:
        rows = table("finding", "score", "x1, y1, x2, y2 in px", "description", numbers=("finding", "score"))
        for number, finding in enumerate(result.findings[:_SHOWN_FINDINGS], start=1):
            box = ", ".join(f"{edge:.0f}" for edge in finding.box)
            rows.add_row(str(number), f"{finding.score:.3f}", box, finding.description or "")
        console.print(rows)
        if len(result.findings) > _SHOWN_FINDINGS:
            console.print(f"and {len(result.findings) - _SHOWN_FINDINGS} more")
    if out is not None:
        console.print(f"Drawn in {out}", soft_wrap=True)
