"""Options that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from differad_edge.config import InspectorConfig

__all__ = [
    "EngineOption",
    "JournalOption",
    "JsonOption",
    "ModelOption",
    "PromptOption",
    "ServerOption",
    "StoreOption",
    "ThreadsOption",
    "inspector_config",
    "same_words",
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
    typer.Option(
        "--server", metavar="URL", help="remote or cascade: an OpenAI-compatible server; key: $DIFFERAD_SERVER_KEY."
    ),
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


def inspector_config(
    where: str, *, model: str | None = None, server: str | None = None, prompt: str | None = None
) -> InspectorConfig:
    """Settings with what was said of the language model. Raises ConfigError; ``where``: what it names as the place."""
    from differad_edge.config import InspectorConfig, parse_config

    asked = {"path": model, "server": server, "prompt": prompt}
    given = {name: value for name, value in asked.items() if value is not None}
    return parse_config({"model": given}, InspectorConfig, where=where)


def same_words(**options: str | Path | None) -> str:
    """Options to repeat in a suggested command, each with a space before it, but for those that were not given."""
    given = {name: value for name, value in options.items() if value is not None}
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items())
