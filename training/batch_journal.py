"""What a long run has made so far, so that a killed one goes on where it was.

``OUT/.progress/state.json`` holds the settings and their SHA-256; ``OUT/.progress/journal.jsonl`` has a line for each
item that is done, with the files that it wrote and their sizes. An item whose files are gone or cut is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from differad_edge.errors import DatasetError, TrainingError

PROGRESS_FOLDER = ".progress"
STATE_FILE = "state.json"
JOURNAL_FILE = "journal.jsonl"
_TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True)
class BadSource:
    """A source file that cannot be used; ``why`` is a sentence that names it."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one item.

    ``record``: what the item is, as a JSON object; None when it could not be made, and then ``skipped`` says why.
    ``files``: what it wrote, relative to the output folder, with ``/``. ``bad``: source files it had to pass over.
    """

    record: Mapping[str, Any] | None
    files: tuple[str, ...] = ()
    bad: tuple[BadSource, ...] = ()
    skipped: str | None = None


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step: a reader, or a run after a kill, sees all of it or nothing.

    Raises TrainingError when it cannot be written (disk full, no permission).
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as exc:
        raise TrainingError(f"{path}: cannot be written: {exc.strerror or exc}") from exc


class Journal:
    """The journal of one output folder; open it with `Journal.open`, close it, or use it in ``with``."""

    def __init__(self, out: Path, done: dict[int, Outcome]) -> None:
        self.out = out
        self.done = done
        self._file = out / PROGRESS_FOLDER / JOURNAL_FILE
        self._stream: IO[str] | None = None

    @classmethod
    def open(cls, out: Path, settings: Mapping[str, Any], items: int, *, resume: bool) -> Journal:
        """Take ``out`` for a run of ``items`` with these settings (a JSON object), or go on with the one that it holds.

        Raises DatasetError when ``out`` is a file, holds something else, holds a run with other settings, or holds any
        run and ``resume`` is False; TrainingError when it cannot be written.
        """
        text = _state_text(settings)
        state = out / PROGRESS_FOLDER / STATE_FILE
        try:
            if out.exists() and not out.is_dir():
                raise DatasetError(f"OUT: got {out}, which is a file; allowed: a new or empty folder")
            if not state.is_file():
                # A run that was killed before its first write leaves the empty folder of the progress behind.
                if out.is_dir() and not {entry.name for entry in out.iterdir()} <= {PROGRESS_FOLDER}:
                    raise DatasetError(f"OUT: got {out}, which holds other files; allowed: a new or empty folder")
                replace_file(state, text.encode())
                done: dict[int, Outcome] = {}
            elif not resume:
                raise DatasetError(f"OUT: got {out}, which holds a run; allowed: a new or empty folder")
            else:
                _compare(out, state.read_text(encoding="utf-8", errors="replace"), text)
                _remove_temporaries(out)
                done = _read_done(out, items)
        except OSError as exc:
            raise TrainingError(f"{out}: cannot be read or written: {exc.strerror or exc}") from exc
        journal = cls(out, done)
        journal._rewrite()
        return journal

    def add(self, index: int, outcome: Outcome) -> None:
        """Note that item ``index`` is done; its files must already be in place."""
        self.done[index] = outcome
        try:
            if self._stream is None:
                # Line by line out of Python's hands: a kill loses no item that was noted.
                self._stream = self._file.open("a", encoding="utf-8", newline="\n", buffering=1)
            self._stream.write(_line(self.out, index, outcome))
        except OSError as exc:
            raise TrainingError(f"{self._file}: item {index} cannot be noted: {exc.strerror or exc}") from exc

    def finish(self) -> None:
        """Bring the lines into the items' order, so that the bytes do not tell in which order they were made."""
        self.close()
        self._rewrite()

    def close(self) -> None:
        """End the writing; may be called twice."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Journal:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _rewrite(self) -> None:
        try:
            lines = [_line(self.out, index, self.done[index]) for index in sorted(self.done)]
        except OSError as exc:
            raise TrainingError(f"{exc.filename}: was there and is gone: {exc.strerror}") from exc
        replace_file(self._file, "".join(lines).encode())


def fingerprint(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 hex over the names (relative to ``folder``) and sizes of files: whether a run still has its sources."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{(folder / name).stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _state_text(settings: Mapping[str, Any]) -> str:
    canonical = json.dumps(settings, sort_keys=True, allow_nan=False)
    state = {"sha256": hashlib.sha256(canonical.encode()).hexdigest(), "settings": json.loads(canonical)}
    return json.dumps(state, indent=1, sort_keys=True) + "\n"


def _compare(out: Path, found: str, wanted: str) -> None:
    if found == wanted:
        return
    try:
        before, now = json.loads(found)["settings"], json.loads(wanted)["settings"]
        names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise DatasetError(f"OUT: {out} holds a damaged {STATE_FILE}; allowed: a new or empty folder") from exc
    changes = ", ".join(f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}" for name in names)
    raise DatasetError(f"OUT: {out} holds a run with other settings ({changes}); allowed: the same, or a new folder")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _remove_temporaries(out: Path) -> None:
    for path in out.rglob(f"*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def _line(out: Path, index: int, outcome: Outcome) -> str:
    row = {
        "index": index,
        "record": outcome.record,
        "files": {name: (out / name).stat().st_size for name in outcome.files},
        "bad": [[bad.file, bad.why] for bad in outcome.bad],
        "skipped": outcome.skipped,
    }
    return json.dumps(row, allow_nan=False) + "\n"


def _read_done(out: Path, items: int) -> dict[int, Outcome]:
    """The items whose lines are whole and whose files are all there in full size."""
    done: dict[int, Outcome] = {}
    file = out / PROGRESS_FOLDER / JOURNAL_FILE
    if not file.exists():
        return done
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            index, files, outcome = row["index"], row["files"], _outcome(row)
            if type(index) is not int or not 0 <= index < items:
                continue
            if all((out / name).stat().st_size == size for name, size in files.items()):
                done[index] = outcome
        # The kill hit in mid-line, the line is damaged, or a file is gone.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
            continue
    return done


def _outcome(row: Mapping[str, Any]) -> Outcome:
    """Raises TypeError, KeyError or AttributeError where it is not what `_line` writes."""
    record, skipped, bad = row["record"], row["skipped"], [BadSource(*source) for source in row["bad"]]
    texts = [*row["files"].keys(), *(text for source in bad for text in (source.file, source.why))]
    if not isinstance(record, (dict, type(None))) or not isinstance(skipped, (str, type(None))):
        raise TypeError("record or skipped")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("files or bad")
    return Outcome(record, tuple(row["files"]), tuple(bad), skipped)
