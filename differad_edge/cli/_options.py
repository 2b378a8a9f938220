"""Options that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "EngineOption",
    "JournalOption",
    "JsonOption",
    "ModelOption",
    "PromptOption",
    "ServerOption",
    "StoreOption",
    "ThreadsOption",
    "store_words",
]

StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--store", help="Folder of the products.", show_default="$DIFFERAD_STORE, else the user's data folder"
    ),
]
EngineOption: TypeAlias = Annotated[str | None, typer.Option("--engine", help="Engine.", show_default="lite")]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", help="vlm: a checkpoint folder, hub id or export; remote: the model's name on the server."),
]
ServerOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="remote: an OpenAI-compatible server; its key: $DIFFERAD_SERVER_KEY."),
]
PromptOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="student|trained|general",
        help="How a language model is asked: as a student, as a teacher, or as one that must be told the format.",
        show_default="as it was trained",
    ),
]
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
