"""What a station did lately, for people: counts, rate, latency."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np

from differad_edge.results import Verdict
from differad_edge.runtime.record import ResultRecord

__all__ = ["Tally"]

_LAST = 500  # results for rate and latency


class Tally:
    """Thread-safe. Latency: from the trigger, or in free run the capture, to the published result."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys((verdict.value for verdict in Verdict), 0)
        self._recent: deque[tuple[float, float]] = deque(maxlen=_LAST)
        self._last_sequence = 0
        self._lock = threading.Lock()

    def count(self, record: ResultRecord, latency_ms: float) -> None:
        """One more result."""
        with self._lock:
            self._counts[record.verdict.value] += 1
            self._recent.append((time.monotonic(), latency_ms))
            self._last_sequence = record.sequence

    def to_dict(self) -> dict[str, Any]:
        """``counts``, ``last_sequence``, ``rate_hz`` over the last results or minute, ``latency_ms`` p50 and p95."""
        with self._lock:
            recent, counts, last = list(self._recent), dict(self._counts), self._last_sequence
        now_s = time.monotonic()
        minute = [(at_s, ms) for at_s, ms in recent if now_s - at_s <= 60.0]
        span_s = now_s - minute[0][0] if minute else 0.0
        latency = None
        if minute:
            p50, p95 = np.percentile([ms for _, ms in minute], [50, 95])
            latency = {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}
        rate_hz = round((len(minute) - 1) / span_s, 3) if len(minute) > 1 and span_s > 0 else 0.0
        return {"counts": counts, "last_sequence": last, "rate_hz": rate_hz, "latency_ms": latency}
