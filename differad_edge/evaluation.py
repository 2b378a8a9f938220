"""Evaluate an inspector on a pair set: inspect every pair, score the answers, describe how they came about."""

from __future__ import annotations

import filecmp
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import differad_edge
from differad_edge.errors import ConfigError, DifferadError, PairsError
from differad_edge.evaluation_products import EvaluationProduct, Registrar, register_products
from differad_edge.geometry import clip_box
from differad_edge.images import Image, load_image
from differad_edge.machine import describe_machine
from differad_edge.pairs import PAIRS_FILE, Pair, PairSet
from differad_edge.results import Box, Finding, InspectionResult, Verdict
from differad_edge.scoring import Outcome, summarise

__all__ = ["REPORT_VERSION", "Evaluation", "Inspecting", "Record", "evaluate", "run_evaluation"]

REPORT_VERSION = 2
"""Rises when a key of the report changes its meaning or goes away."""

MIN_TRUTH_INSIDE = 0.5  # of a true box's area; real sets overshoot the edge by a pixel, wrong units by far more

Progress = Callable[[int, int], None]
"""Called with (pairs done, pairs in all) after each pair."""

Answer = tuple[InspectionResult, tuple[Finding, ...]]
"""The result, and all candidates whatever the threshold, in pixels of the target."""


class Inspecting(Registrar, Protocol):
    """What an evaluation needs of EdgeInspector. Images are HxWx3 uint8 BGR.

    Consecutive comparisons with one reference must not prepare it again: the evaluation orders its pairs for that.
    """

    def compare_detailed(self, reference: Image, target: Image, /) -> Answer:
        """Compare one pair, nothing stored."""
        ...

    def inspect_detailed(self, frame: Image, /, *, product: str) -> Answer:
        """Inspect a frame against a registered product."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """One evaluated pair. ``result`` is None when the inspection raised ``error``."""

    pair: Pair
    outcome: Outcome
    result: InspectionResult | None
    error: DifferadError | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The report, in plain JSON types, and the records behind it in the order of the set."""

    report: dict[str, Any]
    records: tuple[Record, ...]


def evaluate(
    pair_set: PairSet,
    inspector: Inspecting,
    *,
    calibrate_n: int | None = None,
    progress: Progress | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Return ``run_evaluation(...).report``."""
    return run_evaluation(pair_set, inspector, calibrate_n=calibrate_n, progress=progress, limit=limit).report


def run_evaluation(
    pair_set: PairSet,
    inspector: Inspecting,
    *,
    calibrate_n: int | None = None,
    progress: Progress | None = None,
    limit: int | None = None,
    bootstrap: int = 1000,
) -> Evaluation:
    """Inspect the pairs and score them.

    Without ``calibrate_n`` each pair is one-shot, with its own reference. With it, each product is registered
    with up to that many of the set's good parts that are no target; the inspector's store is written, so
    give one that was opened on a temporary folder. ``limit`` takes that many pairs, evenly spread over the set.

    A pair whose inspection raises DifferadError counts with the verdict ERROR and is listed under ``failures``; none is
    dropped. Raises ConfigError for ``calibrate_n`` or ``limit`` below 1, PairsError where a true box lies outside its
    target.
    """
    for name, value in (("calibrate_n", calibrate_n), ("limit", limit)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}: got {value}, allowed: at least 1, or None")
    pairs = _spread(pair_set.pairs, limit)
    products: dict[str, EvaluationProduct] = {}
    if calibrate_n is not None:
        products = register_products(pair_set, {pair.product for pair in pairs}, inspector, calibrate_n)
    records = _inspect_all(pairs, inspector, products, progress)
    report = {
        "report_version": REPORT_VERSION,
        **summarise([r.outcome for r in records], margin_px=pair_set.annotation_margin_px, bootstrap=bootstrap),
        **_thresholds(records),
        "engine": _only([r.result.engine for r in records if r.result is not None]),
        "machine": describe_machine(),
        "set": pair_set.name,
        "set_sha256": _set_hash(pair_set.root / PAIRS_FILE),
        "pairs_in_set": len(pair_set.pairs),
        "identical_pairs": sum(_is_identical(pair) for pair in pairs),
        "annotation_margin_px": pair_set.annotation_margin_px,
        "calibrate": _calibrate_report(calibrate_n, products),
        "timings": _timings(records),
        "versions": {"differad_edge": differad_edge.__version__},
        "reasons": dict(sorted(Counter(r.result.reason for r in records if r.result and r.result.reason).items())),
        "failures": [failure for record in records if (failure := _failure(record)) is not None],
    }
    return Evaluation(report, tuple(records))


def _spread(pairs: Sequence[Pair], limit: int | None) -> list[Pair]:
    if limit is None or limit >= len(pairs):
        return list(pairs)
    return [pairs[index * len(pairs) // limit] for index in range(limit)]


def _inspect_all(
    pairs: Sequence[Pair],
    inspector: Inspecting,
    products: Mapping[str, EvaluationProduct],
    progress: Progress | None,
) -> list[Record]:
    records: dict[str, Record] = {}
    references = _LastReference()
    for pair in sorted(pairs, key=lambda pair: (pair.product, str(pair.reference))):
        product = products.get(pair.product)
        records[pair.id] = _inspect(pair, inspector, product.product_id if product else None, references)
        if progress is not None:
            progress(len(records), len(pairs))
    return [records[pair.id] for pair in pairs]


def _inspect(pair: Pair, inspector: Inspecting, product_id: str | None, references: _LastReference) -> Record:
    truth, ignore, size = pair.boxes, pair.ignore_boxes, (1, 1)
    try:
        target = load_image(pair.target, name=f"target of pair {pair.id!r}")
    except DifferadError as error:
        return Record(pair, Outcome(pair.product, truth, (), (), Verdict.ERROR, size, ignore), None, error)
    size = (target.shape[1], target.shape[0])
    truth = _inside(pair, "boxes", truth, size)
    ignore = _inside(pair, "ignore_boxes", ignore, size)
    try:
        if product_id is None:
            result, candidates = inspector.compare_detailed(references.load(pair), target)
        else:
            result, candidates = inspector.inspect_detailed(target, product=product_id)
    except DifferadError as error:
        return Record(pair, Outcome(pair.product, truth, (), (), Verdict.ERROR, size, ignore), None, error)
    outcome = Outcome(
        product=pair.product,
        truth=truth,
        findings=result.findings,
        candidates=tuple(candidates),
        verdict=result.verdict,
        size=size,
        ignore=ignore,
        score=result.score,
    )
    return Record(pair, outcome, result, None)


class _LastReference:
    """Decodes a reference once for consecutive pairs that share it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._image: Image | None = None

    def load(self, pair: Pair) -> Image:
        if self._image is None or pair.reference != self._path:
            self._image = load_image(pair.reference, name=f"reference of pair {pair.id!r}")
            self._path = pair.reference
        return self._image


def _inside(pair: Pair, field: str, boxes: Sequence[Box], size: tuple[int, int]) -> tuple[Box, ...]:
    """The boxes cut at the image's edges; PairsError where less than half of one lies inside."""
    kept = []
    for index, box in enumerate(boxes):
        clipped = clip_box(box, *size)
        if clipped is None or clipped.area < MIN_TRUTH_INSIDE * box.area:
            raise PairsError(
                f"pair {pair.id!r}: field '{field}[{index}]' is {list(box)}, outside its target of {size[0]}x{size[1]} "
                "px; allowed: pixels of the target (not 0-1000 coordinates)"
            )
        kept.append(clipped)
    return tuple(kept)


def _only(values: Sequence[str]) -> str | None:
    """What all agree on; several engines in one report would be a cascade's parts and are joined."""
    return "+".join(sorted(set(values))) or None


def _thresholds(records: Sequence[Record]) -> dict[str, Any]:
    """``threshold`` is the one number that held for every pair, None where they differ: see ``thresholds``."""
    by_product: dict[str, set[float]] = {}
    for record in records:
        if record.result is not None and record.result.threshold is not None:
            by_product.setdefault(record.pair.product, set()).add(record.result.threshold)
    every = set().union(*by_product.values())
    return {
        "threshold": every.pop() if len(every) == 1 else None,
        "thresholds": {product: sorted(values) for product, values in sorted(by_product.items())},
    }


def _calibrate_report(n: int | None, products: Mapping[str, EvaluationProduct]) -> dict[str, Any] | None:
    if n is None:
        return None
    return {"n": n, "products": {name: product.to_dict() for name, product in products.items()}}


def _timings(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """p50 and p95 of each stage and of the total in milliseconds, without the decoding of the files."""
    times: dict[str, list[float]] = {}
    for record in records:
        if record.result is not None:
            for stage, milliseconds in record.result.timings.to_dict().items():
                times.setdefault(stage, []).append(milliseconds)
    return {
        stage: {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95))}
        for stage, values in times.items()
    }


def _failure(record: Record) -> dict[str, Any] | None:
    if record.error is not None:
        code, message = record.error.code, str(record.error)
    elif record.result is not None and record.result.verdict is Verdict.ERROR:
        code, message = record.result.reason or "error", record.result.detail or ""
    else:
        return None
    return {"id": record.pair.id, "product": record.pair.product, "code": code, "message": message}


def _is_identical(pair: Pair) -> bool:
    """Whether reference and target are the same bytes: a good part that no comparison can get wrong."""
    try:
        return filecmp.cmp(pair.reference, pair.target, shallow=False)
    except OSError:
        return False


def _set_hash(file: Path) -> str | None:
    """SHA-256 of pairs.jsonl: two reports are about the same set when it agrees. None for a set that is not on disk."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None
