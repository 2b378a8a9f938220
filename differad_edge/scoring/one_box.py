"""The one-anomaly protocol: the strongest finding of an image against its truth, IoU >= 0.3 is a hit.

- A defective part is TP when it is called NG and its strongest box overlaps the truth, else FN; also when UNDECIDED.
- A good part is TN when it is called OK, FP when it is called NG; UNDECIDED and ERROR are neither, and lower the
  accuracy, the true-normal rate and mIoU all the same: their denominators count every image.
- With several true boxes the overlap is the best over each of them and over the box around them all, because annotators
  and engines differ in whether two neighbouring marks are one defect.
- A finding on an ignore box is passed over for the next strongest; a good part with no other finding was not called NG.
- AUROC is the chance that a defective part has a higher image score than a good one, a tie one half. A part without an
  answer ranks nothing and loses every comparison, whatever its score: a defective one stands below all, a good one
  above all, so that an engine cannot gain by withholding the hard ones. The scores are the engine's own for the whole
  image, places on ignore boxes included. Over all images the parts of all products are ranked on one scale, also when
  each product has its own threshold; the figure of a product, and the mean of those, compares within products only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from differad_edge.geometry import iou_matrix, union_box
from differad_edge.scoring.outcome import Outcome, box_array, grown_boxes, on_ignored

ONE_BOX_IOU = 0.3
ONE_BOX_FIGURES = ("f1", "acc", "miou", "miou_ano", "tnr", "recall", "undecided_share", "auroc")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How one outcome counts. ``kind`` is "TP", "FN", "TN", "FP", or "NONE" for a good part without an answer.

    ``iou`` in [0, 1] is the overlap of the strongest box with the truth; for a good part 1 when TN, else 0.
    """

    kind: str
    iou: float


def judge(outcome: Outcome, margin_px: float = 0.0) -> Judgement:
    """Judge one image; predicted boxes are first grown by ``margin_px`` and clipped to the image."""
    strongest, overlap = _strongest(outcome, margin_px)
    if outcome.truth:
        return Judgement("TP" if strongest and overlap >= ONE_BOX_IOU else "FN", overlap)
    if not outcome.answered:
        return Judgement("NONE", 0.0)
    return Judgement("FP", 0.0) if strongest else Judgement("TN", 1.0)


def _strongest(outcome: Outcome, margin_px: float) -> tuple[bool, float]:
    """Whether there is a finding that counts, and the overlap of the strongest such finding with the truth."""
    if not outcome.reported:
        return False, 0.0
    boxes = grown_boxes(outcome.reported, margin_px, outcome.size)
    overlaps = np.zeros(len(boxes))
    if outcome.truth:
        truth = (*outcome.truth, union_box(outcome.truth))
        overlaps = np.asarray(iou_matrix(boxes, box_array(truth))).max(axis=1)
    passed_over = on_ignored(boxes, outcome.ignore, ONE_BOX_IOU) & (overlaps < ONE_BOX_IOU)
    scores = np.array([finding.score for finding in outcome.reported])
    # Equal scores: the smaller overlap goes first, so that the figures cannot gain by the order of a list.
    for index in np.lexsort((overlaps, -scores)):
        if not passed_over[index]:
            return True, float(overlaps[index])
    return False, 0.0


class OneBoxTable:
    """The judgements of N outcomes as arrays, from which figures follow for any weighting of the images."""

    def __init__(self, outcomes: Sequence[Outcome], margin_px: float) -> None:
        judgements = [judge(outcome, margin_px) for outcome in outcomes]
        kinds = np.array([judgement.kind for judgement in judgements])
        self.tp, self.fn = kinds == "TP", kinds == "FN"
        self.tn, self.fp = kinds == "TN", kinds == "FP"
        self.iou = np.array([judgement.iou for judgement in judgements], dtype=np.float64)
        self.anomalous = np.array([bool(outcome.truth) for outcome in outcomes])
        self.answered = np.array([outcome.answered for outcome in outcomes])
        self.scores = np.array([_ranking_score(outcome) for outcome in outcomes], dtype=np.float64)

    def figures(self, weights: Floats, chosen: NDArray[np.intp]) -> dict[str, Floats]:
        """Each figure as (B,) over the ``chosen`` images; NaN where it is undefined.

        ``weights`` (B, N): how often each image counts in each of B resamples.
        """
        weights = weights[:, chosen]

        def total(values: NDArray[np.generic]) -> Floats:
            sums: Floats = weights @ values[chosen].astype(np.float64)
            return sums

        tp, fn, tn, fp = total(self.tp), total(self.fn), total(self.tn), total(self.fp)
        count, anomalies = weights.sum(axis=1), total(self.anomalous)
        return {
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "acc": ratio(tp + tn, count),
            "miou": ratio(total(self.iou), count),
            "miou_ano": ratio(total(self.iou * self.anomalous), anomalies),
            "tnr": ratio(tn, count - anomalies),
            "recall": ratio(tp, anomalies),
            "undecided_share": ratio(total(~self.answered), count),
            "auroc": _auroc(self.scores[chosen], self.anomalous[chosen], weights),
        }

    def counts(self, chosen: NDArray[np.intp]) -> dict[str, int]:
        """How many ``chosen`` images are of each kind; ``undecided``: UNDECIDED and ERROR of both labels."""
        kinds = {"tp": self.tp, "fn": self.fn, "tn": self.tn, "fp": self.fp, "undecided": ~self.answered}
        return {name: int(flags[chosen].sum()) for name, flags in kinds.items()}


def one_box(outcomes: Sequence[Outcome], *, margin_px: float = 0.0) -> dict[str, float | None]:
    """The figures of ONE_BOX_FIGURES over all images together, each in [0, 1], None where undefined (0 of 0)."""
    table = OneBoxTable(outcomes, margin_px)
    figures = table.figures(np.ones((1, len(outcomes))), np.arange(len(outcomes)))
    return {name: defined(values[0]) for name, values in figures.items()}


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient of (B,) arrays, NaN where the denominator is 0."""
    quotient: Floats = np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
    return quotient


def defined(value: float) -> float | None:
    """JSON knows no NaN: None stands for an undefined figure."""
    return None if np.isnan(value) else float(value)


def _ranking_score(outcome: Outcome) -> float:
    """Higher is more anomalous; without an answer the wrong end of the ranking, where every comparison is lost."""
    if not outcome.answered:
        return -np.inf if outcome.truth else np.inf
    if outcome.score is not None:
        return outcome.score
    return max((finding.score for finding in outcome.candidates), default=0.0)


def _auroc(scores: Floats, anomalous: NDArray[np.bool_], weights: Floats) -> Floats:
    """(B,): the chance that an anomaly outranks a normal, ties one half; NaN where either has no weight.

    This is U / (anomalies * normals), U the statistic of Mann and Whitney (1947), and equals the area under the ROC
    curve by trapezoids (Hanley and McNeil 1982). ``scores`` and ``anomalous`` (N,); in ``weights`` (B, N) a weight of k
    is k copies of the image. Needs a few arrays of the size of ``weights``, no array of pairs.
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, scores[order][1:] != scores[order][:-1]])
    positive = np.add.reduceat(weights[:, order] * anomalous[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~anomalous[order], starts, axis=1)
    outranked = np.cumsum(negative, axis=1) - negative / 2
    return ratio((positive * outranked).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))
