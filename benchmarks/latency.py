"""Measure how long an inspection takes on this machine and keep the report.

    python benchmarks/latency.py [--size 800] [--pairs 200] [--good 1] [--threads N] [--engine NAME] [--out FILE]

Run it on an idle machine: the report holds the load that it started under. `differad-edge bench` measures the same.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from differad_edge.benchmarking import run_benchmark

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long an inspection takes on this machine.")
    parser.add_argument("--size", type=int, default=800, help="side of the generated frames in pixels")
    parser.add_argument("--pairs", type=int, default=200, help="inspections that are measured, after a warm-up")
    parser.add_argument("--good", type=int, default=1, help="good parts to register; several: of parts that differ")
    parser.add_argument("--threads", type=int, default=None, help="threads of the inference runtime")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "latency.json")
    wanted = parser.parse_args()
    report = run_benchmark(
        size=wanted.size, pairs=wanted.pairs, good=wanted.good, threads=wanted.threads, engine=wanted.engine
    )
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(
        f"{wanted.out}: p50 {report['p50_ms']:.1f} ms, p95 {report['p95_ms']:.1f} ms, p99 {report['p99_ms']:.1f} ms "
        f"at {wanted.size}x{wanted.size} px, load before {report['load_1min']}"
    )


if __name__ == "__main__":
    main()
