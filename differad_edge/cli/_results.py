"""Results out of a journal as lines of text: a table, JSON, JSON lines, CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.errors import ConfigError

if TYPE_CHECKING:
    from differad_edge.runtime.journal_reader import StoredResult

__all__ = ["CSV_COLUMNS", "as_csv", "as_json", "as_json_lines", "as_table", "write_lines"]

CSV_COLUMNS = (
    "sequence", "captured_utc", "session", "trigger_id", "trigger", "station", "product", "part_id", "job_id",
    "verdict", "reason", "detail", "score", "threshold", "findings", "x1", "y1", "x2", "y2", "description", "total_ms",
    "engine", "engine_sha256", "reference_id", "reference_sha256", "image_fingerprint", "camera", "frame_sequence",
    "is_simulated", "review", "review_note", "reviewed_by", "reviewed_utc", "has_image",
)  # fmt: skip
"""One row a result; x1 to y2 and description are those of its strongest finding, in pixels of the target."""

_WIDTHS = (("sequence", 9), ("captured (UTC)", 23), ("station", 10), ("product", 16), ("verdict", 9), ("score", 6))
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_table(rows: Iterable[StoredResult]) -> Iterator[str]:
    """Columns of fixed width, so that a line can be written as soon as its result comes."""
    yield "  ".join(f"{name:<{width}}" for name, width in _WIDTHS) + "  review     part, reason or description"
    for stored in rows:
        record, result = stored.record, stored.record.result
        said = ": ".join(filter(None, (result.reason, result.detail))) or (
            result.findings[0].description or "" if result.findings else ""
        )
        if len(result.findings) > 1:
            said += f" (and {len(result.findings) - 1} more)"
        cells = (
            f"{record.sequence:>9}",
            record.captured_utc[:23].replace("T", " "),
            record.station,
            result.product or "-",
            result.verdict.value,
            f"{result.score:.3f}",
        )
        line = "  ".join(f"{cell:<{width}}" for cell, (_, width) in zip(cells, _WIDTHS, strict=True))
        mark = "-" if stored.review is None else stored.review.mark
        rest = ", ".join(text for text in (record.part_id, said.strip()) if text)
        yield "".join(c if c.isprintable() else "?" for c in f"{line}  {mark:<9}  {rest}").rstrip()


def as_json(rows: Iterable[StoredResult]) -> Iterator[str]:
    """One array, an element a line; complete only with its last line."""
    line = "["
    for stored in rows:
        yield line
        line = _json(stored) + ","
    yield line if line == "[" else line[:-1]
    yield "]"


def as_json_lines(rows: Iterable[StoredResult]) -> Iterator[str]:
    """One object a line."""
    for stored in rows:
        yield _json(stored)


def as_csv(rows: Iterable[StoredResult]) -> Iterator[str]:
    """A head line, and one line a result: see CSV_COLUMNS."""
    yield ",".join(CSV_COLUMNS)
    for stored in rows:
        buffer = io.StringIO()
        # The writer quotes what holds a character of its line end; the last one is added where it is written.
        csv.writer(buffer, lineterminator="\r\n").writerow([_cell(value) for value in _csv_row(stored)])
        yield buffer.getvalue().removesuffix("\r\n")


def write_lines(lines: Iterable[str], out: Path | None, *, flush: bool = False) -> None:
    """Write to a file or standard output; ``flush``: each line at once.

    A file that is written to its end is replaced in one step; one that is followed grows line by line. Raises
    ConfigError.
    """
    if out is None or os.fspath(out) == "-":
        for line in lines:
            sys.stdout.write(line + "\n")
            if flush:
                sys.stdout.flush()
        sys.stdout.flush()
        return
    target = out if flush else out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with open(target, "w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
                if flush:
                    file.flush()
        os.replace(target, out)
    except OSError as error:
        raise ConfigError(f"--out: {str(out)!r} cannot be written: {error.strerror}") from error
    finally:
        if target != out:
            target.unlink(missing_ok=True)


def _json(stored: StoredResult) -> str:
    # ASCII, because nobody knows which encoding standard output has.
    return json.dumps(stored.to_dict(), allow_nan=False, separators=(",", ":"))


def _csv_row(stored: StoredResult) -> list[Any]:
    record, result, review = stored.record, stored.record.result, stored.review
    box: tuple[float | None, ...] = (None,) * 4 if result.box is None else tuple(result.box)
    values = {
        **record.to_dict(),
        **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        "findings": len(result.findings),
        "description": result.findings[0].description if result.findings else None,
        "total_ms": result.timings.total_ms,
        "review": None if review is None else review.mark,
        "review_note": None if review is None else review.note,
        "reviewed_by": None if review is None else review.by,
        "reviewed_utc": None if review is None else review.utc,
        "has_image": stored.has_image,
    }
    return [values[name] for name in CSV_COLUMNS]


def _cell(value: Any) -> Any:
    # A spreadsheet runs what looks like a formula, and part ids and notes come from outside.
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
