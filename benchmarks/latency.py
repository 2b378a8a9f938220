"""Measure how long an inspection takes on this machine and keep the report.

    python -m benchmarks.latency [--size 800] [--pairs 200] [--good 1] [--threads N] [--engine NAME] [--json FILE]
    python -m benchmarks.latency --engine vlm --shape qwen3-vl-2b --random-weights [--pairs N] [--json FILE]

The second form measures the student's engine on a model of a known shape against transformers' generate, on the GPU
where there is one; see vlm_latency.py. Run it on an idle machine: the report holds the load that it started under.
`differad-edge bench` measures the same as the first form.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file, too

from differad_edge.benchmarking import run_benchmark
from differad_edge.errors import ConfigError, DifferadError

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long an inspection takes on this machine.")
    parser.add_argument("--size", type=int, default=800, help="side of the generated frames in pixels")
    parser.add_argument("--pairs", type=int, default=None, help="inspections that are measured, after a warm-up")
    parser.add_argument("--good", type=int, default=1, help="good parts to register; several: of parts that differ")
    parser.add_argument("--threads", type=int, default=None, help="threads of the inference runtime")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--shape", default=None, help="vlm: sizes of the model, a file of shapes/")
    parser.add_argument(
        "--random-weights", action="store_true", help="vlm: needed with --shape, for there are no others"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default=None, help="vlm: where; the GPU where there is one"
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="vlm: precision")
    parser.add_argument("--rows", nargs="+", default=None, help="vlm: some of the rows alone")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="report; a file in results/ by default")
    wanted = parser.parse_args()
    if (wanted.shape is not None) != wanted.random_weights or (wanted.shape is not None and wanted.engine != "vlm"):
        parser.error("--shape, --random-weights and --engine vlm: allowed together only")
    try:
        if wanted.shape is not None:
            report = _vlm(wanted)
        else:
            report = run_benchmark(
                size=wanted.size,
                pairs=200 if wanted.pairs is None else wanted.pairs,
                good=wanted.good,
                threads=wanted.threads,
                engine=wanted.engine,
            )
    except DifferadError as error:
        parser.error(str(error))
    file = wanted.json or RESULTS / ("latency.json" if wanted.shape is None else f"latency-{wanted.shape}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    rows = report.get("rows", {f"{wanted.size}x{wanted.size} px": report})
    for name, row in rows.items():
        print(
            f"{name}: p50 {row['p50_ms']:.1f} ms, p95 {row['p95_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms, n={row['n']}"
        )
    print(f"{file}, load before {report['load_1min']}")


def _vlm(wanted: Any) -> dict[str, Any]:
    import torch

    from benchmarks.vlm_latency import ROWS, run_vlm_benchmark
    from benchmarks.vlm_shape import load_shape

    if wanted.threads is not None:
        torch.set_num_threads(wanted.threads)
    gpu = torch.cuda.is_available() and wanted.device != "cpu"
    n = (100 if gpu else 1) if wanted.pairs is None else wanted.pairs
    rows = wanted.rows or ROWS
    if set(rows) - set(ROWS):
        raise ConfigError(f"--rows: got {' '.join(rows)}, allowed: {' '.join(ROWS)}")
    shape = load_shape(wanted.shape)
    return run_vlm_benchmark(shape, n=n, device=wanted.device, dtype=wanted.dtype, rows=rows)


if __name__ == "__main__":
    main()
