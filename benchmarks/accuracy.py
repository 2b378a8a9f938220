"""Score an engine on pair sets and keep one report for each: benchmarks/results/<set>.json.

    python benchmarks/accuracy.py DATA ... [--calibrate N] [--limit N] [--engine NAME] [--out FOLDER]

A calibrated report is kept beside the one-shot one, as <set>-calibrate-N.json. `differad-edge evaluate` scores one set.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from differad_edge import EdgeInspector
from differad_edge.evaluation import run_evaluation
from differad_edge.pairs import load_pairs

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="Score an engine on pair sets.")
    parser.add_argument("data", type=Path, nargs="+", help="folders with pairs.jsonl")
    parser.add_argument("--calibrate", type=int, default=None, metavar="N", help="up to N good parts of each product")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="only N pairs of each set, evenly spread")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the reports")
    wanted = parser.parse_args()
    sets = [load_pairs(folder) for folder in wanted.data]  # all are checked before the first one is scored
    wanted.out.mkdir(parents=True, exist_ok=True)
    for pair_set in sets:
        with (
            tempfile.TemporaryDirectory(prefix="differad-accuracy-") as store,
            EdgeInspector(store=store, engine=wanted.engine) as inspector,
        ):
            report = run_evaluation(pair_set, inspector, calibrate_n=wanted.calibrate, limit=wanted.limit).report
        file = wanted.out / f"{report_name(pair_set.name, wanted.calibrate)}.json"
        file.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"{file}: {in_short(report)}")


def report_name(set_name: str, calibrate: int | None) -> str:
    """A file name without suffix, whatever the set calls itself."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", set_name).strip("-.") or "set"
    return plain if calibrate is None else f"{plain}-calibrate-{calibrate}"


def in_short(report: dict[str, Any]) -> str:
    """One line of the figures that matter most; a dash where one is undefined."""
    micro, detection = report["micro"], report["detection"]
    figures = {"f1": micro["f1"], "acc": micro["acc"], "tnr": micro["tnr"], "F": detection["f"], "AP": detection["ap"]}
    words = ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in figures.items())
    return f"{report['n']} pairs, {words}"


if __name__ == "__main__":
    main()
