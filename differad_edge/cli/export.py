"""differad-edge export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


def export(
    checkpoint: Annotated[str, typer.Argument(help="A student's folder, or an id of the model hub.")],
    out: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    precision: Annotated[
        str, typer.Option(metavar="float32|float16|bfloat16", help="Of weights and of keys and values.")
    ] = "bfloat16",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="WIDTH HEIGHT", help="Working size in px.", show_default="the student's, else 800 800"),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="stretch|letterbox", help="How images reach it.", show_default="the student's")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Of a description, at most.")] = 256,
    pairs: Annotated[int, typer.Option(min=1, help="Generated pairs whose answers are kept for `verify`.")] = 8,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="PAIRS", help="A pair set, for fp8, int8 and int4 at `compile`.", show_default="generated pairs"
        ),
    ] = None,
) -> None:
    """Write a Qwen3-VL student as ONNX graphs that need no PyTorch, and check them on this machine."""
    from differad_edge.cli._console import output
    from differad_edge.config import ModelConfig, parse_config
    from differad_edge.export.checkpoint import export_checkpoint

    given = {"path": checkpoint, "size_px": size, "fit": fit, "max_new_tokens": max_new_tokens}
    given = {name: value for name, value in given.items() if value is not None}
    model = parse_config(given, ModelConfig, where="export")
    console = output()
    exported = export_checkpoint(
        model,
        out,
        precision=precision,
        pairs=pairs,
        calibration=calibration,
        told=lambda step: typer.echo(f"{step} ...", err=True),
    )
    held = sum(entry.bytes for entry in exported.manifest.files.values())
    console.print(f"{out}: {len(exported.manifest.files)} files, {held / 1e6:.1f} MB, {precision}", soft_wrap=True)
    console.print(f"Next: differad-edge verify {out}", soft_wrap=True)
