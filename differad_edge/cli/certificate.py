"""differad-edge certificate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["certificate"]


def certificate(
    folder: Annotated[Path, typer.Argument(help="Where the pair is written; it is made when it is missing.")],
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By which clients reach this machine.", show_default="the machine's own"),
    ] = None,
    days: Annotated[int, typer.Option(metavar="N", min=1, max=36_500, help="How long it is valid.")] = 3650,
) -> None:
    """Make the certificate of an OPC UA server, or of a client, with its private key."""
    from differad_edge.cli._console import output
    from differad_edge.outputs.opcua.certificates import make_certificate

    public, private = make_certificate(folder, host=host, days=days)
    console = output()
    console.print(f"Made {public}: for whoever is to trust it.", soft_wrap=True)
    console.print(f"Made {private}: keep it on this machine and to its owner.", soft_wrap=True)
    console.print(f"  In line.yaml:  certificate: {public}, private_key: {private}, trusted: FOLDER", soft_wrap=True)
