"""What SQLite and the system say about a journal, as JournalError with the path and the cause."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from differad_edge.errors import JournalError

__all__ = ["error_of", "journal_errors"]

# By SQLite's own words: its numeric codes reach Python only from 3.11 on.
_SQLITE_CAUSES = (
    ("is full", "the disk is full"),
    ("readonly", "it is read-only"),
    ("locked", "another program holds it locked"),
    ("busy", "another program holds it locked"),
)
_SQLITE_DAMAGE = ("malformed", "corrupt", "no such table", "no such column")
_OS_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the largest size of a file is reached",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


@contextmanager
def journal_errors(path: Path, action: str) -> Iterator[None]:
    """Turn what goes wrong in the block into a JournalError; ``action`` goes on after "cannot"."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise error_of(error, path, action) from error


def error_of(error: sqlite3.Error | OSError, path: Path, action: str) -> JournalError:
    """The JournalError for ``error``, which becomes its cause with ``raise ... from``."""
    if isinstance(error, OSError):
        cause = _OS_CAUSES.get(error.errno or 0) or error.strerror or str(error)
        file = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(path)
        return JournalError(f"{file}: cannot {action}: {cause}")
    said = str(error)
    if "not a database" in said:
        return JournalError(f"{path} is no journal: {said}; move it away or name another")
    if any(word in said for word in _SQLITE_DAMAGE):
        return JournalError(f"{path} is damaged: {said}; move it away or name another")
    cause = next((cause for word, cause in _SQLITE_CAUSES if word in said), said)
    return JournalError(f"{path}: cannot {action}: {cause}")
