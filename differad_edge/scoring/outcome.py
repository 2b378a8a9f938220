"""What is known about one inspected image, and how predicted boxes are made ready for matching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import BoxError
from differad_edge.geometry import grow_box, iou_matrix
from differad_edge.results import Box, Finding, Verdict

IGNORED_SHARE = 0.5  # a prediction with this share of its own area on one ignore box lies on it


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image: the truth and the answer. All boxes in pixels of the target, ``size`` its (width, height) in pixels.

    ``truth`` is empty for a good part. ``findings`` are what the engine said at its threshold and count only with the
    verdict NG; ``candidates`` are all it considered, weak ones too, and count only for the average precision.
    ``ignore`` marks places where a prediction is neither right nor wrong. ``score`` in [0, 1] is the anomaly score of
    the image; None stands for that of its strongest candidate (0 without any). Raises ValueError for a non-finite score
    or a size below 1 px.
    """

    product: str
    truth: tuple[Box, ...]
    findings: tuple[Finding, ...]
    candidates: tuple[Finding, ...]
    verdict: Verdict
    size: tuple[int, int]
    ignore: tuple[Box, ...] = ()
    score: float | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"score is {self.score}; allowed: a finite number or None")
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}; allowed: (width, height) of at least 1 px")

    @property
    def answered(self) -> bool:
        """False for UNDECIDED and ERROR: such an outcome finds nothing and clears nothing."""
        return self.verdict in (Verdict.OK, Verdict.NG)

    @property
    def reported(self) -> tuple[Finding, ...]:
        """The findings that count as said: those of an NG verdict."""
        return self.findings if self.verdict is Verdict.NG else ()


def box_array(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """(N, 4) float64, also for no boxes."""
    return np.array([tuple(box) for box in boxes], dtype=np.float64).reshape(-1, 4)


def grown_boxes(findings: Sequence[Finding], margin_px: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """(N, 4) float64: each box grown by ``margin_px`` on every side, clipped to the image; unchanged for margin 0."""
    if margin_px == 0:
        return box_array([finding.box for finding in findings])
    grown = []
    for finding in findings:
        try:
            grown.append(grow_box(finding.box, margin_px, *size))
        except BoxError:  # wholly outside the image: it stays what it is, a false alarm
            grown.append(finding.box)
    return box_array(grown)


def on_ignored(boxes: NDArray[np.float64], ignore: Sequence[Box], iou_threshold: float) -> NDArray[np.bool_]:
    """(N,) bool: the boxes (N, 4) that overlap one ignore box by more than the threshold, or lie on it by half."""
    if not ignore or not len(boxes):
        return np.zeros(len(boxes), dtype=bool)
    places = box_array(ignore)
    low = np.maximum(boxes[:, None, :2], places[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], places[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    by_iou = np.asarray(iou_matrix(boxes, places)) > iou_threshold
    on: NDArray[np.bool_] = (by_iou | (shared >= IGNORED_SHARE * own[:, None])).any(axis=1)
    return on
