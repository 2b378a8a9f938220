"""``python -m training.tiny.pair_set OUT --n N --seed S``: generated pairs as a pair set on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import typer

from differad_edge.errors import DifferadError, TrainingError
from differad_edge.geometry import from_grid
from differad_edge.pairs import Pair, PairSet, write_pairs
from training.tiny.pairs import SIDE_PX, tiny_pair


def write_tiny_set(out: Path, *, n: int, seed: int, difficulty: float = 1.0) -> Path:
    """Write ``n`` pairs of ``seed`` as PNG files with their true boxes into ``out``; returns it.

    Raises TrainingError where ``out`` cannot be written.
    """
    pairs = []
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        for index in range(n):
            made = tiny_pair(seed, index, difficulty)
            reference, target = (out / "images" / f"{index:06d}-{name}.png" for name in ("reference", "target"))
            for file, image in ((reference, made.reference), (target, made.target)):
                cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            boxes = () if made.box is None else (from_grid(made.box, SIDE_PX, SIDE_PX),)
            name, label = f"{seed}-{index:06d}", "NG" if boxes else "OK"
            pairs.append(Pair(name, "tiny", reference, target, boxes, label, description=made.thought))
    except (OSError, cv2.error) as exc:
        raise TrainingError(f"OUT: {out} cannot be written: {exc}") from exc
    write_pairs(PairSet(out, out.resolve().name, "aligned", 0.0, tuple(pairs)))
    return out


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the pair set.")],
    n: Annotated[int, typer.Option(min=1, max=999_999, help="How many pairs.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)],
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="0: plain pictures, strong defects.")] = 1.0,
) -> None:
    """Write generated pairs as a pair set."""
    try:
        typer.echo(f"wrote {write_tiny_set(out, n=n, seed=seed, difficulty=difficulty)}")
    except DifferadError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
