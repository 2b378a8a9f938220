"""differad-edge results"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from differad_edge.cli._options import JournalOption, StoreOption
from differad_edge.errors import ConfigError

if TYPE_CHECKING:
    from differad_edge.runtime.journal_query import ResultQuery
    from differad_edge.runtime.journal_reader import JournalReader, StoredResult

__all__ = ["results"]

_TABLE_ROWS = 50


class _Format(str, Enum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PAIRS = "pairs"


def results(
    journal: JournalOption,
    form: Annotated[
        _Format,
        typer.Option("--format", help="pairs: a folder of images with pairs.jsonl, for training; labels as reviewed."),
    ] = _Format.TABLE,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="File, or folder for pairs.", show_default="standard output")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new results as they come; for table, jsonl and csv.")
    ] = False,
    station: Annotated[str | None, typer.Option(help="Only this station's.")] = None,
    product: Annotated[str | None, typer.Option("--product", "-p", help="Only this product's.")] = None,
    verdict: Annotated[
        list[str] | None, typer.Option(help="OK, NG, UNDECIDED or ERROR; may be given several times.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason, such as deadline.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From then on: 2026-05-04 or 2026-05-04T13:30:00+02:00; else UTC."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")] = None,
    trigger_id: Annotated[str | None, typer.Option(help="Of this trigger.")] = None,
    part_id: Annotated[str | None, typer.Option(help="Of this part.")] = None,
    session: Annotated[str | None, typer.Option(help="Of this run of a server.")] = None,
    reviewed: Annotated[str | None, typer.Option(help="confirmed, overruled, none, or any mark.")] = None,
    after: Annotated[int | None, typer.Option(metavar="N", help="With a sequence number above N.")] = None,
    before: Annotated[int | None, typer.Option(metavar="N", help="With a sequence number below N.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many.", show_default=f"{_TABLE_ROWS} in a table, else all")
    ] = None,
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="The newest first; with --limit: only the newest.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Read a journal, also while a server writes it: filter, export, follow."""
    from differad_edge.config import parse_config
    from differad_edge.runtime.journal_query import ResultQuery
    from differad_edge.runtime.journal_reader import JournalReader

    given = {
        "station": station,
        "product": product,
        "verdict": verdict or None,
        "reason": reason,
        "since_utc": since,
        "until_utc": until,
        "trigger_id": trigger_id,
        "part_id": part_id,
        "session": session,
        "reviewed": reviewed,
        "after_sequence": after,
        "before_sequence": before,
    }
    query = parse_config({k: v for k, v in given.items() if v is not None}, ResultQuery, where="filter")
    query = query.model_copy(update={"newest_first": newest_first})
    if follow and (form in (_Format.JSON, _Format.PAIRS) or newest_first or limit is not None):
        raise ConfigError(
            "--follow: got it with json, pairs, --newest-first or --limit, allowed: with table, jsonl, csv"
        )
    with JournalReader(journal) as reader:
        if form is _Format.PAIRS:
            _write_pairs(reader, query, limit, store, out)
        elif follow:
            with suppress(KeyboardInterrupt):  # the way to end it
                _write(form, reader.follow(query), out, flush=True)
        elif form is _Format.TABLE:
            _show(reader, query, limit, out)
        else:
            _write(form, reader.all_results(query, at_most=limit), out)


def _show(reader: JournalReader, query: ResultQuery, limit: int | None, out: Path | None) -> None:
    """The newest ones, and how many there are in all."""
    if limit is not None or query.newest_first:
        _write(_Format.TABLE, reader.all_results(query, at_most=limit or _TABLE_ROWS), out)
        return
    newest = reader.results(query.model_copy(update={"newest_first": True, "limit": _TABLE_ROWS}))
    _write(_Format.TABLE, reversed(newest), out)
    if out is None:
        from differad_edge.cli._console import output

        counts = reader.counts(query)
        verdicts = ", ".join(f"{number} {name}" for name, number in sorted(counts.verdicts.items()))
        shown = f", the newest {len(newest)} are shown" if counts.total > len(newest) else ""
        output().print(f"{counts.total} results{shown}{': ' + verdicts if verdicts else ''}", soft_wrap=True)


def _write(form: _Format, rows: Iterable[StoredResult], out: Path | None, *, flush: bool = False) -> None:
    from differad_edge.cli import _results

    lines = {
        _Format.TABLE: _results.as_table,
        _Format.JSON: _results.as_json,
        _Format.JSONL: _results.as_json_lines,
        _Format.CSV: _results.as_csv,
    }[form](rows)
    _results.write_lines(lines, out, flush=flush)


def _write_pairs(
    reader: JournalReader, query: ResultQuery, limit: int | None, store: Path | None, out: Path | None
) -> None:
    from differad_edge.cli._console import output
    from differad_edge.references import ReferenceStore
    from differad_edge.runtime.retraining import export_pairs

    if out is None:
        raise ConfigError("--out: missing, allowed: a new folder for the pairs")
    report = export_pairs(reader, reader.all_results(query, at_most=limit), ReferenceStore(store), out)
    console = output()
    console.print(f"{report.file}: {report.written} pairs", soft_wrap=True)
    if report.unreviewed:
        console.print(f"{report.unreviewed} of them nobody has reviewed: their label is the engine's own word")
    for why, number in sorted(report.skipped.items()):
        console.print(f"{number} left out: {why}", soft_wrap=True)
