"""Which frames are kept: their rows in the journal, and which of them go first."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_errors import journal_errors
from differad_edge.runtime.journal_reader import default_images_folder
from differad_edge.runtime.journal_schema import open_reading

__all__ = ["ImageIndex", "KeptImage"]

_BUSY_MS = 2000.0

_OLDEST_OK = (
    "SELECT sequence, file, bytes, 0 FROM images "
    "WHERE is_ok = 1 AND sequence NOT IN (SELECT sequence FROM marks) ORDER BY sequence LIMIT ?"
)
_OLDEST_REVIEWED = (
    "SELECT sequence, file, bytes, 0 FROM images WHERE sequence IN (SELECT sequence FROM marks) "
    "ORDER BY sequence LIMIT ?"
)
_OLDEST_UNSEEN = (
    "SELECT sequence, file, bytes, 1 FROM images "
    "WHERE is_ok = 0 AND sequence NOT IN (SELECT sequence FROM marks) ORDER BY sequence LIMIT ?"
)
_ORPHANS = "SELECT sequence, file, bytes, 0 FROM images WHERE sequence NOT IN (SELECT sequence FROM results)"


@dataclass(frozen=True, slots=True)
class KeptImage:
    """``file``: relative to the folder, with "/"; ``is_unseen``: not OK, and nobody has reviewed it."""

    sequence: int
    file: str
    bytes: int
    is_unseen: bool


class ImageIndex:
    """The table of kept frames. Writes take turns with results; questions, which may be slow, do not.

    Every method raises JournalError.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._reading = open_reading(journal.path, busy_ms=_BUSY_MS)

    def name_folder(self, folder: Path) -> None:
        """Tell readers where the frames lie."""
        default = folder == default_images_folder(self._journal.path)
        with self._journal.background_write("name the folder of the images") as connection:
            if default:  # nothing: the journal and its frames can then be moved together
                connection.execute("DELETE FROM meta WHERE key = 'images_folder'")
            else:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('images_folder', ?)", (os.fspath(folder),))

    def add(self, image: KeptImage, *, is_ok: bool) -> None:
        """Write a row, in place of one that there is."""
        with self._journal.background_write("note a kept image") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO images (sequence, file, bytes, is_ok) VALUES (?, ?, ?, ?)",
                (image.sequence, image.file, image.bytes, int(is_ok)),
            )

    def remove(self, images: Iterable[KeptImage]) -> None:
        """Delete rows."""
        with self._journal.background_write("forget kept images") as connection:
            connection.executemany("DELETE FROM images WHERE sequence = ?", [(image.sequence,) for image in images])

    def all(self) -> list[KeptImage]:
        """Every row."""
        return self._ask("SELECT sequence, file, bytes, 0 FROM images")

    def orphans(self) -> list[KeptImage]:
        """Rows whose result was deleted because of its age."""
        return self._ask(_ORPHANS)

    def first_to_go(self, count: int) -> list[KeptImage]:
        """The oldest OK that nobody has marked; without such the oldest reviewed; without such the oldest others."""
        for sql in (_OLDEST_OK, _OLDEST_REVIEWED, _OLDEST_UNSEEN):
            found = self._ask(sql, count)
            if found:
                return found
        return []

    def close(self) -> None:
        """Close the connection for questions."""
        with self._lock:
            self._reading.close()

    def _ask(self, sql: str, *parameters: int) -> list[KeptImage]:
        with self._lock, journal_errors(self._journal.path, "look up kept images"):
            rows = self._reading.execute(sql, parameters).fetchall()
        return [KeptImage(sequence, file, size, bool(unseen)) for sequence, file, size, unseen in rows]
