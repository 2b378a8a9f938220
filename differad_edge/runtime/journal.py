"""The journal: every result is committed here before anybody hears of it.

SQLite with a write-ahead log: a commit is one append to a file, readers never wait for the writer nor it for them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from differad_edge.cameras.base import utc_now
from differad_edge.errors import JournalError
from differad_edge.references.atomic import make_folder
from differad_edge.runtime.journal_checkpoint import Checkpointer
from differad_edge.runtime.journal_errors import error_of, journal_errors
from differad_edge.runtime.journal_lock import JournalLock
from differad_edge.runtime.journal_prune import Clock, prune_journal
from differad_edge.runtime.journal_review import Review, insert_review
from differad_edge.runtime.journal_schema import connect, file_identity, open_writing
from differad_edge.runtime.record import ResultRecord

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Journal"]

_BUSY_MS = 1000.0
"""How long a result waits for another program that holds the journal; a review holds it for well under 1 ms."""

_INSERT = """
INSERT INTO results (sequence, session, trigger_id, station, product, verdict, reason, score, captured_utc, part_id,
    engine_sha256, reference_sha256, image_fingerprint, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_EVENT = "INSERT INTO events (utc, kind, station, code, detail) VALUES (?, ?, ?, ?, ?)"


@dataclass(slots=True)
class _Gap:
    """Results that went out without being written down."""

    first: int
    last: int
    count: int
    since_utc: str
    cause: str


class Journal:
    """The one writer of a journal. Every method may be called from any thread.

    ``path``: the SQLite file; it is made with the folders above it when it does not exist. ``durability``: "process",
    what `append` returned from survives kill -9; "power", also a power cut, for one disk flush each. ``now_utc``,
    ``monotonic_s``: clocks, for tests. ``id``: what tells this journal from every other one, wherever the file lies.

    Every method raises JournalError, with the path and the cause, for whatever SQLite or the disk says. A failure does
    not last longer than its cause: the next call tries again. Raises JournalInUseError when another server writes it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["process", "power"] = "process",
        busy_ms: float = _BUSY_MS,
        now_utc: Callable[[], str] = utc_now,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        given = Path(path).expanduser()
        self.path = Path(os.path.realpath(given))  # one file has one lock, by whatever name it is opened
        self.durability = durability
        self._busy_ms = busy_ms
        self._now_utc = now_utc
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._gap: _Gap | None = None
        self._suspect = False
        self._closed = False
        self._stopping = threading.Event()
        with journal_errors(self.path, "open the journal"):
            make_folder(self.path.parent)
        self._checkpointer = Checkpointer(self.path, self._lock)
        self._server_lock = JournalLock(self.path)
        try:
            self._open(thorough=True)
            self.id, self._last_sequence = self._read_state()
        except BaseException:
            self._disconnect()
            self._server_lock.close()
            raise
        self._opened = Clock(now_utc(), monotonic_s())
        self._checkpointer.start()

    # -- results ------------------------------------------------------------------------------------------------------

    @property
    def last_sequence(self) -> int:
        """The highest sequence number that was ever used, 0 in a new journal; the next result takes the one after."""
        return self._last_sequence

    def append(self, record: ResultRecord, text: bytes | None = None) -> None:
        """Commit one result. ``text``: record.to_json(), when the caller has it already.

        When it raises, the result counts as gone out without a record: the gap is written as an event "journal-gap"
        together with the next result that can be written.
        """
        row = _row(record, text)
        with self._lock:
            self._last_sequence = max(self._last_sequence, record.sequence)
            try:
                self._ensure_sound()
                if self._gap is None:
                    self._main.execute(_INSERT, row)
                else:
                    self._insert_after_gap(row, self._gap)
            except (sqlite3.Error, OSError, JournalError) as error:
                _undo(self._main)
                failed = (
                    error if isinstance(error, JournalError) else self._blame(error, f"write result {record.sequence}")
                )
                if not isinstance(error, sqlite3.IntegrityError):  # a number used twice is no gap
                    self._note_gap(record.sequence, str(failed))
                raise failed from error
            self._gap = None
            self._checkpointer.committed()

    def append_event(self, kind: str, station: str | None, code: str, detail: Mapping[str, Any] | None = None) -> None:
        """Commit an event: an alarm, a change of state, drops, a gap, a late result.

        ``kind`` and ``code``: kebab-case; ``station``: None for the whole server; ``detail``: JSON types.
        """
        with self._lock, self._transaction(f"write the event {kind}") as connection:
            self._insert_event(connection, kind, station, code, detail or {})

    def review(self, sequence: int, mark: str, note: str | None = None, by: str | None = None) -> Review:
        """Mark a result "confirmed" (the verdict is right), "overruled" (it is wrong) or "cleared" (not looked at).

        Raises ConfigError for another mark, JournalError when there is no such result.
        """
        with self._lock, self._transaction(f"review result {sequence}") as connection:
            return insert_review(connection, self.path, sequence, mark, note=note, by=by)

    def prune(self, keep_days: float) -> int:
        """Delete results and events older than ``keep_days``, a few at a time; return how many results. Slow.

        From the oldest on, up to the first that is younger, and never the newest. Nothing is deleted while the wall
        clock stands more than an hour away from where it was when the journal was opened plus the time since: a clock
        that was set wrong must not cost the records.
        """
        now = Clock(self._now_utc(), self._monotonic_s())
        return prune_journal(self.background_write, keep_days, self._opened, now, self._stopping)

    def close(self) -> None:
        """End the thread, close the file, let go of the lock. Closing twice is closing once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stopping.set()
        self._checkpointer.close()
        with self._lock:
            self._disconnect()
        self._server_lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for the other modules of the journal -------------------------------------------------------------------------

    @contextmanager
    def background_write(self, action: str) -> Iterator[sqlite3.Connection]:
        """One short transaction that does not wait for the disk; results wait for it. Raises JournalError."""
        with self._lock, self._transaction(action, relaxed=True) as connection:
            yield connection

    # -- inside -------------------------------------------------------------------------------------------------------

    def _open(self, *, thorough: bool) -> None:
        power = self.durability == "power"
        self._main = open_writing(
            self.path,
            create=True,
            busy_ms=self._busy_ms,
            synchronous="FULL" if power else "NORMAL",
            thorough=thorough,
        )
        # What need not survive a power cut must not make a result wait for the disk.
        self._relaxed = self._main
        if power:
            with journal_errors(self.path, "open the journal"):
                self._relaxed = connect(self.path, "rw", busy_ms=self._busy_ms)
        self._identity = file_identity(self.path)

    def _read_state(self) -> tuple[str, int]:
        """The journal's id and the last sequence number that was used, whether or not its result was written."""
        with self._lock, self._transaction("read the journal") as connection:
            (identity,) = connection.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
            known = connection.execute("SELECT max(sequence) FROM results").fetchone()[0] or 0
            gap = connection.execute(
                "SELECT detail FROM events WHERE kind = 'journal-gap' ORDER BY id DESC LIMIT 1"
            ).fetchone()
            known = max(known, 0 if gap is None else json.loads(gap[0])["last_sequence"])
            unwritten = self._server_lock.unwritten
            if unwritten > known:
                detail = {
                    "first_sequence": known + 1,
                    "last_sequence": unwritten,
                    "results": unwritten - known,
                    "since_utc": None,
                    "cause": "the server ended before the journal could be written again",
                }
                self._insert_event(connection, "journal-gap", None, "unwritten-results", detail)
        return str(identity), max(known, unwritten)

    def _disconnect(self) -> None:
        for name in ("_relaxed", "_main"):
            connection = getattr(self, name, None)
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def _ensure_sound(self) -> None:
        """Open the file anew when it was moved away or when the last failure may have hurt the connection."""
        if self._closed:
            raise JournalError(f"{self.path}: the journal is closed")
        found = file_identity(self.path)
        if found == self._identity and not self._suspect:
            return
        moved = found != self._identity
        if moved:
            with suppress(sqlite3.Error):  # what is still in the log belongs to the file that was moved
                self._main.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._disconnect()
        self._open(thorough=False)  # a result is waiting
        self._suspect = False
        if moved:
            detail = {"last_sequence": self._last_sequence - 1}
            self._insert_event(self._main, "journal-replaced", None, "file-moved-away", detail)

    @contextmanager
    def _transaction(self, action: str, *, relaxed: bool = False) -> Iterator[sqlite3.Connection]:
        """The caller holds the lock."""
        self._ensure_sound()
        connection = self._relaxed if relaxed else self._main
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            _undo(connection)
            if isinstance(error, (sqlite3.Error, OSError)):
                raise self._blame(error, action) from error
            raise
        self._checkpointer.committed()

    def _insert_after_gap(self, row: tuple[Any, ...], gap: _Gap) -> None:
        detail = {
            "first_sequence": gap.first,
            "last_sequence": gap.last,
            "results": gap.count,
            "since_utc": gap.since_utc,
            "cause": gap.cause,
        }
        self._main.execute("BEGIN IMMEDIATE")
        self._insert_event(self._main, "journal-gap", None, "unwritten-results", detail)
        self._main.execute(_INSERT, row)
        self._main.execute("COMMIT")

    def _insert_event(
        self,
        connection: sqlite3.Connection,
        kind: str,
        station: str | None,
        code: str,
        detail: Mapping[str, Any],
    ) -> None:
        text = json.dumps(detail, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
        connection.execute(_INSERT_EVENT, (self._now_utc(), kind, station, code, text))

    def _blame(self, error: sqlite3.Error | OSError, action: str) -> JournalError:
        """The error to raise; decides whether the connection can be used again as it is."""
        # After a full disk, a lock and a number used twice it can. After the rest SQLite says that it can as well, but
        # a new connection costs a millisecond and leaves no doubt.
        harmless = isinstance(error, sqlite3.IntegrityError) or any(word in str(error) for word in ("full", "locked"))
        self._suspect = self._suspect or not harmless
        return error_of(error, self.path, action)

    def _note_gap(self, sequence: int, cause: str) -> None:
        if self._gap is None:
            self._gap = _Gap(sequence, sequence, 0, self._now_utc(), cause)
        self._gap.first = min(self._gap.first, sequence)
        self._gap.last = max(self._gap.last, sequence)
        self._gap.count += 1
        self._server_lock.remember(self._gap.last)


def _row(record: ResultRecord, text: bytes | None) -> tuple[Any, ...]:
    """The values of _INSERT."""
    result = record.result
    return (
        record.sequence,
        _utf8(record.session),
        _utf8(record.trigger_id),
        _utf8(record.station),
        _utf8(result.product),
        result.verdict.value,
        result.reason,
        result.score,
        record.captured_utc,
        _utf8(record.part_id),
        record.engine_sha256,
        result.reference_sha256,
        record.image_fingerprint,
        (record.to_json() if text is None else text).decode("utf-8"),
    )


def _utf8(text: str | None) -> str | None:
    """An id may come from a client, as half a surrogate pair too, which no UTF-8 can hold."""
    return text if text is None or text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _undo(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
