"""From two maps of how far a part is from good ones to candidates, in the picture's own frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.base import Candidate
from differad_edge.results import Box

__all__ = ["Growth", "candidates_in", "score_of", "without_echoes"]

Plane = NDArray[np.float32]

_MOST_CANDIDATES = 200  # of a part: more say that it is unlike altogether


def score_of(ratio: float) -> float:
    """0 to 1 from a distance over the limit of good parts: 0.5 at the limit, never 1."""
    return ratio / (1.0 + ratio)


@dataclass(frozen=True)
class Growth:
    """How far a place reaches: to ``least`` of the limit, and to ``share`` of its peak where that is more.

    The rim of a defect is weaker than its middle (hysteresis); around a strong one even what lies beside it is warm.
    Gaps of up to ``bridge_cells`` do not split a place.
    """

    least: float
    share: float
    bridge_cells: int


def candidates_in(ratio: Plane, size: tuple[int, int], growth: Growth, what: str) -> list[Candidate]:
    """The places of ``ratio`` (h, w; 1 is the limit of good parts) as far as ``growth`` says, with their peaks' scores.

    Places below the limit are told too: the threshold may lie there. ``size``: (width, height) px. ``what``: what the
    map tells, for the description.
    """
    found = []
    for (left, top), place in _places(ratio, growth.least, growth.bridge_cells):
        least = max(growth.least, growth.share * float(place.max()))
        for (right, down), values in _places(place, least, growth.bridge_cells):
            peak = float(values.max())
            candidate = _candidate(values > 0, (left + right, top + down), peak, ratio, size)
            found.append(replace(candidate, description=what.format(peak)))
    return found


def _places(ratio: Plane, least: float, bridge_cells: int) -> Iterator[tuple[tuple[int, int], Plane]]:
    """((column, row) of the corner, the values inside and 0 elsewhere) of each place that reaches ``least``."""
    warm = (ratio >= least).astype(np.uint8)
    joined = warm
    if bridge_cells:
        kernel = np.ones((bridge_cells + 1, bridge_cells + 1), np.uint8)
        joined = np.maximum(warm, cv2.morphologyEx(warm, cv2.MORPH_CLOSE, kernel))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    for index, stat in enumerate(np.asarray(stats)[1:], 1):
        left, top, width, height = (int(v) for v in stat[:4])
        window = (slice(top, top + height), slice(left, left + width))
        inside = (np.asarray(labels)[window] == index) & (warm[window] > 0)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        yield (left + int(columns[0]), top + int(rows[0])), np.where(inside, ratio[window], np.float32(0))[cut]


def _candidate(
    inside: NDArray[np.bool_], corner: tuple[int, int], peak: float, ratio: Plane, size: tuple[int, int]
) -> Candidate:
    cell_x, cell_y = size[0] / ratio.shape[1], size[1] / ratio.shape[0]
    x1, y1 = corner[0] * cell_x, corner[1] * cell_y
    # Sums of fractions may end a hair beyond the picture.
    x2, y2 = min(size[0], x1 + inside.shape[1] * cell_x), min(size[1], y1 + inside.shape[0] * cell_y)
    box = Box(x1, y1, x2, y2)
    extent = (math.ceil(box.x2) - math.floor(x1), math.ceil(box.y2) - math.floor(y1))
    mask = cv2.resize(inside.astype(np.uint8), extent, interpolation=cv2.INTER_NEAREST)
    return Candidate(box, score_of(peak), np.asarray(mask, np.bool_))


def without_echoes(found: list[Candidate]) -> tuple[Candidate, ...]:
    """Strongest first; of candidates that lie on a stronger one the stronger alone: two maps see the same defect."""
    kept: list[Candidate] = []
    for candidate in sorted(found, key=lambda one: -one.score)[:_MOST_CANDIDATES]:
        x, y = candidate.box.center
        if not any(_overlaps(candidate.box, other.box) or _holds(other.box, x, y) for other in kept):
            kept.append(candidate)
    return tuple(kept)


def _holds(box: Box, x: float, y: float) -> bool:
    return box.x1 <= x <= box.x2 and box.y1 <= y <= box.y2


def _overlaps(weaker: Box, stronger: Box) -> bool:
    return _holds(weaker, *stronger.center)
