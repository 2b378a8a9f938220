"""``python -m training.tiny OUT [--seed S]``: a tiny Qwen2-VL with random weights, to start training from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.tiny.model import write_tiny_checkpoint


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
) -> None:
    """Write a tiny Qwen2-VL with random weights and its processor."""
    typer.echo(f"wrote {write_tiny_checkpoint(out, seed=seed)}")


if __name__ == "__main__":
    typer.run(main)
