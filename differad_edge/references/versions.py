"""One version folder of a product: encode, write, read back with every hash checked, decode."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import CorruptReferenceError, ReferenceStoreError
from differad_edge.references.atomic import remove_quietly, sync_folder, temporary_name, write_new_file
from differad_edge.references.checks import NewReference
from differad_edge.references.ids import parse_version_name, version_name
from differad_edge.references.manifest import (
    MANIFEST_NAME,
    Manifest,
    StoredReference,
    manifest_bytes,
    parse_manifest,
)
from differad_edge.references.records import Product, Reference, Roi

__all__ = ["decode", "encode", "existing_versions", "read_version", "write_version"]

# Decoding speed and size hardly change above this level, encoding time does.
_PNG_COMPRESSION = 3


def encode(
    new: Sequence[NewReference], *, first_number: int, roi: Roi | None, ignore: NDArray[np.bool_] | None
) -> tuple[list[StoredReference], dict[str, bytes]]:
    """Return the manifest entries and the files (name -> bytes) of references, numbered from ``first_number``."""
    entries: list[StoredReference] = []
    files: dict[str, bytes] = {}
    ignore_png = None if ignore is None else _png(ignore.astype(np.uint8) * 255)
    for number, reference in enumerate(new, start=first_number):
        image_png = _png(reference.image)
        entry = StoredReference(
            id=f"ref-{number:03d}",
            sha256=hashlib.sha256(image_png).hexdigest(),
            ignore_sha256=None if ignore_png is None else hashlib.sha256(ignore_png).hexdigest(),
            width_px=reference.size[0],
            height_px=reference.size[1],
            roi_px=roi,
            source=reference.source,
        )
        entries.append(entry)
        files[entry.image_file] = image_png
        if ignore_png is not None:
            files[entry.ignore_file] = ignore_png
    return entries, files


def decode(manifest: Manifest, files: Mapping[str, bytes]) -> Product:
    """Return the product in files that ``read_version`` has checked; raises CorruptReferenceError for a bad PNG."""
    references = tuple(
        Reference(
            id=entry.id,
            sha256=entry.sha256,
            image=_pixels(files[entry.image_file], (entry.height_px, entry.width_px, 3), manifest, entry.image_file),
            roi=entry.roi_px,
            ignore=None
            if entry.ignore_sha256 is None
            else _mask(files[entry.ignore_file], (entry.height_px, entry.width_px), manifest, entry.ignore_file),
            source=entry.source,
        )
        for entry in manifest.references
    )
    return Product(
        id=manifest.product,
        version=manifest.version,
        references=references,
        calibration=None if manifest.calibration is None else manifest.calibration.to_calibration(),
        created_utc=manifest.created_utc,
    )


def write_version(product_folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a version folder durably; under its own name it is complete or not there.

    Raises OSError; nothing is left under the final name then, and what is left under a temporary one is swept later.
    """
    name = version_name(manifest.version)
    staging = product_folder / temporary_name(name)
    os.mkdir(staging)
    try:
        for file_name, data in files.items():
            write_new_file(staging / file_name, data)
        write_new_file(staging / MANIFEST_NAME, manifest_bytes(manifest))
        sync_folder(staging)
        os.rename(staging, product_folder / name)
    except BaseException:
        # At once and not at the next sweep: after "disk full" the space is wanted now.
        remove_quietly(staging)
        raise
    sync_folder(product_folder)


def read_version(product_folder: Path, product_id: str, version: int) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the files (name -> bytes) of a version, each checked against its SHA-256.

    Raises CorruptReferenceError on a mismatch, FileNotFoundError when the folder or a file is not there, other OSErrors
    as they come.
    """
    folder = product_folder / version_name(version)
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes(), product_id=product_id, version=version)
    files: dict[str, bytes] = {}
    for entry in manifest.references:
        for file_name, expected in entry.file_hashes.items():
            data = (folder / file_name).read_bytes()
            actual = hashlib.sha256(data).hexdigest()
            if actual != expected:
                raise CorruptReferenceError(
                    f"product '{product_id}' version {version}: {file_name} has SHA-256 {actual[:12]}..., the manifest "
                    f"says {expected[:12]}...; register the product again"
                )
            files[file_name] = data
    return manifest, files


def existing_versions(product_folder: Path) -> list[int]:
    """Return the numbers of all complete version folders, ascending; empty when the product has no folder."""
    try:
        names = os.listdir(product_folder)
    except FileNotFoundError:
        return []
    return sorted(version for name in names if (version := parse_version_name(name)) is not None)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION])
    if not done:
        raise ReferenceStoreError(f"cannot encode an image of shape {pixels.shape} as PNG")
    return data.tobytes()


def _pixels(data: bytes, shape: tuple[int, ...], manifest: Manifest, name: str) -> NDArray[np.uint8]:
    where = f"product '{manifest.product}' version {manifest.version}: {name}"
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as exc:
        raise CorruptReferenceError(f"{where} is not a PNG; register the product again") from exc
    if pixels is None:
        raise CorruptReferenceError(f"{where} is not a PNG; register the product again")
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        raise CorruptReferenceError(f"{where} holds {pixels.dtype} {pixels.shape}; the manifest says uint8 {shape}")
    image: NDArray[np.uint8] = np.ascontiguousarray(pixels, dtype=np.uint8)
    # What was verified stays what it is: nobody draws on a reference by accident.
    image.setflags(write=False)
    return image


def _mask(data: bytes, shape: tuple[int, ...], manifest: Manifest, name: str) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = _pixels(data, shape, manifest, name) != 0
    mask.setflags(write=False)
    return mask
