"""How far an output has come: the sequence number that the other side confirmed last, in a small file."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from differad_edge.errors import OutputError

__all__ = ["Acknowledged"]

_log = logging.getLogger(__name__)

_SAVE_EVERY_S = 0.2
_MAX_FILE_BYTES = 4096


class Acknowledged:
    """A number that only rises, on disk a fifth of a second after the one before, or with the next `advance`.

    A crash in between, or a power cut, leaves an older number, and some results are sent again: at least once, never
    not at all. ``start``: what counts when there is no file yet. Raises OutputError when the file cannot be written.
    """

    def __init__(self, file: Path, start: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        stored = self._read()
        self._sequence = start if stored is None else stored
        self._saved: int | None = None  # also what was there already: a folder that cannot be written shows now
        self._saved_s = clock()
        self.save()

    @property
    def sequence(self) -> int:
        """Of the newest result that is confirmed."""
        return self._sequence

    def advance(self, sequence: int) -> None:
        """All results up to this one are confirmed. A full disk is logged: what follows is sent again, not lost."""
        self._sequence = max(self._sequence, sequence)
        if self._clock() - self._saved_s >= _SAVE_EVERY_S:
            self._saved_s = self._clock()
            try:
                self.save()
            except OutputError as error:
                _log.warning("%s", error)

    def begin_again(self, sequence: int) -> None:
        """The journal is another one, whose numbers begin below."""
        self._sequence = sequence
        self.save()

    def save(self) -> None:
        """Onto the disk, now. Raises OutputError."""
        if self._sequence == self._saved:
            return
        temporary = self._file.with_name(f".{self._file.name}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="ascii") as file:
                file.write(json.dumps({"acknowledged": self._sequence}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file)
        except OSError as error:
            raise OutputError(f"{self._file}: cannot be written: {error.strerror}") from error
        self._saved = self._sequence
        self._saved_s = self._clock()

    def _read(self) -> int | None:
        try:
            with self._file.open("rb") as file:
                found = json.loads(file.read(_MAX_FILE_BYTES))["acknowledged"]
            if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
                return found
            raise ValueError(f"got {found!r}, allowed: a sequence number")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            # Not where the journal ends: what was promised would be lost without a word. All of it again is safe.
            _log.warning("%s: cannot be read, everything is sent again: %s", self._file, error)
            return 0
