"""Image files in a folder, in natural order, and those that arrive while somebody waits."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "Arrivals", "image_paths", "natural_key"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_RESCAN_NS = 1_000_000_000  # a file that is overwritten in place does not touch its folder

_State = tuple[int, int, int]  # inode, time of modification, size


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """part2 before part10."""
    words = (word for word in re.split(r"(\d+)", name.lower()) if word)
    return [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in words]


def image_paths(folder: Path) -> list[Path]:
    """The images of a folder in natural order, without sub-folders and hidden files. Raises OSError."""
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _is_image(entry)]
    return sorted(found, key=lambda path: natural_key(path.name))


def _is_image(entry: os.DirEntry[str]) -> bool:
    # A hidden name is how a careful writer calls a file that is not finished.
    return not entry.name.startswith(".") and entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file()


class Arrivals:
    """Files of ``folder`` that are complete and were not taken yet.

    Complete: unchanged for ``settle_ms``. A file that is replaced or written anew under its old name counts as new.
    """

    def __init__(self, folder: Path, settle_ms: float) -> None:
        self._folder, self._settle_ns = folder, round(settle_ms * 1e6)
        self._taken: dict[Path, _State] = {}
        self._growing: dict[Path, tuple[_State, int]] = {}
        self._complete: deque[tuple[Path, _State]] = deque()
        self._listed_ns: int | None = None
        self._folder_ns = -1

    def next(self, now_ns: int) -> Path | None:
        """The first of them by time of modification, then by name; None: there is none now. Raises OSError."""
        if not self._complete:
            self._list(now_ns)
            self._settle(now_ns)
        while self._complete:
            path, state = self._complete.popleft()
            if _state_of(path) == state:
                self._taken[path] = state
                return path
        return None

    def _list(self, now_ns: int) -> None:
        """Files that are new or have changed are growing from now on."""
        folder_ns = self._folder.stat().st_mtime_ns
        if self._listed_ns is not None and now_ns - self._listed_ns < _RESCAN_NS and folder_ns == self._folder_ns:
            return
        self._folder_ns, self._listed_ns = folder_ns, now_ns
        listed = image_paths(self._folder)
        there = set(listed)
        self._taken = {path: state for path, state in self._taken.items() if path in there}
        for path in listed:
            state = _state_of(path)
            if state is not None and path not in self._growing and self._taken.get(path) != state:
                self._growing[path] = (state, now_ns)

    def _settle(self, now_ns: int) -> None:
        """Those that have not changed for long enough are complete."""
        settled: list[tuple[Path, _State]] = []
        for path, (known, since_ns) in list(self._growing.items()):
            state = _state_of(path)
            if state is None:
                del self._growing[path]
            elif state != known:
                self._growing[path] = (state, now_ns)
            elif now_ns - since_ns >= self._settle_ns:
                del self._growing[path]
                settled.append((path, state))
        self._complete.extend(sorted(settled, key=lambda each: (each[1][1], natural_key(each[0].name))))


def _state_of(path: Path) -> _State | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
