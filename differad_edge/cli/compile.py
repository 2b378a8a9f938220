"""differad-edge compile"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["compile"]


def compile(
    folder: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    target: Annotated[str, typer.Option(metavar="GPU", help="rtx4090, l4, ... or smNN; no GPU is needed here.")],
    precision: Annotated[
        str,
        typer.Option(
            metavar="bf16|fp16|fp8|int8|int4",
            help="Of the arithmetic: as the export is, or fewer bits for its weights.",
        ),
    ] = "bf16",
) -> None:
    """Build TensorRT engines of an export, ahead of time, for a GPU that need not be in this machine."""
    from differad_edge.cli._console import output, table
    from differad_edge.engines.vlm.exported import Exported
    from differad_edge.engines.vlm.tensorrt_runner import read_compiled
    from differad_edge.export.tensorrt import compile_export, target_of

    made = compile_export(
        Exported(folder),
        target=target_of(target),
        precision=precision,
        told=lambda stage: typer.echo(f"{stage} ...", err=True),
    )
    console = output()
    rows = table("stage", "MB", "s", numbers=("MB", "s"))
    for stage, figures in read_compiled(made).figures.items():
        rows.add_row(stage, f"{figures['bytes'] / 1e6:.1f}", f"{figures['seconds']:.1f}")
    console.print(rows)
    console.print(f"{made}\nNext, on the machine with the GPU: differad-edge verify {folder}", soft_wrap=True)
