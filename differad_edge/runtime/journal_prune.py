"""Deletes what is older than it is kept for, without holding up results and without trusting the wall clock."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

from differad_edge.errors import ConfigError

__all__ = ["Clock", "prune_journal"]

_log = logging.getLogger(__name__)

_CHUNK = 25
"""Results in one transaction: about a millisecond, for which a new result may have to wait."""
_PAUSE_S = 0.01
_TOLERANCE_S = 3600.0

Writing = Callable[[str], AbstractContextManager[sqlite3.Connection]]


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall and monotonic clock read at one moment."""

    utc: str
    monotonic_s: float

    def drift_s(self, since: Clock) -> float:
        """How far the wall clock has been moved since: positive when it runs ahead of the monotonic one."""
        return (_parsed(self.utc) - _parsed(since.utc)).total_seconds() - (self.monotonic_s - since.monotonic_s)


def prune_journal(writing: Writing, keep_days: float, opened: Clock, now: Clock, stop: threading.Event) -> int:
    """Delete results and events older than ``keep_days``; return how many results.

    ``writing``: one transaction of the journal; ``stop``: ends it between two. Raises ConfigError, JournalError.
    """
    if not (math.isfinite(keep_days) and keep_days > 0):
        raise ConfigError(f"keep_days: got {keep_days!r}, allowed: a number above 0")
    drift_s = now.drift_s(opened)
    if abs(drift_s) > _TOLERANCE_S:
        _log.warning("the wall clock was moved by %.0f s: nothing is deleted before the next start", drift_s)
        return 0
    try:
        before = _text(_parsed(now.utc) - timedelta(days=keep_days))
    except OverflowError:
        return 0
    total = 0
    while not stop.is_set():
        with writing("delete old results") as connection:
            results = _delete_results(connection, before)
        with writing("delete old events") as connection:
            events = _delete_events(connection, before)
        total += results
        if not results and not events:
            break
        stop.wait(_PAUSE_S)
    return total


def _delete_results(connection: sqlite3.Connection, before: str) -> int:
    last = _last_old(connection, "SELECT sequence, captured_utc FROM results ORDER BY sequence LIMIT ?", before)
    if last is None:
        return 0
    for table in ("reviews", "marks"):
        connection.execute(f"DELETE FROM {table} WHERE sequence <= ?", (last,))
    return connection.execute("DELETE FROM results WHERE sequence <= ?", (last,)).rowcount


def _delete_events(connection: sqlite3.Connection, before: str) -> int:
    last = _last_old(connection, "SELECT id, utc FROM events ORDER BY id LIMIT ?", before)
    return 0 if last is None else connection.execute("DELETE FROM events WHERE id <= ?", (last,)).rowcount


def _last_old(connection: sqlite3.Connection, oldest: str, before: str) -> int | None:
    """The last of the oldest rows that all lie before; never the newest row of the table, where the count goes on."""
    last = None
    rows = connection.execute(oldest, (_CHUNK + 1,)).fetchall()
    for number, utc in rows[:-1]:
        if utc >= before:
            break
        last = int(number)
    return last


def _parsed(utc: str) -> datetime:
    return datetime.fromisoformat(utc.replace("Z", "+00:00"))


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
