"""differad-edge keys"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["keys"]


def keys(
    folder: Annotated[Path, typer.Argument(help="Folder of the server's keys; it is made when it is missing.")],
    client: Annotated[
        list[str] | None, typer.Option("--client", metavar="NAME", help="Let one more client in; may be repeated.")
    ] = None,
    revoke: Annotated[
        list[str] | None, typer.Option("--revoke", metavar="NAME", help="Shut a client out; may be repeated.")
    ] = None,
) -> None:
    """Make the keys with which a server may be reached from other machines, and say who may connect."""
    from differad_edge.cli._console import output
    from differad_edge.runtime.keys import add_client, client_names, create_server_keys, revoke_client

    console = output()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    if create_server_keys(folder):
        say(f"Made the server's keys in {folder}. Keep the folder on this machine and to its owner.")
        say(f"  In line.yaml:  wire: {{keys: {folder}}}")
    for name in revoke or ():
        revoke_client(folder, name)
        say(f"{name}: shut out from its next connection on; restart the server to cut off one that is open.")
    for name in client or ():
        bundle = add_client(folder, name)
        say(f"{name}: copy {bundle} to the client's machine, where only its user may read it; then delete it here.")
        say(f'  There:  InspectionClient("tcp://SERVER:5571", "tcp://SERVER:5570", keys="{bundle.name}")')
        say(
            f"  or:     differad-edge watch --keys {bundle.name} --results tcp://SERVER:5570 --control tcp://SERVER:5571"
        )
    names = client_names(folder)
    say(f"May connect: {', '.join(names)}" if names else "Nobody may connect yet; let a client in with --client NAME")
