"""The labelled pair sets that the student learns from: checked before the run, counted, and known by a hash."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from differad_edge.errors import DatasetError, DifferadError, PairsError
from differad_edge.images import load_image
from differad_edge.pairs import PAIRS_FILE, Pair, PairSet, load_pairs
from training.preflight import too_many_bad, usable_pairs

#: The kind of pair that can be learnt from: the network compares place by place, and nothing here aligns anything.
ALIGNED = "aligned"
_NAMED = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetCounts:
    """What one set gave. ``folder``: its name alone; ``left_out``: lines that are bad or whose images are."""

    name: str
    folder: str
    ok: int
    ng: int
    left_out: int


@dataclass(frozen=True)
class LabelledSets:
    """``pairs`` of all sets in the order given, ``sets`` with their counts.

    ``sha256``: of the bytes of every `pairs.jsonl`, in order, and of the ids that can be used where some cannot, as the
    choice of pairs follows from both. The images themselves are not in it.
    """

    pairs: tuple[Pair, ...]
    sha256: str
    sets: tuple[SetCounts, ...]


def read_labelled_sets(folders: Sequence[Path]) -> LabelledSets:
    """Read these pair sets and look at every image once.

    A bad pair is left out, named in the log and counted. Raises PairsError for a folder that is no pair set or holds
    pairs that are not aligned, DatasetError when more of a set is bad than :func:`training.preflight.too_many_bad`
    lets pass.
    """
    digest = hashlib.sha256()
    pairs: list[Pair] = []
    counts: list[SetCounts] = []
    for folder in folders:
        bad_lines: list[PairsError] = []
        loaded = load_pairs(folder, skip=bad_lines.append)
        _refuse_other_kinds(folder, loaded)
        total = len(loaded.pairs) + len(bad_lines)
        if total == 0:
            raise PairsError(f"{folder / PAIRS_FILE}: no pairs; allowed: at least one line")
        usable = _comparable(folder, usable_pairs([folder]), total)
        digest.update((folder / PAIRS_FILE).read_bytes())
        if len(usable) < total:
            digest.update("\n".join(pair.id for pair in usable).encode())
        good = sum(pair.label == "OK" for pair in usable)
        counts.append(
            SetCounts(loaded.name, folder.resolve().name, good, len(usable) - good, total - len(usable)),
        )
        pairs += usable
    return LabelledSets(tuple(pairs), digest.hexdigest(), tuple(counts))


def _refuse_other_kinds(folder: Path, loaded: PairSet) -> None:
    other = [pair for pair in loaded.pairs if pair.pair != ALIGNED]
    if other:
        raise PairsError(
            f"{folder}: field 'pair' is {other[0].pair!r} in {len(other)} of {len(loaded.pairs)} pairs, first in "
            f"{other[0].where}; allowed: {ALIGNED!r}, as the network compares place by place"
        )


def _comparable(folder: Path, pairs: Sequence[Pair], total: int) -> tuple[Pair, ...]:
    """Those whose pictures and mask are of one size; ``total`` counts all lines of the set."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves the interpreter's lock
        faults = list(pool.map(_fault, pairs))
    usable = tuple(pair for pair, fault in zip(pairs, faults, strict=True) if fault is None)
    named = [fault for fault in faults if fault is not None][:_NAMED]
    for line in named:
        _log.warning("skipped: %s", line)
    if too_many_bad(total - len(usable), total) or not usable:
        raise DatasetError(
            f"{folder}: {total - len(usable)} of {total} pairs cannot be used, allowed: 1 %; " + "; ".join(named)
        )
    return usable


def _fault(pair: Pair) -> str | None:
    try:
        high, wide = load_image(pair.target, name=str(pair.target)).shape[:2]
        for what, file in (("reference", pair.reference), ("mask", pair.mask)):
            if file is None:
                continue
            height, width = load_image(file, name=str(file)).shape[:2]
            if (width, height) != (wide, high):
                return f"{pair.where}: {what}: got {width}x{height} px, allowed: the target's {wide}x{high} px"
    except DifferadError as error:
        return f"{pair.where}: {error}"
    return None
