"""The folder of kept frames: PNG files by day, written in one step, and nobody else's files touched."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import cv2

from differad_edge.errors import JournalError
from differad_edge.images import Image
from differad_edge.references.atomic import is_leftover, make_folder, remove_quietly, replace_file
from differad_edge.runtime.journal_errors import journal_errors
from differad_edge.runtime.record import ResultRecord

__all__ = ["ImageFolder"]

_OWNER = "journal-id"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_FILE = re.compile(r"\d{10,}-[A-Z]+\.png")


class ImageFolder:
    """``journal_id``: whose frames these are. Raises JournalError when they are another journal's: they would be swept.

    ``durable``: files also survive a power cut.
    """

    def __init__(self, root: Path, journal_id: str, *, durable: bool) -> None:
        self.root = root
        self._journal_id = journal_id
        self._durable = durable
        with journal_errors(root, "use the folder of the images"):
            owner = self._owner()
        if owner not in (None, journal_id):
            raise JournalError(f"{root}: holds the images of another journal; move it away or name another folder")

    def prepare(self) -> None:
        """Make the folder and claim it. Raises OSError."""
        make_folder(self.root)
        if self._owner() is None:
            replace_file(self.root / _OWNER, self._journal_id.encode("ascii"))

    def write(self, record: ResultRecord, image: Image) -> tuple[str, int]:
        """Write one frame, HxWx3 uint8 BGR; return its name inside the folder and its size in bytes.

        Raises OSError, cv2.error.
        """
        done, data = cv2.imencode(".png", image)  # its default is as fast as any level and filter, and smaller
        if not done:
            raise OSError("the image cannot be encoded as PNG")
        day = record.captured_utc[:10]
        name = f"{day if _DAY.fullmatch(day) else '0000-00-00'}/{record.sequence:010d}-{record.verdict.value}.png"
        file = self.root / name
        if not file.parent.is_dir():
            make_folder(file.parent)
        replace_file(file, data.tobytes(), durable=self._durable)
        return name, len(data)

    def delete(self, name: str) -> None:
        """Delete a frame, and the folder of its day when it was the last. Raises OSError."""
        file = self.root / name
        file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: the usual case
            file.parent.rmdir()

    def sweep(self, known: set[str]) -> set[str]:
        """Delete unfinished writes and frames that are not ``known``; return the names that lie here.

        Raises OSError.
        """
        present: set[str] = set()
        for day in os.scandir(self.root):
            if is_leftover(day.name):
                remove_quietly(Path(day.path))
            if not (_DAY.fullmatch(day.name) and day.is_dir(follow_symlinks=False)):
                continue
            for file in os.scandir(day.path):
                name = f"{day.name}/{file.name}"
                if name in known:
                    present.add(name)
                elif is_leftover(file.name) or _FILE.fullmatch(file.name):
                    self.delete(name)
        return present

    def _owner(self) -> str | None:
        try:
            return (self.root / _OWNER).read_text("utf-8", "replace").strip() or None
        except FileNotFoundError:
            return None
