"""Records for tests of the journal, and waiting with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.results import Alignment, Box, Finding, InspectionResult, Timings, Verdict
from differad_edge.runtime.record import ResultRecord

_STAGES = {"decode": 0.1, "quality": 1.2, "align": 3.2, "warp": 0.5, "compare": 40.1, "decide": 0.1}


def record(sequence: int, verdict: str = "NG", *, findings: int = 5, **changes: Any) -> ResultRecord:
    """A typical record; ``product``, ``score``, ``reference_sha256`` and the record's own fields may be changed."""
    found = tuple(
        Finding(Box(10.5 + 3 * k, 20.25, 30.125 + 3 * k, 40.5), 0.9 - k / 100, f"a scratch of 14 x 3 px, number {k}")
        for k in range(findings if verdict == "NG" else 0)
    )
    result = InspectionResult(
        verdict=Verdict(verdict),
        reason=changes.pop("reason", "deadline" if verdict in ("UNDECIDED", "ERROR") else None),
        score=changes.pop("score", 0.91 if verdict == "NG" else 0.12),
        threshold=0.5,
        findings=found,
        timings=Timings(_STAGES, 45.5),
        product=changes.pop("product", "gasket-a"),
        reference_id="ref-001",
        reference_sha256=changes.pop("reference_sha256", "ab" * 32),
        engine="lite",
        image_size=(96, 64),
        alignment=Alignment((1.5, -2.25), 0.31, 1.001, 0.05, (1.0, 0.0, 1.5, 0.0, 1.0, 2.0)),
    )
    defaults: dict[str, Any] = {
        "session": "first",
        "trigger_id": f"t-{sequence}",
        "trigger": "free",
        "station": "main",
        "captured_utc": f"2026-05-04T10:{sequence // 60 % 60:02d}:{sequence % 60:02d}.000000Z",
        "captured_ns": 1_000_000 * sequence,
        "engine_sha256": "cd" * 32,
        "image_fingerprint": f"xxh3-128:{sequence:032x}",
        "camera": "sim:1",
        "frame_sequence": sequence,
    }
    return ResultRecord(sequence=sequence, result=result, **{**defaults, **changes})


def picture(seed: int, *, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """HxWx3 noise, which PNG cannot make smaller."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def wait_for(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Poll until ``condition`` holds; AssertionError after ``timeout_s``."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, "waited in vain"
        time.sleep(0.005)
