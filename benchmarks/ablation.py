"""What each part of comparing by appearance brings: the same sets with one part left out at a time.

    python benchmarks/ablation.py DATA ... [--good 10] [--limit N] [--out FILE.json]

Every variant is evaluated as `evaluate --calibrate N` is; what it leaves out it leaves out in learning too, so that its
limits are its own.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from differad_edge import EdgeInspector
from differad_edge.engines.appearance import learned, limits
from differad_edge.engines.appearance.memory import Maps, Memory
from differad_edge.engines.appearance.regions import Growth
from differad_edge.evaluation import run_evaluation
from differad_edge.machine import describe_machine
from differad_edge.pairs import PairSet, load_pairs

RESULTS = Path(__file__).resolve().parent / "results"
FIGURES = ("f1", "acc", "tnr", "auroc")


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """One of both maps says nothing."""
    compare = Memory.compare

    def without(self: Memory, *arguments: Any) -> Maps:
        maps = compare(self, *arguments)
        zero = np.full_like(getattr(maps, name), 1e-6)
        return Maps(zero, maps.fine) if name == "deep" else Maps(maps.deep, zero)

    with patch.object(Memory, "compare", without):
        yield


@contextmanager
def _plain_boxes() -> Iterator[None]:
    """A box ends where the limit ends."""
    at_the_limit = Growth(least=1.0, share=0.0, bridge_cells=0)
    with patch.object(learned, "_DEEP_GROWTH", at_the_limit), patch.object(learned, "_FINE_GROWTH", at_the_limit):
        yield


VARIANTS: dict[str, Callable[[], Any]] = {
    "all parts": ExitStack,
    "without the memory of features": lambda: _silenced("deep"),
    "without the line and spot filters": lambda: _silenced("fine"),
    "without the spread at each place": lambda: patch.object(
        limits, "_spread", lambda planes, _: np.ones_like(planes[0])
    ),
    "without evening out rough parts": lambda: patch.object(limits, "_calmed", lambda fine, _: fine),
    "without turning parts upright": lambda: patch.object(learned, "frame_of", lambda *_: None),
    "without the guard against an outlier": lambda: patch.object(limits, "_FARTHEST", math.inf),
    "without growing boxes": _plain_boxes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Leave out one part of comparing by appearance at a time.")
    parser.add_argument("data", type=Path, nargs="+", help="folders with pairs.jsonl")
    parser.add_argument("--good", type=int, default=10, metavar="N", help="up to N good parts of each product")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="only N pairs of each set, evenly spread")
    parser.add_argument("--out", type=Path, default=RESULTS / "ablation.json", metavar="FILE")
    wanted = parser.parse_args()
    sets = [load_pairs(folder) for folder in wanted.data]
    variants: dict[str, Any] = {}
    for name, left_out in VARIANTS.items():
        with left_out():
            variants[name] = {one.name: _figures(one, wanted.good, wanted.limit) for one in sets}
        f1 = ", ".join(f"{one} {figures['f1']:.3f}" for one, figures in variants[name].items())
        print(f"{name}: F1 {f1}", flush=True)
    report = {
        "good_parts_at_most": wanted.good,
        "limit": wanted.limit,
        "figures": "macro over the products of a set",
        "machine": describe_machine(),
        "variants": variants,
    }
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _figures(pair_set: PairSet, good: int, limit: int | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="differad-ablation-") as store, EdgeInspector(store=store) as inspector:
        macro = run_evaluation(pair_set, inspector, calibrate_n=good, limit=limit).report["macro"]
    return {name: macro[name] for name in FIGURES}


if __name__ == "__main__":
    main()
