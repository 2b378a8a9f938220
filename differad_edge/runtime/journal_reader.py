"""Reads a journal, also while a server writes it, in that process or in another one."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from differad_edge.errors import JournalError, ResultError
from differad_edge.runtime.journal_errors import journal_errors
from differad_edge.runtime.journal_query import ResultQuery, where_clause
from differad_edge.runtime.journal_review import Review
from differad_edge.runtime.journal_schema import FileIdentity, file_identity, open_reading
from differad_edge.runtime.record import ResultRecord

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Counts", "JournalEvent", "JournalReader", "StoredResult", "default_images_folder"]

_BUSY_MS = 5000.0
_PAGE = 500
"""Results that are read at once: a long transaction would keep the log from starting over."""

_COLUMNS = (
    "results.sequence, results.record, marks.mark, marks.note, marks.reviewer, marks.utc, "
    "EXISTS (SELECT 1 FROM images WHERE images.sequence = results.sequence)"
)
_JOINED = "results LEFT JOIN marks ON marks.sequence = results.sequence"


def default_images_folder(journal: Path) -> Path:
    """Where the frames of a journal are kept unless the settings say otherwise: beside it."""
    return journal.with_name(f"{journal.stem}-images")


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A record, the mark that counts (None: none), and whether its frame is kept on disk."""

    record: ResultRecord
    review: Review | None
    has_image: bool

    def to_dict(self) -> dict[str, Any]:
        """The record's to_dict() with "review" ({mark, note, by, utc} or null) and "has_image"."""
        review = None if self.review is None else self.review.to_dict()
        return {**self.record.to_dict(), "review": review, "has_image": self.has_image}


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """``id`` rises; ``kind`` such as "alarm", "journal-gap"; ``detail``: JSON types."""

    id: int
    utc: str
    kind: str
    station: str | None
    code: str
    detail: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of ``total`` results: verdict -> count; product -> verdict -> count; reason -> count; mark -> count."""

    total: int
    verdicts: dict[str, int]
    products: dict[str, dict[str, int]]
    reasons: dict[str, int]
    marks: dict[str, int]


class JournalReader:
    """Read-only. Every method may be called from any thread and raises JournalError with the path and the cause."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self._lock = threading.Lock()
        self._connection, self._identity = self._open()

    def results(self, query: ResultQuery | None = None) -> list[StoredResult]:
        """At most ``query.limit`` results, by rising sequence number unless ``newest_first``."""
        query = ResultQuery() if query is None else query
        condition, parameters = where_clause(query)
        order = "DESC" if query.newest_first else "ASC"
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM {_JOINED} WHERE {condition} ORDER BY results.sequence {order} LIMIT ?",
            (*parameters, query.limit),
        )
        return [self._stored(row) for row in rows]

    def all_results(self, query: ResultQuery | None = None, *, at_most: int | None = None) -> Iterator[StoredResult]:
        """Every result that matches, ``query.limit`` or not, read a page at a time; ``at_most``: so many."""
        query = ResultQuery() if query is None else query
        left = at_most
        while left is None or left > 0:
            page = self.results(query.model_copy(update={"limit": _PAGE if left is None else min(left, _PAGE)}))
            yield from page
            if not page:
                return
            left = None if left is None else left - len(page)
            bound = "before_sequence" if query.newest_first else "after_sequence"
            query = query.model_copy(update={bound: page[-1].record.sequence})

    def follow(
        self, query: ResultQuery | None = None, *, poll_ms: float = 200.0, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[StoredResult]:
        """Every result that matches, and then each new one as it comes, until ``stop`` says so."""
        query = (ResultQuery() if query is None else query).model_copy(update={"newest_first": False})
        while not stop():
            for stored in self.all_results(query):
                yield stored
                query = query.model_copy(update={"after_sequence": stored.record.sequence})
            time.sleep(poll_ms / 1000.0)

    def get(self, sequence: int) -> StoredResult | None:
        """One result, or None."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM {_JOINED} WHERE results.sequence = ?", (sequence,))
        return self._stored(rows[0]) if rows else None

    def last_sequence(self) -> int:
        """The highest sequence number in the journal; 0 when it is empty."""
        return self._rows("SELECT max(sequence) FROM results")[0][0] or 0

    def counts(self, query: ResultQuery | None = None) -> Counts:
        """How many results match, ``query.limit`` or not."""
        condition, parameters = where_clause(ResultQuery() if query is None else query)
        rows = self._rows(
            f"SELECT results.product, results.verdict, results.reason, marks.mark, count(*) FROM {_JOINED} "
            f"WHERE {condition} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
            parameters,
        )
        counts = Counts(sum(row[4] for row in rows), {}, {}, {}, {})
        for product, verdict, reason, mark, number in rows:
            groups: list[tuple[dict[str, int], str | None]] = [
                (counts.verdicts, verdict),
                (counts.products.setdefault(product or "", {}), verdict),
                (counts.reasons, reason),
                (counts.marks, mark),
            ]
            for group, key in groups:
                if key is not None:
                    group[key] = group.get(key, 0) + number
        return counts

    def events(self, *, kind: str | None = None, after_id: int = 0, limit: int = 1000) -> list[JournalEvent]:
        """Events by rising id; ``kind``: only such."""
        rows = self._rows(
            "SELECT id, utc, kind, station, code, detail FROM events WHERE id > ? AND (? IS NULL OR kind = ?) "
            "ORDER BY id LIMIT ?",
            (after_id, kind, kind, limit),
        )
        return [JournalEvent(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows]

    def reviews(self, sequence: int) -> list[Review]:
        """Every mark that a result ever got, the newest last."""
        return [
            Review(*row)
            for row in self._rows(
                "SELECT mark, note, reviewer, utc FROM reviews WHERE sequence = ? ORDER BY id", (sequence,)
            )
        ]

    def reviewed_good(self, product: str) -> list[StoredResult]:
        """Parts of a product that people say are good and whose frame is kept: OK confirmed, NG overruled."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM marks JOIN results ON results.sequence = marks.sequence "
            "WHERE results.product = ? AND ((results.verdict = 'OK' AND marks.mark = 'confirmed') "
            "OR (results.verdict = 'NG' AND marks.mark = 'overruled')) "
            "AND EXISTS (SELECT 1 FROM images WHERE images.sequence = results.sequence) ORDER BY results.sequence",
            (product,),
        )
        return [self._stored(row) for row in rows]

    def image_file(self, sequence: int) -> Path | None:
        """The PNG file of a result's frame; None when it was not kept or has been deleted since."""
        rows = self._rows(
            "SELECT file, (SELECT value FROM meta WHERE key = 'images_folder') FROM images WHERE sequence = ?",
            (sequence,),
        )
        if not rows:
            return None
        folder = default_images_folder(self.path) if rows[0][1] is None else Path(rows[0][1])
        file = folder / rows[0][0]
        return file if file.is_file() else None

    def image(self, sequence: int) -> bytes | None:
        """The PNG file's bytes, or None: see `image_file`."""
        file = self.image_file(sequence)
        try:
            return None if file is None else file.read_bytes()
        except FileNotFoundError:
            return None  # the budget took it between the two lines
        except OSError as error:
            raise JournalError(f"{file}: cannot read the frame of result {sequence}: {error.strerror}") from error

    def close(self) -> None:
        """Closing twice is closing once."""
        with self._lock:
            self._connection.close()
            self._identity = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> tuple[sqlite3.Connection, FileIdentity | None]:
        return open_reading(self.path, busy_ms=_BUSY_MS), file_identity(self.path)

    def _rows(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        with self._lock, journal_errors(self.path, "read the journal"):
            if self._identity is None:
                raise JournalError(f"{self.path}: this reader is closed")
            if file_identity(self.path) != self._identity:  # moved away, and a new one made in its place
                self._connection.close()
                self._connection, self._identity = self._open()
            return self._connection.execute(sql, parameters).fetchall()

    def _stored(self, row: tuple[Any, ...]) -> StoredResult:
        sequence, text, mark, note, by, utc, has_image = row
        try:
            record = ResultRecord.from_json(text)
        except ResultError as error:
            raise JournalError(f"{self.path}: result {sequence} cannot be read: {error}") from error
        return StoredResult(record, None if mark is None else Review(mark, note, by, utc), bool(has_image))
