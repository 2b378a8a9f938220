"""differad-edge verify"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from differad_edge.cli._options import JsonOption, ThreadsOption

__all__ = ["verify"]


def verify(
    folder: Annotated[Path, typer.Argument(help="What `export` wrote.")],
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
    name, agreement, agreed = verify_export(Exported(folder), threads=threads)
    if json_file is not None:
        write_json({"runtime": name, "agreed": agreed, **asdict(agreement)}, json_file)
    if json_file != STDOUT:
        console = output()
        rows = table("figure", "value", numbers=("value",))
        for figure, value in asdict(agreement).items():
            rows.add_row(figure, f"{value:.3g}")
        console.print(rows)
        console.print(f"{name} {'agrees' if agreed else 'DOES NOT AGREE'} with PyTorch on {agreement.pairs} pairs")
    if not agreed:
        raise typer.Exit(1)
