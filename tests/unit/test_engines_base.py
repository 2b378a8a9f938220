"""The engine protocol: a small engine that keeps to it is recognised, and its arrays survive the cache."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from differad_edge.deadline import Deadline
from differad_edge.engines.base import Candidate, Engine, Evidence, Prepared, ReferenceView
from differad_edge.errors import DeadlineExceeded
from differad_edge.geometry import tight_box
from differad_edge.images import Image


class MeanPrepared:
    def __init__(self, mean: NDArray[np.float32]) -> None:
        self.mean = mean

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"mean": self.mean}


class MeanEngine:
    """Grey level against the mean of the references: as small as an engine can be."""

    name = "mean"
    fingerprint = "0" * 64
    default_threshold = 0.2

    def prepare(self, references: Sequence[ReferenceView]) -> MeanPrepared:
        return MeanPrepared(np.mean([r.image for r in references], axis=(0, 3), dtype=np.float32))

    def restore(self, arrays: dict[str, NDArray[Any]]) -> MeanPrepared:
        return MeanPrepared(arrays["mean"])

    def compare(
        self,
        prepared: MeanPrepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        if deadline is not None:
            deadline.check()
        heatmap = (np.abs(target.mean(axis=2, dtype=np.float32) - prepared.mean) / 255).astype(np.float32)
        if valid is not None:
            heatmap = heatmap * valid
        box = tight_box(heatmap > self.default_threshold)
        score = float(heatmap.max())
        return Evidence(score, () if box is None else (Candidate(box, score),), heatmap)


def test_an_engine_prepares_once_and_compares_after_a_trip_through_the_cache() -> None:
    engine: Engine = MeanEngine()
    assert isinstance(engine, Engine)
    golden = np.full((20, 30, 3), 100, np.uint8)
    prepared = engine.prepare([ReferenceView(golden, None, "ab" * 32)])
    assert isinstance(prepared, Prepared)

    file = io.BytesIO()
    np.savez(file, **prepared.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        restored = engine.restore(dict(stored))

    part = golden.copy()
    part[5:8, 10:14] = 250
    evidence = engine.compare(restored, part)
    assert [tuple(c.box) for c in evidence.candidates] == [(10, 5, 14, 8)]
    assert evidence.reason is None
    assert engine.compare(restored, golden).score == 0
    assert engine.compare(restored, part, valid=np.zeros((20, 30), bool)).candidates == ()
    with pytest.raises(DeadlineExceeded):
        engine.compare(restored, part, deadline=Deadline.after_ms(0))


def test_an_object_without_the_methods_is_no_engine() -> None:
    assert not isinstance(object(), Engine)
    assert not isinstance(object(), Prepared)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 7.0])
def test_evidence_carries_any_score_to_the_decision(score: float) -> None:
    assert Evidence(score).score is score
