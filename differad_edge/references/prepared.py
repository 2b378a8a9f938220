"""What an engine computed from a product's references, kept beside them: a cache, rebuilt whatever is wrong with it.

A file is named after the engine and the references it belongs to, so a stale one is never found; its digest covers both
keys in full and all bytes, so a renamed, torn or flipped one is never used. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import ReferenceStoreError
from differad_edge.references.atomic import make_folder, replace_file

__all__ = ["KEEP_PREPARED", "PREPARED_FOLDER", "prune_prepared", "read_prepared", "write_prepared"]

PREPARED_FOLDER = "prepared"
# Engines come and go with every update, and a rebuilt one costs seconds; each file may be megabytes.
KEEP_PREPARED = 4

_log = logging.getLogger(__name__)
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX16 = re.compile(r"[0-9a-f]{16,}")


def read_prepared(folder: Path, engine_fingerprint: str, references_sha256: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that were saved for this engine and these references, or None when there are none to trust."""
    path = folder / _file_name(engine_fingerprint, references_sha256)
    try:
        data = path.read_bytes()
        expected = _digest_path(path).read_bytes()
        if _digest(data, engine_fingerprint, references_sha256) != expected:
            raise ValueError("its SHA-256 does not match")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    except Exception as exc:  # a damaged archive fails in many ways, and every one of them means: rebuild
        _log.warning("prepared references in %s are not used and will be rebuilt: %s", path.name, exc)
        return None


def write_prepared(
    folder: Path, engine_fingerprint: str, references_sha256: str, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Save ``arrays`` (name -> array of any shape and plain dtype) for this engine and these references.

    Raises ReferenceStoreError for a name or dtype that cannot be stored without pickle, OSError from the disk.
    """
    data = _archive(arrays)
    path = folder / _file_name(engine_fingerprint, references_sha256)
    make_folder(folder)
    # Two files are not replaced as one: between them the digest does not match, and a reader rebuilds.
    replace_file(path, data)
    replace_file(_digest_path(path), _digest(data, engine_fingerprint, references_sha256))


def prune_prepared(folder: Path, references_sha256: str | None = None) -> None:
    """Delete all but the ``KEEP_PREPARED`` newest.

    references_sha256: where it is given, what belongs to other references goes too. Raises OSError when something
    cannot be deleted.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    ending = ".npz" if references_sha256 is None else f"-{references_sha256[:16]}.npz"
    wanted = [name for name in names if name.endswith(ending)]
    newest = sorted(wanted, key=lambda name: (folder / name).stat().st_mtime_ns, reverse=True)[:KEEP_PREPARED]
    keep = {*newest, *(_digest_path(Path(name)).name for name in newest)}
    for name in names:
        if name not in keep:
            (folder / name).unlink(missing_ok=True)


def _file_name(engine_fingerprint: str, references_sha256: str) -> str:
    prefix = engine_fingerprint
    if not _HEX16.fullmatch(engine_fingerprint):
        # A plugin's fingerprint may be any text; what becomes a file name may not.
        prefix = hashlib.sha256(engine_fingerprint.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{prefix[:16]}-{references_sha256[:16]}.npz"


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digest(data: bytes, engine_fingerprint: str, references_sha256: str) -> bytes:
    keys = f"{engine_fingerprint}\n{references_sha256}\n".encode("utf-8", "surrogatepass")
    return hashlib.sha256(keys + data).hexdigest().encode("ascii") + b"\n"


def _archive(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    # Not np.savez: it cannot take arrays that are called "file" or "allow_pickle", and stamps the time of day.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            if not isinstance(name, str) or not _ARRAY_NAME.fullmatch(name):
                raise ReferenceStoreError(f"prepared array name {name!r} is not allowed: use A-Z a-z 0-9 _ . -")
            if not isinstance(array, np.ndarray) or array.dtype.hasobject:
                kind = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                raise ReferenceStoreError(f"prepared array '{name}' is {kind}; only arrays of plain numbers are stored")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()
