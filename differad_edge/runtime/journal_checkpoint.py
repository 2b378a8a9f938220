"""Moves the log into the file from a thread of its own, so that no result waits for the disk."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

from differad_edge.runtime.journal_schema import connect

__all__ = ["Checkpointer"]

_log = logging.getLogger(__name__)

_COMMITS = 250
"""After so many: a log of a few MB."""
_LONG_LOG_PAGES = 16_384
"""64 MB. So long it gets only when commits never pause."""
_RETRY_S = 2.0
_BUSY_MS = 100.0


class Checkpointer:
    """A checkpoint copies the log's pages into the file and waits for the disk; writers and readers go on meanwhile.

    SQLite would do it inside the commit that makes the log too long, and that result would wait. Nobody else does it:
    every other connection has its automatic checkpoints off. None follows a complete one without a commit between them:
    up to SQLite 3.51.2 that could lose pages if a commit came at the same instant (the "WAL-reset bug").

    ``writer``: the lock under which results are written.
    """

    def __init__(self, path: Path, writer: threading.Lock) -> None:
        self._path = path
        self._writer = writer
        self._commits = 0  # counted by the holders of `writer`
        self._copied = 0  # counted by the thread
        self._wake = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-checkpoint", daemon=True)

    def start(self) -> None:
        """Begin; before that, commits are only counted."""
        self._thread.start()

    def committed(self) -> None:
        """One more commit; the caller holds the writer's lock. Costs a count."""
        self._commits += 1
        if self._commits - self._copied >= _COMMITS:
            self._wake.set()

    def close(self) -> None:
        """End the thread; what is left in the log is copied when the last connection closes."""
        self._end.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._end.is_set():
                return
            self._wake.clear()
            commits = self._commits
            try:
                self._checkpoint()
            except sqlite3.Error as error:
                # Most likely a full disk. The results are safe in the log, which grows until there is space again.
                _log.warning("%s: its log cannot be shortened now: %s", self._path, error)
                self._end.wait(_RETRY_S)
                self._wake.set()
            else:
                self._copied = commits

    def _checkpoint(self) -> None:
        connection = connect(self._path, "rw", busy_ms=_BUSY_MS)
        try:
            _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if copied < pages and pages > _LONG_LOG_PAGES:
                # The log starts over only when nothing came in during a checkpoint. What is left to copy is little.
                with self._writer:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            connection.close()
