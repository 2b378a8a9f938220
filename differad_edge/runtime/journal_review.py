"""Review marks: what people say about a result. The newest counts, the others stay as its history."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from differad_edge.cameras.base import utc_now
from differad_edge.errors import ConfigError, JournalError
from differad_edge.runtime.journal_errors import journal_errors
from differad_edge.runtime.journal_schema import open_writing

__all__ = ["MARKS", "Review", "insert_review", "review_result"]

MARKS = ("confirmed", "overruled", "cleared")
"""confirmed: the verdict is right; overruled: it is wrong; cleared: as if nobody had looked."""

_LONGEST = 2000
_BUSY_MS = 5000.0


@dataclass(frozen=True, slots=True)
class Review:
    """``mark``: one of MARKS; ``by``: who says so; ``utc``: when."""

    mark: str
    note: str | None
    by: str | None
    utc: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def review_result(
    journal: str | os.PathLike[str], sequence: int, mark: str, *, note: str | None = None, by: str | None = None
) -> Review:
    """Mark a result of a journal that another process may be writing.

    Raises ConfigError for a mark that is none, JournalError when there is no such result or the journal refuses.
    """
    path = Path(journal)
    connection = open_writing(path, create=False, busy_ms=_BUSY_MS, synchronous="FULL")
    try:
        with journal_errors(path, f"review result {sequence}"):
            return insert_review(connection, path, sequence, mark, note=note, by=by)
    finally:
        connection.close()


def insert_review(
    connection: sqlite3.Connection, path: Path, sequence: int, mark: str, *, note: str | None, by: str | None
) -> Review:
    """Write one mark in one transaction. Raises ConfigError, JournalError, sqlite3.Error."""
    if mark not in MARKS:
        raise ConfigError(f"mark: got {mark!r}, allowed: {', '.join(MARKS)}")
    for name, text in (("note", note), ("by", by)):
        if text is not None and len(text) > _LONGEST:
            raise ConfigError(f"{name}: got {len(text)} characters, allowed: at most {_LONGEST}")
    review = Review(mark, _clean(note), _clean(by), utc_now())
    # One statement, so that the result cannot be deleted between looking and marking.
    done = connection.execute(
        "INSERT INTO reviews (sequence, mark, note, reviewer, utc) SELECT sequence, ?, ?, ?, ? FROM results "
        "WHERE sequence = ?",
        (review.mark, review.note, review.by, review.utc, sequence),
    )
    if done.rowcount != 1:
        raise JournalError(f"{path}: no result has the sequence number {sequence}")
    return review


def _clean(text: str | None) -> str | None:
    """Without what no UTF-8 can hold (an argument of a command line may hold it); None when nothing is left."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8").strip() or None
