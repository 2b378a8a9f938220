"""The command line: ``differad-edge COMMAND``, one file for each command.

Exit codes: 0 done, and of ``inspect`` OK; 1 of ``inspect`` NG, of ``doctor`` something is wrong, of ``verify`` no
agreement; 2 wrong usage or bad input; 3 of ``inspect`` UNDECIDED or ERROR, of any command a fault of the program
itself. Whatever fails says why in one line on standard error; standard output holds results only.
"""

from __future__ import annotations

from typing import Annotated

import typer

from differad_edge import __version__
from differad_edge.cli._errors import guarded
from differad_edge.cli.bench import bench
from differad_edge.cli.calibrate import calibrate
from differad_edge.cli.certificate import certificate
from differad_edge.cli.compile import compile
from differad_edge.cli.demo import demo
from differad_edge.cli.doctor import doctor
from differad_edge.cli.evaluate import evaluate
from differad_edge.cli.export import export
from differad_edge.cli.inspect import inspect
from differad_edge.cli.keys import keys
from differad_edge.cli.products import products
from differad_edge.cli.register import register
from differad_edge.cli.results import results
from differad_edge.cli.review import review
from differad_edge.cli.serve import serve
from differad_edge.cli.verify import verify
from differad_edge.cli.watch import watch

__all__ = ["app"]

app = typer.Typer(
    name="differad-edge",
    help="Visual inspection on the edge: compares every part with a golden sample of the same product.",
    epilog="Start with: differad-edge demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"differad-edge {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


_COMMANDS = (
    demo, register, products, calibrate, inspect, serve, watch, results, review, keys, certificate, evaluate, bench,
    export, compile, verify, doctor,
)  # fmt: skip
for _command in _COMMANDS:
    app.command(_command.__name__)(guarded(_command))
