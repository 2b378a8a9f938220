"""The report over many images: every figure with its 95 % bootstrap interval, micro, macro and per product.

The bootstrap draws images with replacement within each product and label, so every resample keeps the composition of
the set and no figure becomes undefined by chance. It treats the images as independent: images of one part taken
together make the true uncertainty larger. Where all images agree (56 of 56 right) the interval has no width; that says
that the resampling saw no failure, not that there is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.scoring.detection import DETECTION_IOU, DetectionTable
from differad_edge.scoring.one_box import ONE_BOX_FIGURES, Floats, OneBoxTable, defined
from differad_edge.scoring.outcome import Outcome

CONFIDENCE = 0.95
_CHUNK_ELEMENTS = 2_000_000  # of one (resamples, images or boxes) array: bounds the memory at some 100 MB

# group -> figure -> value per resample; the groups are "micro", "macro", "detection" and one per product
_Figures = dict[tuple[str, str], dict[str, Floats]]


def summarise(outcomes: Sequence[Outcome], *, margin_px: float, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Score N >= 1 outcomes.

    ``margin_px`` >= 0 grows every predicted box before matching (the set's ``annotation_margin_px``), here and nowhere
    else. Returns ``n``, ``micro``, ``macro``, ``classes`` (one entry a product) and ``detection``. Figures are in
    [0, 1] and None where undefined; ``<figure>_ci`` is [low, high] or None. ``macro`` is the mean over the products for
    which a figure is defined. Raises ValueError for no outcomes or a negative or non-finite margin.
    """
    if not outcomes:
        raise ValueError("no outcomes to score; allowed: at least one")
    if not (np.isfinite(margin_px) and margin_px >= 0):
        raise ValueError(f"margin_px is {margin_px}; allowed: a finite number of at least 0")
    one_box, boxes = OneBoxTable(outcomes, margin_px), DetectionTable(outcomes, margin_px, DETECTION_IOU)
    members = _members([outcome.product for outcome in outcomes])
    point = _figures(one_box, boxes, members, np.ones((1, len(outcomes))))
    resamples = _resamples(outcomes, boxes.width, bootstrap, seed)
    parts = [_figures(one_box, boxes, members, weights) for weights in resamples]

    def figures(kind: str, name: str = "") -> dict[str, Any]:
        report: dict[str, Any] = {}
        for figure, values in point[kind, name].items():
            report[figure] = defined(values[0])
            report[f"{figure}_ci"] = _interval([part[kind, name][figure] for part in parts])
        return report

    everything = np.arange(len(outcomes))
    return {
        "n": len(outcomes),
        "micro": {**figures("micro"), "counts": one_box.counts(everything)},
        "macro": {**figures("macro"), "classes": len(members)},
        "classes": {
            product: {"n": len(chosen), **figures("class", product), "counts": one_box.counts(chosen)}
            for product, chosen in members.items()
        },
        "detection": {"iou_above": DETECTION_IOU, **figures("detection"), "counts": boxes.counts()},
    }


def _members(keys: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """The image numbers of each product, products in order of their names."""
    names = np.array(keys, dtype=object)
    return {name: np.flatnonzero(names == name) for name in sorted(set(keys))}


def _figures(
    one_box: OneBoxTable, boxes: DetectionTable, members: Mapping[str, NDArray[np.intp]], weights: Floats
) -> _Figures:
    figures: _Figures = {("class", name): one_box.figures(weights, chosen) for name, chosen in members.items()}
    per_class = list(figures.values())
    figures["micro", ""] = one_box.figures(weights, np.arange(weights.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, as it should be
        figures["macro", ""] = {
            name: np.nanmean([values[name] for values in per_class], axis=0) for name in ONE_BOX_FIGURES
        }
    figures["detection", ""] = boxes.figures(weights)
    return figures


def _resamples(outcomes: Sequence[Outcome], width: int, bootstrap: int, seed: int) -> Iterator[Floats]:
    """(b, N) chunks, ``bootstrap`` rows in all: how often each image was drawn."""
    rng = np.random.default_rng(seed)
    keys: dict[tuple[str, bool], list[int]] = {}
    for index, outcome in enumerate(outcomes):
        keys.setdefault((outcome.product, bool(outcome.truth)), []).append(index)
    rows = max(1, _CHUNK_ELEMENTS // width)
    for start in range(0, bootstrap, rows):
        weights = np.zeros((min(rows, bootstrap - start), len(outcomes)))
        for indices in keys.values():
            share = np.full(len(indices), 1 / len(indices))
            weights[:, indices] = rng.multinomial(len(indices), share, size=len(weights))
        yield weights


def _interval(parts: Sequence[Floats]) -> list[float] | None:
    values = np.concatenate(parts) if parts else np.empty(0)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return [float(low), float(high)]
