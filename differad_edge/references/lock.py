"""One writer at a time: a lock file that the system lets go of when its holder dies, kill -9 included."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from differad_edge.errors import ReferenceStoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["try_lock", "unlock", "writer_lock"]

_POLL_S = 0.01
_HELD_BY_ANOTHER = frozenset([errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK])


@contextmanager
def writer_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file ``path`` against other threads and processes.

    Raises ReferenceStoreError when another writer holds it for longer than ``timeout_s`` seconds, OSError when the file
    cannot be made. The file stays behind: removing it would let two writers lock two files of one name.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        give_up_s = time.monotonic() + timeout_s
        while not try_lock(descriptor, path):
            if time.monotonic() >= give_up_s:
                raise ReferenceStoreError(f"another process has been writing to the store for over {timeout_s:g} s")
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            unlock(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file without waiting; False when another holds it. Raises OSError that names ``path``."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            # flock, not lockf: lockf belongs to the process, so two threads would both get it.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _HELD_BY_ANOTHER:
            return False
        exc.filename = str(path)
        raise
    return True


def unlock(descriptor: int) -> None:
    """Let go of what `try_lock` took."""
    if sys.platform == "win32":
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
