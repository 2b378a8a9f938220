"""What a command says, and with which code it ends, when it cannot do what it was asked."""

from __future__ import annotations

import errno
import functools
import io
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from differad_edge.errors import DifferadError

__all__ = ["BAD_INPUT", "NO_VERDICT", "guarded", "say_error"]

BAD_INPUT = 2
NO_VERDICT = 3
"""Not 1, which is NG: a caller that looks at the code alone must not take a broken program for a bad part."""


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with its errors turned into a line on standard error and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what a pipe cannot say
        try:
            command(*args, **options)
        except DifferadError as error:
            say_error(error.code, str(error))
            raise typer.Exit(BAD_INPUT) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe has left: no fault
            traceback.print_exc()
            say_error("internal", f"{type(error).__name__}: {error}; a fault of differad-edge itself, please report it")
            raise typer.Exit(NO_VERDICT) from None

    return run


def say_error(code: str, message: str) -> None:
    """One line on standard error, whatever the message holds."""
    typer.echo(f"error [{code}]: {'; '.join(message.split(chr(10)))}", err=True)
