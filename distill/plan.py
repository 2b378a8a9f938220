"""``python -m distill.plan RECIPE [key=value ...] --gpus 1xRTX4090-24G``: memory and time of every stage.

The terms and assumptions are those of `training.plan`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from differad_edge.errors import DifferadError
from distill.recipe import load_migrate_recipe
from training.plan import GPUS, model_shape, parse_gpus, plan, report

DEFAULT_SIZE_PX = (800, 800)


def main(
    recipe: Annotated[str, typer.Argument(help="A committed recipe's name, or a YAML file.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]")] = None,
    gpus: Annotated[str, typer.Option(help="How many of which, as in 1xRTX4090-24G.")] = "1xRTX4090-24G",
    pairs: Annotated[int | None, typer.Option(min=1, help="Labelled pairs.")] = None,
) -> None:
    """Estimate memory and time of a migration, stage by stage."""
    try:
        devices, name = parse_gpus(gpus)
        read = load_migrate_recipe(recipe, changes or ())
        shape = model_shape(read.model.path)
        size_px = read.model.size_px or DEFAULT_SIZE_PX
        hours, largest = 0.0, 0.0
        for stage in read.stages():
            made = plan(stage.recipe, shape, GPUS[name], devices, size_px, pairs)
            largest = max(largest, made.total_gib)
            hours += 0.0 if made.steps is None else made.steps * made.step_s / 3600
            typer.echo(report(stage.recipe, made, devices, name) + "\n")
    except DifferadError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    fits = "fits" if largest <= GPUS[name].memory_gib else "DOES NOT FIT"
    typer.echo(
        f"the largest stage needs {largest:.1f} of {GPUS[name].memory_gib} GiB: {fits}; known times: {hours:.1f} h"
    )


if __name__ == "__main__":
    typer.run(main)
