"""The golden samples of every product on disk: versioned, hashed, written so that no reader ever sees half a product.

    root/.lock                                   one writer at a time
    root/<id>/CURRENT                            "v000003\\n", replaced in one step
    root/<id>/v000003/manifest.json, *.png       never changed after it has its name; the last three are kept
    root/<id>/prepared/<engine>-<references>.npz what engines computed from the references; may be deleted at any time

Readers take no lock and need no write permission.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from differad_edge.errors import (
    CorruptReferenceError,
    DuplicateReferenceError,
    ProductIdError,
    ReferenceStoreError,
    UnknownProductError,
)
from differad_edge.images import Image
from differad_edge.references.atomic import (
    discard,
    make_folder,
    os_errors_as_store_errors,
    replace_file,
    sweep,
    sync_folder,
)
from differad_edge.references.checks import check_ignore, check_new, check_roi, check_sisters
from differad_edge.references.ids import check_product_id, default_store_root, parse_version_name, version_name
from differad_edge.references.lock import writer_lock
from differad_edge.references.manifest import Manifest, StoredCalibration, StoredReference
from differad_edge.references.prepared import PREPARED_FOLDER, prune_prepared, read_prepared, write_prepared
from differad_edge.references.records import Calibration, Product, Reference, references_digest
from differad_edge.references.versions import decode, encode, existing_versions, read_version, write_version

__all__ = ["KEEP_VERSIONS", "Calibration", "Product", "Reference", "ReferenceStore"]

KEEP_VERSIONS = 3

_log = logging.getLogger(__name__)

_CURRENT = "CURRENT"
_LOCK = ".lock"
_SHOWN_IDS = 10
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class ReferenceStore:
    """Products below one folder.

    root: the folder (made at the first write), default $DIFFERAD_STORE or the user's data folder.
    lock_timeout_s: how long a write waits for another writer, in seconds.

    Safe to share between threads, and between processes on one machine. Every method raises ReferenceStoreError when
    the disk refuses (full, read-only, no permission) and ProductIdError for an id that is no safe folder name.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, *, lock_timeout_s: float = 30.0) -> None:
        self.root = (default_store_root() if root is None else Path(root).expanduser()).absolute()
        self._lock_timeout_s = lock_timeout_s

    def product_ids(self) -> tuple[str, ...]:
        """Return the ids of all registered products, sorted; empty when the store does not exist yet."""
        with os_errors_as_store_errors(self.root, "list the products"):
            try:
                names = os.listdir(self.root)
            except FileNotFoundError:
                return ()
            return tuple(sorted(name for name in names if _is_id(name) and (self.root / name / _CURRENT).is_file()))

    def load(self, product_id: str) -> Product:
        """Return the current version of a product, every file checked against its SHA-256.

        Raises UnknownProductError, and CorruptReferenceError when anything differs from what was written.
        """
        folder = self._folder(product_id)
        with os_errors_as_store_errors(self.root, f"read product '{product_id}'"):
            return decode(*self._read_current(product_id, folder))

    def version(self, product_id: str) -> int:
        """Return the number of a product's current version; reads one small file. Raises what ``load`` raises."""
        folder = self._folder(product_id)
        with os_errors_as_store_errors(self.root, f"read product '{product_id}'"):
            return self._current(product_id, folder)

    def register(
        self,
        product_id: str,
        images: Sequence[Image],
        *,
        roi: Sequence[int] | None = None,
        ignore: NDArray[Any] | None = None,
        sources: Sequence[str] | None = None,
        replace: bool = True,
    ) -> Product:
        """Store golden samples as a new version of a product, without calibration, and return it as it was read back.

        images: HxWx3 uint8 BGR arrays, of one size where roi or ignore is given. roi: (x1, y1, x2, y2) integer
        pixels, x2 and y2 exclusive, at least 16 px a side. ignore: HxW bool or uint8, not 0 = not compared. sources:
        one text for each image, for people. replace: False refuses an id that is registered already.

        Raises ImageError (unusable or blank image), RegionError (roi, ignore), IncompatibleReferenceError (sizes
        differ), DuplicateReferenceError (the same pixels twice, or the id is taken and ``replace`` is False).
        """
        folder = self._folder(product_id)
        new = check_new(images, sources, one_size=roi is not None or ignore is not None)
        checked_roi = check_roi(roi, new[0].size)
        checked_ignore = check_ignore(ignore, new[0].size, checked_roi)
        entries, files = encode(new, first_number=1, roi=checked_roi, ignore=checked_ignore)
        with self._writing(product_id, folder, "register"):
            self._refuse_twin(product_id)
            if not replace and (folder / _CURRENT).exists():
                raise DuplicateReferenceError(f"product '{product_id}' is registered already; replace=True replaces it")
            return self._commit(product_id, folder, entries, files, None)

    def add(self, product_id: str, images: Sequence[Image], *, sources: Sequence[str] | None = None) -> Product:
        """Store more golden samples of a registered product as a new version; they take its ROI and ignore mask.

        The calibration is dropped: it belongs to the scores against the old references alone.
        Raises UnknownProductError, CorruptReferenceError, and what ``register`` raises for images.
        """
        folder = self._folder(product_id)
        new = check_new(images, sources, one_size=False)
        with self._writing(product_id, folder, "add to"):
            manifest, files = self._read_current(product_id, folder)
            product = decode(manifest, files)
            check_sisters(new, product.references)
            first = product.references[0]
            last_number = max(int(entry.id.rpartition("-")[2]) for entry in manifest.references)
            entries, new_files = encode(new, first_number=last_number + 1, roi=first.roi, ignore=first.ignore)
            return self._commit(product_id, folder, [*manifest.references, *entries], {**files, **new_files}, None)

    def set_calibration(
        self, product_id: str, calibration: Calibration, *, expected_version: int | None = None
    ) -> Product:
        """Store a calibration with the current references as a new version.

        expected_version: the version that was calibrated; when the product has moved on since, the calibration is
        refused with ReferenceStoreError. Raises UnknownProductError and CorruptReferenceError.
        """
        folder = self._folder(product_id)
        with self._writing(product_id, folder, "calibrate"):
            manifest, files = self._read_current(product_id, folder)
            if expected_version is not None and manifest.version != expected_version:
                raise ReferenceStoreError(
                    f"product '{product_id}' is at version {manifest.version}, but version {expected_version} was "
                    "calibrated; calibrate again"
                )
            return self._commit(product_id, folder, manifest.references, files, StoredCalibration.of(calibration))

    def restore(self, product_id: str, version: int) -> Product:
        """Make an earlier version current again, as a new one: references and calibration as they were.

        Raises CorruptReferenceError when it is no longer there (KEEP_VERSIONS are kept), UnknownProductError.
        """
        folder = self._folder(product_id)
        with self._writing(product_id, folder, "restore"):
            self._current(product_id, folder)
            try:
                manifest, files = read_version(folder, product_id, version)
            except _NOT_THERE as exc:
                raise _missing(product_id, version, exc) from exc
            return self._commit(product_id, folder, manifest.references, files, manifest.calibration)

    def remove(self, product_id: str) -> None:
        """Delete a product with all its versions, also one that is corrupt. Raises UnknownProductError."""
        folder = self._folder(product_id)
        with self._writing(product_id, folder, "remove"):
            if not (folder / _CURRENT).exists():
                raise self._unknown(product_id)
            discard(folder)
            sync_folder(self.root)

    def load_prepared(self, product: Product, engine_fingerprint: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays saved for this engine and these very references (any calibration), else None.

        None also when they are corrupt or unreadable: the caller prepares again. Never raises for a bad file.
        """
        folder = self._folder(product.id) / PREPARED_FOLDER
        return read_prepared(folder, engine_fingerprint, references_digest(product))

    def save_prepared(self, product: Product, engine_fingerprint: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep what an engine computed from ``product``; arrays: name -> array of any shape and plain dtype.

        Raises ReferenceStoreError (array of objects, disk) and UnknownProductError (removed meanwhile). Inspection can
        go on without the cache.
        """
        folder = self._folder(product.id)
        with self._writing(product.id, folder, "save what is prepared for"):
            if not (folder / _CURRENT).exists():
                raise self._unknown(product.id)
            write_prepared(folder / PREPARED_FOLDER, engine_fingerprint, references_digest(product), arrays)
            with _tidying():
                prune_prepared(folder / PREPARED_FOLDER)

    def _folder(self, product_id: str) -> Path:
        return self.root / check_product_id(product_id)

    def _current(self, product_id: str, folder: Path) -> int:
        try:
            data = (folder / _CURRENT).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise self._unknown(product_id) from exc
        name = data[:-1].decode("ascii", "replace") if data.endswith(b"\n") else ""
        version = parse_version_name(name)
        if version is None:
            raise CorruptReferenceError(
                f"product '{product_id}': {_CURRENT} holds {data[:40]!r}; a version such as b'v000001\\n' is expected; "
                "register the product again"
            )
        return version

    def _read_current(self, product_id: str, folder: Path) -> tuple[Manifest, dict[str, bytes]]:
        version = self._current(product_id, folder)
        try:
            return read_version(folder, product_id, version)
        except _NOT_THERE as exc:
            # A reader without a lock may be overtaken by writers that prune the version it has just looked up.
            newer = self._current(product_id, folder)
            if newer == version:
                raise _missing(product_id, version, exc) from exc
        try:
            return read_version(folder, product_id, newer)
        except _NOT_THERE as exc:
            raise _missing(product_id, newer, exc) from exc

    @contextmanager
    def _writing(self, product_id: str, folder: Path, action: str) -> Iterator[None]:
        with os_errors_as_store_errors(self.root, f"{action} product '{product_id}'"):
            make_folder(self.root)
            with writer_lock(self.root / _LOCK, self._lock_timeout_s):
                for swept in (self.root, folder, folder / PREPARED_FOLDER):
                    sweep(swept)
                yield

    def _commit(
        self,
        product_id: str,
        folder: Path,
        references: Sequence[StoredReference],
        files: Mapping[str, bytes],
        calibration: StoredCalibration | None,
    ) -> Product:
        """Write a version, make it current, and return what a reader now reads. The caller holds the lock."""
        # Never a number that a folder bears already: one that a killed writer left was perhaps seen as current.
        version = max(existing_versions(folder), default=0) + 1
        manifest = Manifest(
            product=product_id,
            version=version,
            created_utc=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            references=tuple(references),
            calibration=calibration,
        )
        make_folder(folder)
        # Also when it was there: a writer killed between making it and this line has not made it durable.
        sync_folder(self.root)
        write_version(folder, manifest, files)
        replace_file(folder / _CURRENT, f"{version_name(version)}\n".encode("ascii"))
        product = decode(*read_version(folder, product_id, version))
        with _tidying():
            for old in existing_versions(folder)[:-KEEP_VERSIONS]:
                discard(folder / version_name(old))
            prune_prepared(folder / PREPARED_FOLDER, references_digest(product))
        return product

    def _refuse_twin(self, product_id: str) -> None:
        # Where the file system ignores case they would be one product; a store may be copied to such a machine.
        for other in self.product_ids():
            if other != product_id and other.lower() == product_id.lower():
                raise ProductIdError(f"product id '{product_id}' differs from '{other}' only in upper and lower case")

    def _unknown(self, product_id: str) -> UnknownProductError:
        known = self.product_ids()
        shown = ", ".join(known[:_SHOWN_IDS]) or "no product"
        if len(known) > _SHOWN_IDS:
            shown += f" and {len(known) - _SHOWN_IDS} more"
        return UnknownProductError(f"product '{product_id}' is not registered; the store holds: {shown}")


@contextmanager
def _tidying() -> Iterator[None]:
    """Log an OSError of the block: what is written stays written, and the next write tidies again."""
    try:
        yield
    except OSError as exc:
        _log.warning("cannot delete old files of the reference store: %s", exc)


def _is_id(name: str) -> bool:
    try:
        check_product_id(name)
    except ProductIdError:
        return False
    return True


def _missing(product_id: str, version: int, exc: OSError) -> CorruptReferenceError:
    name = Path(os.fsdecode(exc.filename)).name if exc.filename else "a file"
    return CorruptReferenceError(
        f"product '{product_id}' version {version}: {name} is missing or no file; register the product again"
    )
