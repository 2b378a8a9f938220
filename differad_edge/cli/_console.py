"""How commands write: tables on standard output, progress on standard error and only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "VERDICT_STYLES",
    "figure",
    "hint",
    "interval",
    "milliseconds",
    "one_line",
    "output",
    "progress",
    "table",
    "verdict",
]

VERDICT_STYLES = {"OK": "bold green", "NG": "bold red", "UNDECIDED": "bold yellow", "ERROR": "bold magenta"}

_PIPE_COLUMNS = 200  # where nobody says how wide the page is


def output() -> Console:
    """The console on standard output as it is now: tests and callers may have replaced it."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table with these headings; those in ``numbers`` are right-aligned."""
    empty = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        empty.add_column(name, justify="right" if name in numbers else "left", header_style="dim")
    return empty


def verdict(text: str) -> Text:
    """A verdict in its colour."""
    return Text(text, VERDICT_STYLES.get(text, ""))


def one_line(text: str) -> Text:
    """A cell that is cut off rather than broken where the table is too wide."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def figure(value: float | None) -> str:
    """A figure of merit in [0, 1]; a dash where it is undefined."""
    return "-" if value is None else f"{value:.3f}"


def interval(bounds: Sequence[float] | None) -> str:
    """Low and high of a figure of merit; a dash where it is undefined."""
    return "-" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def milliseconds(value: float | None) -> str:
    """With one decimal below 100."""
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def hint(console: Console, text: str, command: str) -> None:
    """What to try next: a sentence, and the line to type below it, which is never broken."""
    console.print(f"{text}:")
    console.print(Text(f"  {command}", "cyan"), soft_wrap=True)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is moved by calls with (done, all); nothing at all where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
