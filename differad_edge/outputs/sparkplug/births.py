"""The number of a session, bdSeq: a death that comes late must not be taken for that of the session after it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

__all__ = ["BirthCount"]

_log = logging.getLogger(__name__)

_MAX_FILE_BYTES = 4096


class BirthCount:
    """0 to 255 and again, one further with each connection; over restarts too where there is a ``file`` for it.

    A file that cannot be read or written is logged, and no more: results must not wait for it.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._last = -1 if file is None else self._read(file)

    def next(self) -> int:
        """Of the connection that is about to be made; on the disk before it is."""
        self._last = (self._last + 1) % 256
        if self._file is not None:
            self._write(self._file)
        return self._last

    def _read(self, file: Path) -> int:
        try:
            with file.open("rb") as stored:
                found = json.loads(stored.read(_MAX_FILE_BYTES))["bdSeq"]
            if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 255:
                return found
            raise ValueError(f"got {found!r}, allowed: 0 to 255")
        except FileNotFoundError:
            return -1
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("%s: cannot be read, counted from 0: %s", file, error)
            return -1

    def _write(self, file: Path) -> None:
        temporary = file.with_name(f".{file.name}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="ascii") as stored:
                stored.write(json.dumps({"bdSeq": self._last}) + "\n")
                stored.flush()
                os.fsync(stored.fileno())
            os.replace(temporary, file)
        except OSError as error:
            _log.warning("%s: cannot be written: %s", file, error.strerror)
