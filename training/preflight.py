"""Before a run: read every pair once, so that hours later no step fails on a file that was bad all the time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from differad_edge.errors import AnswerError, DatasetError, DifferadError
from differad_edge.grounding import checked_thought
from differad_edge.images import load_image
from differad_edge.pairs import Pair, load_pairs
from training.data import truth_of

MAX_BAD_SHARE = 0.01
"""More bad samples than this, and more than one, stop a run: then it is the data set that is wrong, not a sample."""
MAX_ASPECT = 200
"""Qwen-VL's image processor refuses images that are longer than this times their width."""
_NAMED = 5

SizePx = tuple[int, int]
"""Width and height of an image."""
Check = Callable[[Pair, SizePx, SizePx], "str | None"]
"""What else a run asks of a pair, given the sizes of its reference and target: None, or what is wrong with it."""

_log = logging.getLogger(__name__)


def too_many_bad(bad: int, total: int) -> bool:
    """Whether ``bad`` of ``total`` stop a run: one alone never does, as it may be most of a small set."""
    return bad > max(1, int(MAX_BAD_SHARE * total))


def usable_pairs(folders: Sequence[Path], check: Check | None = None) -> tuple[Pair, ...]:
    """The pairs of these sets whose images can be read, whose boxes lie inside their targets, and that pass ``check``.

    A bad one is skipped and named in the log. Raises DatasetError when too many are bad (see `too_many_bad`), and
    PairsError for a folder that is no pair set.
    """
    bad: list[str] = []
    pairs: list[Pair] = []
    for folder in folders:
        pairs += load_pairs(folder, skip=lambda error: bad.append(str(error))).pairs
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves the interpreter's lock
        seen = list(pool.map(_sizes, pairs))
    # One after the other: tokenizers are not made for several threads.
    faults = [
        found if isinstance(found, str) else _fault(pair, *found, check)
        for pair, found in zip(pairs, seen, strict=True)
    ]
    bad += [fault for fault in faults if fault is not None]
    total = len(pairs) + len(bad) - sum(fault is not None for fault in faults)
    for line in bad[:_NAMED]:
        _log.warning("skipped: %s", line)
    if too_many_bad(len(bad), total):
        raise DatasetError(
            f"{len(bad)} of {total} samples are bad, allowed: {MAX_BAD_SHARE:.0%}; the first: "
            + "; ".join(bad[:_NAMED])
        )
    if len(bad) == total:
        raise DatasetError(f"none of {total} samples can be used: {'; '.join(bad[:_NAMED])}")
    if bad:
        _log.warning("%d of %d samples were skipped", len(bad), total)
    return tuple(pair for pair, fault in zip(pairs, faults, strict=True) if fault is None)


def _sizes(pair: Pair) -> tuple[SizePx, SizePx] | str:
    """Of reference and target, or why one of them cannot be read."""
    try:
        height, width = load_image(pair.reference, name=str(pair.reference)).shape[:2]
        target = load_image(pair.target, name=str(pair.target)).shape[:2]
    except DifferadError as error:
        return f"{pair.where}: {error}"
    return (width, height), (target[1], target[0])


def _fault(pair: Pair, reference: SizePx, target: SizePx, check: Check | None) -> str | None:
    width, height = target
    for box in pair.boxes:
        if min(box.x1, box.y1) < 0 or box.x2 > width or box.y2 > height:
            return f"{pair.where}: box {tuple(box)} reaches outside {pair.target} of {width}x{height} px"
    for file, (wide, high) in ((pair.reference, reference), (pair.target, target)):
        if max(wide, high) > MAX_ASPECT * min(wide, high):
            return f"{pair.where}: {file} has {wide}x{high} px, allowed: one side at most {MAX_ASPECT} times the other"
    for kind in pair.defect_types:  # it stands between tags
        if "<" in kind or ">" in kind:
            return f"{pair.where}: field 'defect_types' is {kind[:80]!r}; allowed: texts without < and >"
    try:
        checked_thought(truth_of(pair, width, height).thought)
    except AnswerError as error:
        return f"{pair.where}: {'description' if pair.description else 'defect_types'}: {error}"
    return None if check is None else check(pair, reference, target)
