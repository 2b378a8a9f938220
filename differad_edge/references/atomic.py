"""Durable file operations: what they return from survives a power cut, what they fail in leaves the old state.

Every function raises OSError with ``filename`` set, so that ``os_errors_as_store_errors``, the boundary, can name it.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from differad_edge.errors import ReferenceStoreError

__all__ = [
    "discard",
    "is_leftover",
    "make_folder",
    "os_errors_as_store_errors",
    "remove_quietly",
    "replace_file",
    "sweep",
    "sync_folder",
    "temporary_name",
    "write_new_file",
]

_log = logging.getLogger(__name__)

_TEMPORARY = ".tmp-"
_TRASH = ".trash-"

_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


@contextmanager
def os_errors_as_store_errors(root: Path, action: str) -> Iterator[None]:
    """Turn an OSError of the block into a ReferenceStoreError that names the path inside ``root`` and the cause."""
    try:
        yield
    except OSError as exc:
        cause = _CAUSES.get(exc.errno or 0) or exc.strerror or str(exc)
        raise ReferenceStoreError(f"cannot {action}: {_shown_path(exc.filename, root)}: {cause}") from exc


def temporary_name(for_name: str) -> str:
    """Return a name that no reader looks at and that ``sweep`` removes; it lies beside what it will become."""
    return f"{_TEMPORARY}{for_name}-{secrets.token_hex(4)}"


def is_leftover(name: str) -> bool:
    """Tell whether ``name`` is one that only an unfinished write or removal leaves behind."""
    return name.startswith((_TEMPORARY, _TRASH))


def make_folder(folder: Path) -> bool:
    """Create ``folder`` and what is missing above it, durably; return whether it was missing."""
    if folder.is_dir():
        return False
    make_folder(folder.parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    sync_folder(folder.parent)
    return True


def write_new_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``path``, which must not exist yet; ``durable``: wait until the disk has it."""
    with _named(path), open(path, "xb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk (Windows has no such call: there it does nothing)."""
    if os.name == "nt":
        return
    with _named(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Give ``path`` the content ``data`` in one step: a reader sees all of the old or all of the new.

    ``durable``: also after a power cut; False spares the wait for the disk.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        write_new_file(temporary, data, durable=durable)
        with _named(path):
            os.replace(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def discard(path: Path) -> None:
    """Take ``path`` (file or folder) out of sight in one step, then delete it.

    Raises OSError when it cannot be taken out of sight. What cannot be deleted after that stays for ``sweep``.
    """
    trash = path.with_name(f"{_TRASH}{path.name}-{secrets.token_hex(4)}")
    with _named(path):
        os.rename(path, trash)
    remove_quietly(trash)


def sweep(folder: Path) -> None:
    """Delete what killed writers left in ``folder``; only for the holder of the writer lock. Never raises OSError."""
    try:
        names = os.listdir(folder)
    except OSError as exc:
        if not isinstance(exc, FileNotFoundError):
            _log.warning("cannot look for leftovers in %s: %s", folder, exc)
        return
    for name in names:
        if is_leftover(name):
            remove_quietly(folder / name)


def remove_quietly(path: Path) -> None:
    """Delete a file or folder that no reader looks at; what cannot be deleted is logged and left for ``sweep``."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as exc:
        _log.warning("left behind %s: %s", path, exc)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an OSError the name of the file: write and fsync work on a descriptor and know none."""
    try:
        yield
    except OSError as exc:
        if exc.filename is None:
            exc.filename = str(path)
        raise


def _shown_path(filename: object, root: Path) -> str:
    if not isinstance(filename, (str, bytes)):
        return "the store"
    path = Path(os.fsdecode(filename))
    try:
        inside = path.relative_to(root)
    except ValueError:
        return str(path)
    return "the store's own folder" if inside == Path(".") else inside.as_posix()
