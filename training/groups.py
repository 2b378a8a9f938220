"""Which completions are drawn again, and how weights are reported: the arithmetic of groups, without a trainer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WEIGHT_EDGES = (1.0, 1.25, 1.5, 1.75, np.inf)
"""Bins of the weights' histogram. Rewards from 0 to 1 give weights from 1 to (e + sqrt(2)) / 2 = 2.07 (Eq. 11)."""


class Redraw(NamedTuple):
    """What one process draws again: ``rows``, its own, in order; only those in ``kept`` replace what was there."""

    rows: tuple[int, ...]
    kept: frozenset[int]


def next_redraw(degenerate: NDArray[np.bool_], generations: int, process: int, local_rows: int) -> Redraw:
    """Plan the second draw of the degenerate groups on one process.

    ``degenerate``: (groups,) bool over all processes; rows lie group after group, process after process,
    ``local_rows`` on each. Drawing is collective (gathered weights, one server for all): every process must ask for
    the same number of rows, and for whole groups where one request serves a group. Where groups lie within processes,
    each asks for as many as the one with the most; where they span processes, each asks for all its rows.
    """
    first = process * local_rows
    flagged = np.repeat(degenerate, generations)[first : first + local_rows]
    kept = frozenset(np.flatnonzero(flagged).tolist())
    if local_rows % generations:
        return Redraw(tuple(range(local_rows)), kept)
    groups = degenerate.reshape(-1, local_rows // generations)
    most = int(groups.sum(axis=1).max())
    own = np.flatnonzero(groups[process])
    spare = np.flatnonzero(~groups[process])[: most - len(own)]
    asked = [*own.tolist(), *spare.tolist()]
    return Redraw(tuple(group * generations + member for group in asked for member in range(generations)), kept)


def weight_shares(weights: NDArray[np.float64]) -> dict[str, float]:
    """The histogram of the groups' weights as shares: "from_1", "from_1.25", ..."""
    counts, _ = np.histogram(weights, bins=WEIGHT_EDGES)
    return {f"from_{edge:g}": float(n) / weights.size for edge, n in zip(WEIGHT_EDGES[:-1], counts, strict=True)}
