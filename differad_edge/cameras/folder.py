"""Folders of images, sequences, single images, and folders that somebody drops images into."""

from __future__ import annotations

import glob
import threading
from pathlib import Path
from typing import ClassVar

from differad_edge.cameras.arrivals import IMAGE_SUFFIXES, Arrivals, image_paths, natural_key
from differad_edge.cameras.pacing import Clock
from differad_edge.cameras.pulled import PulledCamera
from differad_edge.errors import (
    CameraEndedError,
    CameraLostError,
    CameraNotFoundError,
    CameraTimeoutError,
    ImageError,
    TornFrameError,
)
from differad_edge.images import Image, load_image

__all__ = ["DropFolderCamera", "FolderCamera"]

_POLL_S = 0.05


class _FileCamera(PulledCamera):
    def _load(self, file: Path) -> tuple[Image, str]:
        try:
            return load_image(file, name="frame"), file.suffix[1:].upper()
        except ImageError as error:
            raise TornFrameError(f"camera {self._source!r}: {error}", self._count()) from error


class FolderCamera(_FileCamera):
    """The images of a folder, of a pattern ("shots/*.png"), or one image, in natural order.

    ``loop``: begin again at the end, instead of CameraEndedError. The files are looked up when it is opened.
    """

    kind: ClassVar[str] = "folder"

    def __init__(
        self, pattern: str, *, loop: bool = False, rate_hz: float | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(pattern, Path(pattern).name or pattern, rate_hz=rate_hz, clock=clock)
        self._loop = loop
        self._files: list[Path] = []
        self._place = 0

    def _connect(self) -> None:
        path = Path(self._source)
        try:
            if path.is_dir():
                self._files = image_paths(path)
            elif path.is_file():
                self._files = [path]
            else:
                self._files = sorted(map(Path, glob.glob(self._source)), key=lambda file: natural_key(str(file)))
        except OSError as error:
            raise CameraNotFoundError(f"camera {self._source!r}: cannot be read: {error.strerror}") from error
        if not self._files:
            raise CameraNotFoundError(
                f"camera {self._source!r}: got no images, allowed: images ({' '.join(IMAGE_SUFFIXES)}), "
                "a folder that holds some, or a pattern that matches some"
            )
        self._place = 0

    def _next(self, timeout_ms: float, stop: threading.Event) -> tuple[Image, str]:
        if self._place == len(self._files) and self._loop:
            self._place = 0
        if self._place == len(self._files):
            raise CameraEndedError(f"camera {self._source!r}: its {len(self._files)} images have been read")
        file = self._files[self._place]
        self._place += 1
        return self._load(file)


class DropFolderCamera(_FileCamera):
    """A folder into which images are written while it is watched; those that lie there already come first.

    A file is read once it has not changed for ``settle_ms``; hidden names are left alone, so that a writer may also
    rename a finished file into place. Opened again, the camera goes on with what it has not read yet.
    """

    kind: ClassVar[str] = "drop-folder"

    def __init__(
        self, folder: Path, *, settle_ms: float = 200.0, rate_hz: float | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(str(folder), folder.name or str(folder), rate_hz=rate_hz, clock=clock)
        self._folder = folder
        self._arrivals = Arrivals(folder, settle_ms)

    def _connect(self) -> None:
        if not self._folder.is_dir():
            raise CameraNotFoundError(f"camera {self._source!r}: no such folder, allowed: a folder to watch")

    def _next(self, timeout_ms: float, stop: threading.Event) -> tuple[Image, str]:
        end_ns = self._clock.now_ns() + timeout_ms * 1e6
        while True:
            now_ns = self._clock.now_ns()
            try:
                file = self._arrivals.next(now_ns)
            except OSError as error:
                raise CameraLostError(f"camera {self._source!r}: cannot be read: {error.strerror}") from error
            if file is not None:
                return self._load(file)
            if now_ns >= end_ns:
                raise CameraTimeoutError(f"camera {self._source!r}: no new image within {timeout_ms:g} ms")
            self._clock.wait(stop, min(_POLL_S, (end_ns - now_ns) / 1e9))
            self._check(stop)
