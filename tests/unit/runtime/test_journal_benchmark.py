"""What the measurement of the journal reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from differad_edge.runtime.journal_benchmark import measure_journal


@pytest.mark.parametrize(("durability", "rate_hz"), [("process", None), ("power", 500.0)])
def test_report(tmp_path: Path, durability: str, rate_hz: float | None) -> None:
    report = measure_journal(tmp_path, durability, results=40, rate_hz=rate_hz)  # type: ignore[arg-type]
    assert json.loads(json.dumps(report)) == report
    assert (report["durability"], report["results"], report["rate_hz"]) == (durability, 40, rate_hz)
    assert 0 < report["p50_ms"] <= report["p99_ms"] <= report["max_ms"]
    assert 1000 < report["record_bytes"] < 5000
    assert list(tmp_path.iterdir()) == [], "nothing stays behind"
