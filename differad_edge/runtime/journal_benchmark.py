"""How long a result waits for the journal, measured on the disk that the journal would lie on."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from differad_edge.cameras.base import utc_now
from differad_edge.results import Alignment, Box, Finding, InspectionResult, Timings, Verdict
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.record import ResultRecord

__all__ = ["measure_journal"]

_WARM_UP = 20
_FINDINGS = 5


def measure_journal(
    folder: str | os.PathLike[str],
    durability: Literal["process", "power"],
    *,
    results: int = 1000,
    rate_hz: float | None = None,
) -> dict[str, Any]:
    """Append NG results with five findings to a new journal in ``folder``, which is deleted afterwards.

    ``rate_hz``: how many a second, as on a line; None: one after the other. Returns JSON types: ``durability``,
    ``results``, ``rate_hz``, ``record_bytes``, and of `Journal.append` alone ``p50_ms``, ``p99_ms``, ``max_ms``; beside
    it ``encode_p50_ms``, what making the text of the record takes. Raises JournalError.
    """
    place = Path(tempfile.mkdtemp(prefix=".journal-benchmark-", dir=folder))
    took_ms, encoding_ms = [], []
    pattern = _record()
    try:
        with Journal(place / "journal.sqlite", durability=durability) as journal:
            next_s = time.perf_counter()
            for sequence in range(1, results + _WARM_UP + 1):
                record = replace(pattern, sequence=sequence, trigger_id=f"trigger-{sequence:08d}")
                started_s = time.perf_counter()
                text = record.to_json()
                encoded_s = time.perf_counter()
                journal.append(record, text)
                ended_s = time.perf_counter()
                encoding_ms.append((encoded_s - started_s) * 1000.0)
                took_ms.append((ended_s - encoded_s) * 1000.0)
                if rate_hz is not None:
                    next_s += 1.0 / rate_hz
                    time.sleep(max(0.0, next_s - time.perf_counter()))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    p50, p99 = np.percentile(took_ms[_WARM_UP:], [50, 99])
    return {
        "durability": durability,
        "results": results,
        "rate_hz": rate_hz,
        "record_bytes": len(text),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(max(took_ms[_WARM_UP:])),
        "encode_p50_ms": float(np.median(encoding_ms[_WARM_UP:])),
    }


def _record() -> ResultRecord:
    findings = tuple(
        Finding(
            Box(100.5 + 40 * k, 200.25, 131.125 + 40 * k, 260.5),
            0.9 - k / 10,
            "a scratch of 14 x 3 px at the upper left, darker than the reference by 42 grey levels",
        )
        for k in range(_FINDINGS)
    )
    stages = {"decode": 0.112, "quality": 1.234, "align": 3.235, "warp": 0.512, "compare": 40.123, "decide": 0.104}
    result = InspectionResult(
        verdict=Verdict.NG,
        reason=None,
        score=0.9123,
        threshold=0.5,
        findings=findings,
        timings=Timings(stages, 45.9),
        product="gasket-a",
        reference_id="ref-001",
        reference_sha256="ab" * 32,
        engine="lite",
        image_size=(1280, 960),
        alignment=Alignment((1.5, -2.25), 0.31, 1.001, 0.05, (1.0, 0.01, 1.5, -0.01, 1.0, 2.0)),
    )
    return ResultRecord(
        sequence=0,
        session="0123456789abcdef",
        trigger_id="",
        trigger="free",
        station="main",
        result=result,
        captured_utc=utc_now(),
        captured_ns=time.monotonic_ns(),
        engine_sha256="cd" * 32,
        part_id="part-000017",
        camera="simulated",
        frame_sequence=17,
        image_fingerprint="xxh3-128:" + "ef" * 16,
        is_simulated=True,
    )
