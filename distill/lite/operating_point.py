"""Set the default threshold on generated pairs: `python -m distill.lite.operating_point differad_edge/models`.

The threshold that ships must hold for products never seen, so it is read off generated pairs that training never
reaches and off nothing else: the highest one that gives up no more than a small share of the bad parts that any
threshold finds. The generated nuisances are harsher than a line's, so its true-normal rates are no promise either way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from differad_edge import EdgeInspector
from differad_edge.geometry import iou_matrix
from differad_edge.results import Box, Verdict
from distill.lite.generate import training_pair

#: Beyond the seeds of training and of its validation.
SEED_OFFSET = 2_000_000_011
SIDE_PX = 320
MATCH_IOU = 0.33
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Judged:
    """What is said about one pair: candidates' boxes and scores against the true boxes."""

    boxes: tuple[Box, ...]
    scores: tuple[float, ...]
    truth: tuple[Box, ...]
    image_score: float


def true_boxes(label: np.ndarray) -> tuple[Box, ...]:
    """Boxes of the connected places of a label, HxW uint8, of at least 6 px."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(label, connectivity=8)
    return tuple(Box(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area >= 6)


def judge(inspector: EdgeInspector, pairs: int, seed: int) -> list[Judged]:
    """Inspect ``pairs`` generated pairs; those that cannot be called good or bad, or be compared, are left out."""
    judged = []
    for index in range(pairs):
        pair = training_pair(np.random.default_rng((seed, SEED_OFFSET + index)), SIDE_PX)
        doubtful = cv2.integral(1 - pair.weight)
        if doubtful[-1, -1] and not pair.label.any():
            continue
        result, candidates = inspector.compare_detailed(pair.reference, pair.target)
        if result.verdict not in (Verdict.OK, Verdict.NG):
            continue
        truth = true_boxes(pair.label)
        # A place whose label does not count is no false alarm.
        counted = [c for c in candidates if not _touches(doubtful, c.box) or _near(c.box, truth)]
        judged.append(
            Judged(
                tuple(c.box for c in counted),
                tuple(c.score for c in counted),
                truth,
                max((c.score for c in counted), default=0.0),
            )
        )
    return judged


def _touches(integral: np.ndarray, box: Box) -> bool:
    x1, y1, x2, y2 = (round(v) for v in box)
    return bool(integral[y2, x2] - integral[y1, x2] - integral[y2, x1] + integral[y1, x1])


def _near(box: Box, truth: tuple[Box, ...]) -> bool:
    return bool(truth) and float(iou_matrix([box], truth).max()) > 0


def figures(judged: Sequence[Judged], threshold: float) -> dict[str, float]:
    """Precision, recall and F of boxes at IoU 0.33, and the shares of good and bad pairs that are called right."""
    hits = found = real = 0
    for j in judged:
        boxes = [b for b, s in zip(j.boxes, j.scores, strict=True) if s >= threshold]
        found, real = found + len(boxes), real + len(j.truth)
        if boxes and j.truth:
            overlap = iou_matrix(boxes, j.truth)
            taken: set[int] = set()
            for row in overlap:  # strongest first, each true box once
                best = max((i for i in range(len(row)) if i not in taken), key=lambda i: float(row[i]), default=None)
                if best is not None and row[best] > MATCH_IOU:
                    taken.add(best)
            hits += len(taken)
    good = [j.image_score < threshold for j in judged if not j.truth]
    bad = [j.image_score >= threshold for j in judged if j.truth]
    return {
        "f": 2 * hits / max(1, found + real),
        "precision": hits / max(1, found),
        "recall": hits / max(1, real),
        "true_normal_rate": float(np.mean(good)),
        "image_recall": float(np.mean(bad)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with lite.json; its default_threshold is set")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--give-up", type=float, default=0.02, help="share of bad parts that may be given up")
    a = parser.parse_args()
    with TemporaryDirectory() as store:
        judged = judge(EdgeInspector(store=store), a.pairs, a.seed)
    for threshold in THRESHOLDS:
        print(f"{threshold:.2f}", {name: round(value, 3) for name, value in figures(judged, threshold).items()})
    recalls = {t: figures(judged, t)["image_recall"] for t in THRESHOLDS}
    chosen = max(t for t, recall in recalls.items() if recall >= max(recalls.values()) - a.give_up)
    manifest = json.loads((a.models / "lite.json").read_text())
    manifest["default_threshold"] = chosen
    manifest["operating_point"] = {"pairs": len(judged), **figures(judged, chosen)}
    (a.models / "lite.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"default_threshold: {chosen}")


if __name__ == "__main__":
    main()
