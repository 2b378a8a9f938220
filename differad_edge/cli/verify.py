"""differad-edge verify"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from differad_edge.cli._options import JsonOption, ThreadsOption

__all__ = ["verify"]


def verify(
    folder: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    precision: Annotated[
        str | None,
        typer.Option(metavar="bf16|...", help="Which compiled engines.", show_default="those compiled last"),
    ] = None,
    simulate: Annotated[
        str | None,
        typer.Option(metavar="fp8|int8|int4", help="Measure what fewer bits would do, on this CPU; verifies nothing."),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="A pair set to ask about; with --checkpoint.", show_default="generated pictures")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="What the export was made from; with --pairs.")] = None,
    json_file: JsonOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Compare an export, as it runs here, with the model that it was made from; exit code 0 when they agree."""
    from dataclasses import asdict

    from differad_edge.cli._console import output, table
    from differad_edge.cli._files import STDOUT, check_output, write_json
    from differad_edge.engines.vlm.exported import Exported
    from differad_edge.export.checkpoint import verify_export

    check_output(json_file, "--json")
    done = verify_export(
        Exported(folder),
        precision=precision,
        simulate=simulate,
        pairs=pairs,
        checkpoint=checkpoint,
        threads=threads,
        told=lambda step: typer.echo(f"{step} ...", err=True),
    )
    if json_file is not None:
        write_json({"runtime": done.runtime, "agreed": done.agreed, **done.agreement.to_dict()}, json_file)
    if json_file != STDOUT:
        console = output()
        rows = table("figure", "value", numbers=("value",))
        for figure, value in asdict(done.agreement).items():
            rows.add_row(figure, f"{value:.3g}")
        console.print(rows)
        said = "agrees" if done.agreed else "DOES NOT AGREE"
        console.print(f"{done.runtime} {said} with PyTorch on {done.agreement.pairs} pairs")
    if not done.agreed:
        raise typer.Exit(1)
