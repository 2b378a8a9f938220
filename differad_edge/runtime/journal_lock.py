"""One server a journal: a lock file beside it, which the system lets go of when the server dies, kill -9 included."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from differad_edge.errors import JournalInUseError
from differad_edge.references.lock import try_lock, unlock
from differad_edge.runtime.journal_errors import journal_errors

__all__ = ["JournalLock"]

_BYTES = 256


class JournalLock:
    """Held from construction until `close`.

    The file says who holds it. It also remembers the last result that went out without being written down: on a full
    disk bytes can still be changed in place, and the count must go on behind that result even if the server dies.

    Raises JournalInUseError when another server holds it, JournalError when the file cannot be made.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(journal.name + ".lock")
        self._unwritten = 0
        with journal_errors(self._path, "lock the journal"):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            try:
                if not try_lock(self._descriptor, self._path):
                    pid = self._read().get("pid")
                    holder = f"the server with process id {pid}" if isinstance(pid, int) else "another server"
                    raise JournalInUseError(f"{journal}: {holder} writes this journal; stop it or name another")
                unwritten = self._read().get("unwritten")
                self._unwritten = unwritten if isinstance(unwritten, int) else 0
                self._write()
            except BaseException:
                os.close(self._descriptor)
                raise

    @property
    def unwritten(self) -> int:
        """The last sequence number that was used and is not in the journal; 0 when there is none."""
        return self._unwritten

    def remember(self, sequence: int) -> None:
        """Keep ``sequence`` as `unwritten`, as well as the disk allows. Never raises OSError."""
        self._unwritten = max(sequence, self._unwritten)
        with suppress(OSError):
            self._write()

    def close(self) -> None:
        """Let go. The file stays: removing it would let two servers lock two files of one name."""
        with suppress(OSError):
            unlock(self._descriptor)
        with suppress(OSError):
            os.close(self._descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            found = json.loads(os.read(self._descriptor, _BYTES) or b"{}")
        except (OSError, ValueError):  # Windows lets nobody else read what is locked
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        # Always the same length, so that it never needs a new block of the disk.
        text = json.dumps({"pid": os.getpid(), "unwritten": self._unwritten}).ljust(_BYTES - 1) + "\n"
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, text.encode("ascii"))
