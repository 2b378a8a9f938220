"""``python -m training.tiny OUT [--seed S]``: a tiny Qwen2-VL with random weights, to start training from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from differad_edge.errors import DifferadError, TrainingError
from training.tiny.model import write_tiny_checkpoint


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the random weights.")] = 0,
) -> None:
    """Write a tiny Qwen2-VL with random weights and its processor."""
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainingError(f"OUT: got {out}, allowed: a new or an empty folder")
        typer.echo(f"wrote {write_tiny_checkpoint(out, seed=seed)}")
    except (DifferadError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
