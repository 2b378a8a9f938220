"""What a journal's reviews are good for: pairs for training, and good parts for calibration."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2

from differad_edge.errors import ConfigError, DifferadError, JournalError
from differad_edge.images import Image, load_image, sha256_of_image
from differad_edge.pairs import PAIRS_FILE, Pair, PairSet, write_pairs
from differad_edge.references.store import ReferenceStore
from differad_edge.references.versions import decode, existing_versions, read_version
from differad_edge.results import Box, Verdict
from differad_edge.runtime.journal_reader import JournalReader, StoredResult

__all__ = ["GoodPart", "PairsReport", "export_pairs", "good_parts"]

NO_FRAME = "no frame was kept"
NO_LABEL = "UNDECIDED or ERROR: nobody knows whether the part is good"
NO_BOXES = "OK was overruled: where the defect is has to be drawn first"
NO_REFERENCE = "the golden sample it was compared with is no longer in the store"


@dataclass(frozen=True, slots=True)
class PairsReport:
    """``file``: the pairs.jsonl; ``unreviewed``: of ``written``, labels that are the engine's own word alone;
    ``skipped``: why -> how many."""

    file: Path
    written: int
    unreviewed: int
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class GoodPart:
    """A part that people say is good, and the file of its frame."""

    sequence: int
    file: Path
    was_rejected: bool


def good_parts(reader: JournalReader, product: str, *, without: Iterable[Image] = ()) -> list[GoodPart]:
    """Frames of ``product`` that reviews call good: OK confirmed, NG overruled; each picture once.

    ``without``: images that do not count, such as the references: a calibration refuses them. Raises JournalError.
    """
    seen = {sha256_of_image(image) for image in without}  # not the fingerprint: that needs an extra
    found: list[GoodPart] = []
    for stored in reader.reviewed_good(product):
        sequence = stored.record.sequence
        file = reader.image_file(sequence)
        if file is None:
            continue
        sha256 = sha256_of_image(load_image(file, name=f"frame of result {sequence}"))
        if sha256 not in seen:
            seen.add(sha256)
            found.append(GoodPart(sequence, file, stored.record.verdict is Verdict.NG))
    return found


def export_pairs(
    reader: JournalReader, results: Iterable[StoredResult], store: ReferenceStore, folder: Path
) -> PairsReport:
    """Write a pair set: golden samples, kept frames, boxes, and labels as the reviews corrected them.

    ``folder``: new or empty. A result that has no frame, no certain label or no reference any more is left out and
    counted. Raises ConfigError, JournalError when nothing is left, ReferenceStoreError.
    """
    _check_empty(folder)
    references = _References(store, folder)
    pairs: list[Pair] = []
    skipped: Counter[str] = Counter()
    unreviewed = 0
    try:
        for stored in results:
            pair = _pair(reader, stored, references, folder)
            if isinstance(pair, str):
                skipped[pair] += 1
            else:
                pairs.append(pair)
                unreviewed += stored.review is None
    except OSError as error:
        raise ConfigError(f"--out: {str(folder)!r} cannot be written: {error.strerror}") from error
    if not pairs:
        why = "; ".join(f"{number} x {reason}" for reason, number in skipped.items()) or "no result matches"
        raise JournalError(f"{reader.path}: no pair can be made: {why}")
    file = write_pairs(PairSet(folder, folder.resolve().name, "aligned", 0.0, tuple(pairs)))
    return PairsReport(file, len(pairs), unreviewed, dict(skipped))


def _check_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"--out: {str(folder)!r} cannot be used: {error.strerror}") from error
    if occupied:
        raise ConfigError(f"--out: {str(folder)!r} is not empty; allowed: a new folder for {PAIRS_FILE} and its images")


def _pair(reader: JournalReader, stored: StoredResult, references: _References, folder: Path) -> Pair | str:
    """The pair of one result, or why there is none."""
    record = stored.record
    labelled = _label(stored)
    if isinstance(labelled, str):
        return labelled
    label, boxes = labelled
    source = reader.image_file(record.sequence)
    if source is None:
        return NO_FRAME
    reference = references.file(record.product, record.result.reference_sha256)
    if reference is None:
        return NO_REFERENCE
    target = folder / "target" / f"{record.sequence:010d}.png"
    target.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return NO_FRAME  # a server that runs deleted it this moment
    finding = record.result.findings[0] if boxes else None
    return Pair(
        id=f"{record.sequence:010d}",
        product=record.product or "",
        reference=reference,
        target=target,
        boxes=boxes,
        label=label,
        description=None if finding is None else finding.description or None,
    )


def _label(stored: StoredResult) -> tuple[str, tuple[Box, ...]] | str:
    verdict = stored.record.verdict
    if verdict not in (Verdict.OK, Verdict.NG):
        return NO_LABEL
    overruled = stored.review is not None and stored.review.mark == "overruled"
    if verdict is Verdict.OK:
        return NO_BOXES if overruled else ("OK", ())
    return ("OK", ()) if overruled else ("NG", tuple(finding.box for finding in stored.record.result.findings))


class _References:
    """Golden samples by hash, copied into the set at their first use."""

    def __init__(self, store: ReferenceStore, folder: Path) -> None:
        self._store = store
        self._folder = folder / "reference"
        self._files: dict[tuple[str, str], Path | None] = {}

    def file(self, product: str | None, sha256: str | None) -> Path | None:
        """The copy inside the set; None when the store does not hold this sample any more."""
        if product is None or sha256 is None:
            return None
        key = (product, sha256)
        if key not in self._files:
            self._files[key] = self._copy(product, sha256)
        return self._files[key]

    def _copy(self, product: str, sha256: str) -> Path | None:
        if product not in self._store.product_ids():
            return None
        for number in reversed(existing_versions(self._store.root / product)):
            try:
                stored = decode(*read_version(self._store.root / product, product, number))
            except (DifferadError, FileNotFoundError):  # damaged, or pruned this moment: an older one may do
                continue
            for reference in stored.references:
                if reference.sha256 == sha256:
                    file = self._folder / product / f"{sha256[:16]}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if not cv2.imwrite(os.fspath(file), reference.image):
                        raise OSError(None, "the image cannot be written")
                    return file
        return None
