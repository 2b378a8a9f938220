"""Every box counts: DeepPCB's rule, class-agnostic, IoU > 0.33, one prediction to one true box.

Within an image the predictions are taken strongest first; each takes the free true box that it overlaps most, when the
overlap exceeds the threshold. One that takes none is a false alarm, a second one on a taken box too, unless it lies on
an ignore box: then it does not count at all. Precision, recall and F are global over all images, from the findings at
the engine's threshold. The average precision ranks all candidates of all images by score and takes the area under the
precision envelope at every recall (all-point interpolation); equal scores enter together, so their order cannot matter.
UNDECIDED and ERROR find nothing: their true boxes are missed in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from differad_edge.geometry import iou_matrix
from differad_edge.results import Finding
from differad_edge.scoring.one_box import Floats, defined, ratio
from differad_edge.scoring.outcome import Outcome, box_array, grown_boxes, on_ignored

DETECTION_IOU = 0.33
DETECTION_FIGURES = ("f", "precision", "recall", "ap")


def match(
    outcome: Outcome, predictions: Sequence[Finding], iou_threshold: float, margin_px: float
) -> list[tuple[float, bool]]:
    """(score, whether it took a true box) of every prediction that counts, strongest first."""
    boxes = grown_boxes(predictions, margin_px, outcome.size)
    overlaps = np.zeros((len(boxes), len(outcome.truth)))
    if overlaps.size:
        overlaps = np.array(iou_matrix(boxes, box_array(sorted(outcome.truth))))
    best = overlaps.max(axis=1, initial=0.0)
    scores = np.array([finding.score for finding in predictions], dtype=np.float64)
    ignored = on_ignored(boxes, outcome.ignore, iou_threshold)
    # The keys after the score (overlap, then box) only settle ties; with the sorted truth above they make the figures
    # independent of the order of the lists.
    order = np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], -best, -scores))
    judged = []
    for index in order:
        row = overlaps[index]
        taken = int(row.argmax()) if row.size else -1
        hit = taken >= 0 and bool(row[taken] > iou_threshold)
        if hit:
            overlaps[:, taken] = -1.0  # no longer free
        if hit or not ignored[index]:
            judged.append((float(scores[index]), hit))
    return judged


class DetectionTable:
    """The matches of N outcomes as arrays, from which figures follow for any weighting of the images."""

    def __init__(self, outcomes: Sequence[Outcome], margin_px: float, iou_threshold: float) -> None:
        said = [match(outcome, outcome.reported, iou_threshold, margin_px) for outcome in outcomes]
        self.tp = np.array([sum(hit for _, hit in one) for one in said], dtype=np.float64)
        self.fp = np.array([len(one) for one in said], dtype=np.float64) - self.tp
        self.truths = np.array([len(outcome.truth) for outcome in outcomes], dtype=np.float64)
        ranked = sorted(
            (-score, image, hit)
            for image, outcome in enumerate(outcomes)
            if outcome.answered
            for score, hit in match(outcome, outcome.candidates, iou_threshold, margin_px)
        )
        self.image = np.array([image for _, image, _ in ranked], dtype=np.intp)
        self.hit = np.array([hit for _, _, hit in ranked], dtype=np.float64)
        scores = np.array([score for score, _, _ in ranked], dtype=np.float64)
        self.ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) if len(scores) else self.image
        self.width = max(len(outcomes), len(ranked))  # of the largest array a resample needs

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Each figure as (B,); ``weights`` (B, N): how often each image counts in each resample. NaN: undefined."""
        tp, fp, truths = weights @ self.tp, weights @ self.fp, weights @ self.truths
        return {
            "f": ratio(2 * tp, tp + fp + truths),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, truths),
            "ap": self._average_precision(weights, truths),
        }

    def counts(self) -> dict[str, int]:
        """True boxes found, predictions that found none, true boxes missed."""
        tp = int(self.tp.sum())
        return {"tp": tp, "fp": int(self.fp.sum()), "fn": int(self.truths.sum()) - tp}

    def _average_precision(self, weights: Floats, truths: Floats) -> Floats:
        if not len(self.image):
            return ratio(np.zeros(len(weights)), truths)
        counted = weights[:, self.image]
        hits = np.cumsum(counted * self.hit, axis=1)[:, self.ends]
        all_ = np.cumsum(counted, axis=1)[:, self.ends]
        precision = np.divide(hits, all_, out=np.zeros_like(hits), where=all_ > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        gained = np.diff(hits, axis=1, prepend=0.0)
        return ratio((gained * envelope).sum(axis=1), truths)


def detection(
    outcomes: Sequence[Outcome], iou: float = DETECTION_IOU, *, margin_px: float = 0.0
) -> dict[str, float | None]:
    """The figures of DETECTION_FIGURES over all images, each in [0, 1], None where undefined (0 of 0).

    Predicted boxes are first grown by ``margin_px`` and clipped to the image; a match needs an IoU above ``iou``.
    """
    table = DetectionTable(outcomes, margin_px, iou)
    figures = table.figures(np.ones((1, len(outcomes))))
    return {name: defined(values[0]) for name, values in figures.items()}
