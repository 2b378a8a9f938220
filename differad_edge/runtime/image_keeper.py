"""Keeps the frames of results on disk, within a budget, without ever holding up a result."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from differad_edge.errors import JournalError
from differad_edge.images import Image
from differad_edge.results import Verdict
from differad_edge.runtime.image_folder import ImageFolder
from differad_edge.runtime.image_index import ImageIndex, KeptImage
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_reader import default_images_folder
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.settings import ImageSettings

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DISK_ALARM", "DROP_ALARM", "UNSEEN_ALARM", "ImageKeeper", "OnAlarm"]

_log = logging.getLogger(__name__)

DROP_ALARM = "images-dropped"
"""Frames come faster than they can be written."""
DISK_ALARM = "images-not-written"
"""The disk is full, or refuses for another reason."""
UNSEEN_ALARM = "unreviewed-images-deleted"
"""The budget is used up by bad parts that nobody has reviewed, and the oldest of them go."""

OnAlarm = Callable[[str, str | None], None]
"""``(code, message)`` when an alarm begins, ``(code, None)`` when it is over; called from the keeper's thread."""

_MB = 1_000_000
_ROOM = 0.95
"""Share of the budget that is left when something had to go: not one deletion, and one event, for every new frame."""
_BATCH = 16
_MOST_FAILURES = 1000
_TIDY_PERIOD_S = 600.0
_BACKGROUND_NICENESS = 10


@dataclass(slots=True)
class _Totals:
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    deleted: int = 0
    deleted_unseen: int = 0


class ImageKeeper:
    """Frames of results that are not OK (or of all), as PNG files beside the journal.

    ``on_alarm``: see OnAlarm. ``queue_mb``: frames that wait in memory, in MB of pixels. What is lost is also written
    into the journal, as events of the kind "image-loss" with the sequence numbers.

    Raises JournalError when the folder holds the frames of another journal.
    """

    def __init__(self, journal: Journal, settings: ImageSettings, *, on_alarm: OnAlarm, queue_mb: float = 64.0) -> None:
        root = default_images_folder(journal.path) if settings.folder is None else settings.folder.expanduser()
        self.folder = Path(os.path.realpath(root))
        self._journal = journal
        self._keep = settings.keep
        self._budget_bytes = settings.budget_mb * _MB
        self._queue_bytes = queue_mb * _MB
        self._on_alarm = on_alarm
        self._disk = ImageFolder(self.folder, journal.id, durable=journal.durability == "power")
        self._index = ImageIndex(journal)
        self._ready = threading.Condition()
        self._waiting: deque[tuple[ResultRecord, Image]] = deque()
        self._waiting_bytes = 0
        self._dropped: list[int] = []
        self._failed: list[int] = []
        self._ending = False
        self._alarms: set[str] = set()
        self._totals = _Totals()
        self._total_bytes: int | None = None  # None: the folder has not been looked through yet
        self._thread = threading.Thread(target=self._run, name="image-keeper", daemon=True)
        self._thread.start()

    def offer(self, record: ResultRecord, image: Image) -> bool:
        """Take the frame of a result, HxWx3 uint8 BGR, which nobody writes to from now on. Returns at once.

        False: it is not one to be kept, or there is no room and it was dropped and counted. A result that is not in the
        journal has no place for its frame; the journal's own gap names it.
        """
        if self._keep == "none" or (self._keep == "ng" and record.verdict is Verdict.OK) or not record.journaled:
            return False
        with self._ready:
            # One that is larger than the queue still goes through, alone.
            fits = self._waiting_bytes + image.nbytes <= self._queue_bytes or not self._waiting
            if fits and not self._ending:
                self._waiting.append((record, image))
                self._waiting_bytes += image.nbytes
            else:
                fits = False
                self._totals.dropped += 1
                self._dropped.append(record.sequence)
            self._ready.notify_all()
        return fits

    def stats(self) -> dict[str, Any]:
        """Counts since the start (``kept``, ``dropped``, ``failed``, ``deleted``, ``deleted_unseen``), and ``bytes`` on
        disk (None: not known yet), ``waiting`` frames and ``waiting_bytes`` in memory."""
        with self._ready:
            totals = {name: getattr(self._totals, name) for name in _Totals.__slots__}
            waiting = {"waiting": len(self._waiting), "waiting_bytes": self._waiting_bytes}
        return {**totals, "bytes": self._total_bytes, **waiting}

    def flush(self, timeout_s: float) -> bool:
        """Wait until no frame waits any more; False when ``timeout_s`` is over first."""
        with self._ready:
            return self._ready.wait_for(lambda: not (self._waiting or self._dropped), timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, within ``timeout_s``, and end the thread. To be called before the journal is closed."""
        with self._ready:
            self._ending = True
            self._ready.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            with self._ready:
                lost = [record.sequence for record, _ in self._waiting]
                self._totals.dropped += len(lost)
                self._dropped += lost
                self._waiting.clear()
            _log.warning("%d images were not written in time: results %s", len(lost), _ranges(lost))
            self._thread.join(timeout_s)
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if sys.platform == "linux":
            with suppress(OSError):  # encoding must not take the processor from the inspection
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICENESS)
        self._works(self._tidy)
        tidied_s = time.monotonic()
        while True:
            item, dropped, ending = self._next()
            if dropped:
                self._tell_of_drops(dropped)
            if item is not None:
                self._take(*item)
            elif DROP_ALARM in self._alarms:
                self._alarm(DROP_ALARM, None)
            elif ending:
                self._tell_of_failures()
                return
            if time.monotonic() - tidied_s >= _TIDY_PERIOD_S:
                tidied_s = time.monotonic()
                self._works(self._forget_pruned)

    def _next(self) -> tuple[tuple[ResultRecord, Image] | None, list[int], bool]:
        """The frame that is first, which stays first until it is written; what was dropped; whether this is the end."""
        with self._ready:
            self._ready.wait_for(
                lambda: self._waiting or self._dropped or self._ending or DROP_ALARM in self._alarms, _TIDY_PERIOD_S
            )
            dropped, self._dropped = self._dropped, []
            return (self._waiting[0] if self._waiting else None), dropped, self._ending

    def _take(self, record: ResultRecord, image: Image) -> None:
        if self._works(lambda: self._store(record, image)):
            self._tell_of_failures()
            self._alarm(DISK_ALARM, None)
        else:
            self._totals.failed += 1
            self._failed.append(record.sequence)
            if len(self._failed) >= _MOST_FAILURES:  # days of a full disk
                self._tell_of_failures()
        with self._ready:
            if self._waiting:  # `close` may have emptied it
                self._waiting.popleft()
            self._waiting_bytes = sum(waiting.nbytes for _, waiting in self._waiting)
            self._ready.notify_all()

    def _works(self, work: Callable[[], None]) -> bool:
        """Whatever goes wrong with one frame: it is said, and the next one is tried."""
        try:
            work()
        except Exception as error:
            if not isinstance(error, (OSError, JournalError)):
                _log.exception("an image could not be kept")
            cause = str(error) if isinstance(error, JournalError) else f"{self.folder}: {error}"
            self._alarm(DISK_ALARM, f"frames are not kept: {cause}")
            return False
        return True

    def _store(self, record: ResultRecord, image: Image) -> None:
        if self._total_bytes is None:  # the disk refused at the start
            self._tidy()
        name, size = self._disk.write(record, image)
        is_ok = record.verdict is Verdict.OK
        try:
            self._index.add(KeptImage(record.sequence, name, size, not is_ok), is_ok=is_ok)
        except JournalError:
            self._disk.delete(name)
            raise
        self._totals.kept += 1
        self._total_bytes = (self._total_bytes or 0) + size
        if self._total_bytes > self._budget_bytes:
            self._make_room()
        else:
            self._alarm(UNSEEN_ALARM, None)

    def _make_room(self) -> None:
        unseen: list[int] = []
        while self._total_bytes is not None and self._total_bytes > self._budget_bytes * _ROOM:
            going = self._index.first_to_go(_BATCH)
            surplus, chosen = self._total_bytes - self._budget_bytes * _ROOM, list[KeptImage]()
            for image in going:
                if surplus <= 0:
                    break
                chosen.append(image)
                surplus -= image.bytes
            if not chosen:
                break
            unseen += [image.sequence for image in chosen if image.is_unseen]
            self._delete(chosen)
        if unseen:
            self._totals.deleted_unseen += len(unseen)
            self._note("unreviewed-deleted", unseen, {"budget_mb": self._budget_bytes / _MB})
            self._alarm(
                UNSEEN_ALARM,
                f"{self.folder}: the budget of {self._budget_bytes / _MB:g} MB is used up: frames of bad parts that "
                f"nobody has reviewed are deleted, the oldest first (results {_ranges(unseen)}); review them or raise "
                "budget_mb",
            )
        else:
            self._alarm(UNSEEN_ALARM, None)

    def _delete(self, images: list[KeptImage]) -> None:
        # The rows first: a file without a row is swept at the next start, a row without a file would be a lie.
        self._index.remove(images)
        for image in images:
            self._disk.delete(image.file)
            self._total_bytes = max(0, (self._total_bytes or 0) - image.bytes)
            self._totals.deleted += 1

    def _tidy(self) -> None:
        """Once after the start: bring folder and table together after whatever ended the last run."""
        self._disk.prepare()
        self._index.name_folder(self.folder)
        rows = self._index.all()
        present = self._disk.sweep({row.file for row in rows})
        gone = [row for row in rows if row.file not in present]
        if gone:
            self._index.remove(gone)
            self._note("files-missing", [row.sequence for row in gone], {})
        self._total_bytes = sum(row.bytes for row in rows if row.file in present)
        self._forget_pruned()
        if self._total_bytes > self._budget_bytes:
            self._make_room()

    def _forget_pruned(self) -> None:
        orphans = self._index.orphans()
        if orphans:
            self._delete(orphans)

    def _tell_of_drops(self, sequences: list[int]) -> None:
        self._note("dropped", sequences, {})
        self._alarm(
            DROP_ALARM, f"{self.folder}: frames come faster than they are written; dropped: {_ranges(sequences)}"
        )

    def _tell_of_failures(self) -> None:
        if self._failed:
            self._note("not-written", self._failed, {})
            self._failed = []

    def _note(self, code: str, sequences: list[int], detail: dict[str, Any]) -> None:
        try:
            self._journal.append_event("image-loss", None, code, {"sequences": sequences, **detail})
        except JournalError as error:
            _log.warning("images of results %s were lost (%s), and: %s", _ranges(sequences), code, error)

    def _alarm(self, code: str, message: str | None) -> None:
        if (message is not None) == (code in self._alarms):
            return
        (self._alarms.discard if message is None else self._alarms.add)(code)
        try:
            self._on_alarm(code, message)
        except Exception:
            _log.exception("the listener of the alarm %s failed", code)


def _ranges(sequences: list[int]) -> str:
    """ "3-5, 9": for people."""
    parts: list[list[int]] = []
    for number in sequences:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts[:20]) + (", ..." if len(parts) > 20 else "")
