"""How long an inspection takes on this machine: one product, generated parts, every stage.

What is measured is ``EdgeInspector.inspect`` from the call to the result, for frames that lie decoded in memory, one at
a time. Reading files, cameras and outputs are not in it.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

import differad_edge
from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.config import InspectorConfig
from differad_edge.engines.base import ComparesAsItLies
from differad_edge.errors import ConfigError
from differad_edge.images import Image
from differad_edge.inspector import EdgeInspector
from differad_edge.machine import describe_machine
from differad_edge.results import InspectionResult

__all__ = ["REPORT_VERSION", "Latencies", "measure", "peak_memory_mib", "run_benchmark"]

REPORT_VERSION = 2
"""Rises when a key of the report changes its meaning or goes away."""

WARM_UP = 10
"""Inspections before the measurement; their times are reported apart."""

PRODUCT, VARYING_PRODUCT = "board", "felt"  # the busiest of the simulated products, and the one whose parts differ
FRAMES = 12  # different parts, inspected in turn; a third of them is defective
MAX_GOOD = 100

Progress = Callable[[int, int], None]
"""Called with (inspections done, inspections in all), warm-up included."""


class Inspecting(Protocol):
    """What a measurement needs of EdgeInspector."""

    def inspect(self, frame: Image, /, product: str) -> InspectionResult:
        """Inspect one HxWx3 uint8 BGR frame."""
        ...


@dataclass(frozen=True)
class Latencies:
    """``warm_up_ms`` and ``total_ms``: per inspection, as the caller sees it; ``results``: of the latter."""

    warm_up_ms: tuple[float, ...]
    total_ms: tuple[float, ...]
    results: tuple[InspectionResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types.

        ``p50_ms p95_ms p99_ms max_ms mean_ms std_ms``, ``jitter_ms`` (p99 - p50), ``n``, ``stages`` (p50_ms and p95_ms
        of each), ``warm_up`` (its number, its first and its last time in ms) and ``verdicts`` (how often each).
        """
        p50, p95, p99 = (float(value) for value in np.percentile(self.total_ms, [50, 95, 99]))
        warm_up = self.warm_up_ms
        return {
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "max_ms": max(self.total_ms),
            "mean_ms": float(np.mean(self.total_ms)),
            "jitter_ms": p99 - p50,
            "jitter_is": "p99_ms - p50_ms",
            "std_ms": float(np.std(self.total_ms)),
            "n": len(self.total_ms),
            "stages": _stages(self.results),
            "warm_up": {
                "n": len(warm_up),
                "first_ms": warm_up[0] if warm_up else None,
                "last_ms": warm_up[-1] if warm_up else None,
            },
            "verdicts": dict(sorted(Counter(result.verdict.value for result in self.results).items())),
        }


def measure(
    inspector: Inspecting,
    product: str,
    frames: Sequence[Image],
    *,
    n: int,
    warm_up: int = WARM_UP,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Latencies:
    """Inspect ``frames`` in turn, ``warm_up`` >= 0 times and then ``n`` >= 1 times. ``clock`` gives monotonic seconds.

    Raises ConfigError for counts below that or no frames, and what ``inspect`` raises.
    """
    if n < 1 or warm_up < 0 or not frames:
        raise ConfigError(
            f"measure: got n={n}, warm_up={warm_up} and {len(frames)} frames, allowed: at least 1, 0 and 1"
        )
    times_ms: list[float] = []
    results: list[InspectionResult] = []
    for number in range(warm_up + n):
        frame = frames[number % len(frames)]
        began = clock()
        result = inspector.inspect(frame, product=product)
        times_ms.append((clock() - began) * 1e3)
        results.append(result)
        if progress is not None:
            progress(number + 1, warm_up + n)
    return Latencies(tuple(times_ms[:warm_up]), tuple(times_ms[warm_up:]), tuple(results[warm_up:]))


def run_benchmark(
    *,
    size: int = 800,
    pairs: int = 200,
    good: int = 1,
    threads: int | None = None,
    engine: str | None = None,
    config: InspectorConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Register a generated product, inspect ``pairs`` generated parts of it, and return the report in plain JSON types.

    ``size``: side of the frames in pixels; ``good``: good parts that are registered, with more than one of a product
    whose parts are never the same picture; ``threads``: of the inference runtime, None for its own choice; ``config``:
    everything else about the inspector. The products lie in a temporary store. Beside the keys of Latencies the report
    holds ``prepare_ms``, ``learning`` (what the engine found out from the good parts), ``memory``, ``machine``,
    ``load_1min`` and what was asked for.

    Raises ConfigError, UnknownEngineError, ModelIntegrityError.
    """
    for name, value, low, high in (("pairs", pairs, 1, 1_000_000), ("good", good, 1, MAX_GOOD)):
        if not low <= value <= high:
            raise ConfigError(f"{name}: got {value}, allowed: {low} to {high}")
    load = _load_1min()
    before_mib = peak_memory_mib()
    with (
        tempfile.TemporaryDirectory(prefix="differad-bench-") as folder,
        EdgeInspector(store=folder, engine=engine, threads=threads, config=config) as inspector,
    ):
        # A plugin that can only compare place by place is measured with what it is for.
        varies = good > 1 and isinstance(inspector.engine, ComparesAsItLies)
        source = SimulatedProduct(VARYING_PRODUCT if varies else PRODUCT, size)
        golden = [source.golden(), *(source.good(index) for index in range(good - 1))]
        frames = [source.part(index).image for index in range(min(FRAMES, pairs))]
        product = source.name
        prepare_ms = {"register": _timed_ms(lambda: inspector.register(product, golden))}
        latencies = measure(inspector, product, frames, n=pairs, progress=progress)
        name, learning = inspector.engine.name, inspector.learning(product)
    return {
        "report_version": REPORT_VERSION,
        **latencies.to_dict(),
        "prepare_ms": prepare_ms,
        "memory": {"peak_mib": peak_memory_mib(), "peak_before_engine_mib": before_mib},
        "size_px": [size, size],
        "good": good,
        "product": product,
        "learning": None if learning is None else asdict(learning),
        "threads": threads,
        "engine": name,
        "load_1min": load,
        "machine": describe_machine(),
        "versions": {"differad_edge": differad_edge.__version__},
    }


def peak_memory_mib() -> float | None:
    """The most memory this process has held so far, in MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(peak * unit / 2**20, 1)


def _timed_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def _stages(results: Sequence[InspectionResult]) -> dict[str, Mapping[str, float]]:
    times: dict[str, list[float]] = {}
    for result in results:
        for stage, milliseconds in result.timings.stages.items():
            times.setdefault(stage, []).append(milliseconds)
    return {
        stage: {"p50_ms": float(np.percentile(values, 50)), "p95_ms": float(np.percentile(values, 95))}
        for stage, values in times.items()
    }


def _load_1min() -> float | None:
    """Runnable processes on average over the last minute: what else was running when the figures were taken."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
    return round(load, 2) if math.isfinite(load) else None
