"""``python -m training.tiny OUT [--seed S] [--student]``: a tiny model with random weights, to start training from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from differad_edge.errors import DifferadError, TrainingError
from training.tiny.model import write_tiny_checkpoint
from training.tiny.student import write_tiny_student


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the random weights.")] = 0,
    student: Annotated[bool, typer.Option("--student", help="A Qwen3-VL in place of a Qwen2-VL.")] = False,
) -> None:
    """Write a tiny Qwen2-VL, or a tiny Qwen3-VL, with random weights and its processor."""
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainingError(f"OUT: got {out}, allowed: a new or an empty folder")
        write = write_tiny_student if student else write_tiny_checkpoint
        typer.echo(f"wrote {write(out, seed=seed)}")
    except (DifferadError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
