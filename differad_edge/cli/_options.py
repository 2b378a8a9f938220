"""Options that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["EngineOption", "JournalOption", "JsonOption", "StoreOption", "ThreadsOption", "store_words"]

StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--store", help="Folder of the products.", show_default="$DIFFERAD_STORE, else the user's data folder"
    ),
]
EngineOption: TypeAlias = Annotated[str | None, typer.Option("--engine", help="Engine.", show_default="lite")]
ThreadsOption: TypeAlias = Annotated[
    int | None, typer.Option("--threads", help="Threads of the inference runtime.", show_default="its own choice")
]
JournalOption: TypeAlias = Annotated[Path, typer.Option("--journal", metavar="FILE", help="Journal of a server.")]
JsonOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help='Write the result as JSON; "-" for standard output and nothing else.'),
]


def store_words(store: Path | None) -> str:
    """The option to repeat in a suggested command, with a space before it; empty when it was not given."""
    return "" if store is None else f" --store {shlex.quote(str(store))}"
