"""What a teacher is asked about: pair sets with or without their truth, or a folder of parts beside a golden sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from differad_edge.errors import DatasetError, PairsError
from differad_edge.pairs import load_pairs
from differad_edge.results import Box
from training.batch_journal import BadSource
from training.preflight import too_many_bad

__all__ = ["Question", "of_pair_sets", "of_parts"]

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Question:
    """One pair. ``truth``: its boxes in pixels of the target, none for a good part; None where nothing is known.

    ``kind``: "aligned" or "same_class", as in a pair set.
    """

    id: str
    product: str
    reference: Path
    target: Path
    truth: tuple[Box, ...] | None = None
    kind: str = "aligned"


def of_pair_sets(folders: Sequence[Path], *, use_truth: bool) -> tuple[tuple[Question, ...], tuple[BadSource, ...]]:
    """The pairs of these sets; lines that are none, apart. An id that two sets have gets the set's name before it.

    Raises DatasetError where too many lines are bad, PairsError for a folder that is no pair set.
    """
    bad: list[BadSource] = []
    found: list[Question] = []
    known: set[str] = set()
    for folder in folders:
        errors: list[PairsError] = []
        read = load_pairs(folder, skip=errors.append)
        bad += [BadSource(str(error).split(":")[0], str(error)) for error in errors]
        for pair in read.pairs:
            name = pair.id if pair.id not in known else f"{read.name}-{pair.id}"
            if name in known:
                raise DatasetError(f"{pair.where}: id {pair.id!r} comes a third time; allowed: sets of other names")
            known.add(name)
            truth = pair.boxes if use_truth else None
            found.append(Question(name, pair.product, pair.reference, pair.target, truth, pair.pair))
    if too_many_bad(len(bad), len(bad) + len(found)):
        raise DatasetError(f"{len(bad)} of {len(bad) + len(found)} lines are bad; the first: {bad[0].why}")
    return tuple(found), tuple(bad)


def of_parts(golden: Path, parts: Path, product: str | None) -> tuple[Question, ...]:
    """Every picture below ``parts`` beside one golden sample; nothing is known of them.

    ``product``: None for the folder's name. Raises DatasetError where there is no golden sample or no part.
    """
    if not golden.is_file():
        raise DatasetError(f"--golden: got {golden}, allowed: an image file")
    if not parts.is_dir():
        raise DatasetError(f"--parts: got {parts}, allowed: a folder of images")
    files = sorted(file for file in parts.rglob("*") if file.suffix.lower() in _PICTURES and file.is_file())
    files = [file for file in files if file.resolve() != golden.resolve()]
    if not files:
        raise DatasetError(f"--parts: {parts} holds no image; allowed: {', '.join(sorted(_PICTURES))}")
    name = product or parts.resolve().name
    return tuple(Question(f"{name}/{file.relative_to(parts).as_posix()}", name, golden, file) for file in files)
