"""The tables of a journal, and how its file is opened: refused by name when it is not one."""

from __future__ import annotations

import os
import sqlite3
import uuid
from pathlib import Path
from typing import Literal

from differad_edge.errors import JournalError
from differad_edge.references.atomic import make_folder
from differad_edge.runtime.journal_errors import journal_errors

__all__ = ["JOURNAL_VERSION", "FileIdentity", "connect", "file_identity", "open_reading", "open_writing"]

JOURNAL_VERSION = 1
"""Version of the tables. It rises when a table or column changes its meaning or goes away."""

_APPLICATION_ID = 0x44_46_45_4A  # "DFEJ": tells a journal from every other SQLite file
_CHECKED_BYTES = 64 << 20
"""Up to this size the whole file is checked when it is opened: a fraction of a second."""

FileIdentity = tuple[int, int]
"""Device and inode: another file under the same name has another one."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE results (
    sequence INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    station TEXT NOT NULL,
    product TEXT,
    verdict TEXT NOT NULL,
    reason TEXT,
    score REAL NOT NULL,
    captured_utc TEXT NOT NULL,
    part_id TEXT,
    engine_sha256 TEXT NOT NULL,
    reference_sha256 TEXT,
    image_fingerprint TEXT,
    record TEXT NOT NULL
);
CREATE INDEX results_by_trigger ON results (trigger_id);
-- Answers counts over a span of time without touching the records.
CREATE INDEX results_by_time ON results (captured_utc, station, product, verdict, reason);
-- What people look for among many good parts. Partial: a good part without an id costs the hot path nothing.
CREATE INDEX results_not_ok ON results (verdict, sequence) WHERE verdict <> 'OK';
CREATE INDEX results_by_part ON results (part_id) WHERE part_id IS NOT NULL;

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    utc TEXT NOT NULL,
    kind TEXT NOT NULL,
    station TEXT,
    code TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX events_by_kind ON events (kind, id);

CREATE TABLE reviews (
    id INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL,
    mark TEXT NOT NULL,
    note TEXT,
    reviewer TEXT,
    utc TEXT NOT NULL
);
CREATE INDEX reviews_by_sequence ON reviews (sequence);
-- The mark that counts now; `reviews` keeps the history.
CREATE TABLE marks (
    sequence INTEGER PRIMARY KEY,
    mark TEXT NOT NULL,
    note TEXT,
    reviewer TEXT,
    utc TEXT NOT NULL
);
CREATE TRIGGER newest_review_counts AFTER INSERT ON reviews BEGIN
    DELETE FROM marks WHERE sequence = NEW.sequence;
    INSERT INTO marks SELECT NEW.sequence, NEW.mark, NEW.note, NEW.reviewer, NEW.utc WHERE NEW.mark <> 'cleared';
END;

CREATE TABLE images (
    sequence INTEGER PRIMARY KEY,
    file TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    is_ok INTEGER NOT NULL
);
CREATE INDEX images_by_class ON images (is_ok, sequence);
"""


def connect(
    path: Path, mode: Literal["rwc", "rw", "ro", "immutable"], *, busy_ms: float, synchronous: str = "NORMAL"
) -> sqlite3.Connection:
    """A connection that several threads may share under a lock, and on which every statement commits by itself.

    Raises sqlite3.Error.
    """
    options = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=busy_ms / 1000.0,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # The server alone moves the log into the file, at a time of its own choosing: see journal_checkpoint.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: only that reaches the disk; elsewhere it means nothing
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def file_identity(path: Path) -> FileIdentity | None:
    """Which file lies under this name now; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_writing(
    path: Path, *, create: bool, busy_ms: float, synchronous: str = "NORMAL", thorough: bool = True
) -> sqlite3.Connection:
    """Open a journal to write; ``create``: make it, and the folders above it, where there is none.

    ``thorough``: look for damage in all of it, unless it is large.
    Raises JournalError: no journal, damaged, of a newer version, read-only, disk full, held by another program.
    """
    with journal_errors(path, "open the journal"):
        if create:
            make_folder(path.parent)
        elif not path.is_file():
            raise _absent(path)
        connection = connect(path, "rwc" if create else "rw", busy_ms=busy_ms, synchronous=synchronous)
        try:
            if _is_blank(connection):
                _create(connection, path)
            _check(connection, path, thorough=thorough)
            # A read-only file opens without a word and fails at the first result: find out now.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except BaseException:
            connection.close()
            raise
        return connection


def open_reading(path: Path, *, busy_ms: float) -> sqlite3.Connection:
    """Open a journal that this process does not write, also while a server does. Raises JournalError."""
    with journal_errors(path, "open the journal"):
        if not path.is_file():
            raise _absent(path)
        try:
            return _checked(path, "ro", busy_ms)
        except sqlite3.OperationalError:
            if path.with_name(path.name + "-wal").exists() or os.access(path.parent, os.W_OK):
                raise
            # Where nothing may be written, not even the index of an empty log, nobody writes: read it as it is.
            return _checked(path, "immutable", busy_ms)


def _checked(path: Path, mode: Literal["ro", "immutable"], busy_ms: float) -> sqlite3.Connection:
    connection = connect(path, mode, busy_ms=busy_ms)
    try:
        _check(connection, path, thorough=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _absent(path: Path) -> JournalError:
    what = "a folder" if path.is_dir() else "no such file"
    return JournalError(f"{path}: {what}; allowed: the journal of a server (serve --journal)")


def _is_blank(connection: sqlite3.Connection) -> bool:
    """Whether nothing has been made in the file yet, also because a server was killed before it could."""
    marks = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    return not any(marks) and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0


def _create(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise JournalError(f"{path}: this place cannot hold a journal (a network share?); allowed: a local disk")
    connection.executescript(
        f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_APPLICATION_ID}; "
        f"PRAGMA user_version = {JOURNAL_VERSION}; INSERT INTO meta VALUES ('id', '{uuid.uuid4().hex}'); COMMIT;"
    )


def _check(connection: sqlite3.Connection, path: Path, *, thorough: bool) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != _APPLICATION_ID:
        raise JournalError(f"{path} is no journal: a SQLite file of another program; move it away or name another")
    if version > JOURNAL_VERSION:
        raise JournalError(
            f"{path}: written by a newer differad-edge (journal version {version}); "
            f"allowed: up to {JOURNAL_VERSION}; update this one, or name another journal"
        )
    if thorough and os.stat(path).st_size <= _CHECKED_BYTES:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            detail = " ".join(str(found).split())
            raise JournalError(f"{path} is damaged: {detail}; move it away or name another")
    connection.execute("SELECT max(sequence) FROM results").fetchone()
