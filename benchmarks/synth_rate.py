"""How fast training.synth makes pairs, and whether they follow from the seed: one command, as a user would run it.

    python benchmarks/synth_rate.py [--n 10000] [--size 800] [--workers 2] --out benchmarks/results/synth.json

The good images are generated ones (the simulated products); the pairs go to a temporary folder. A hundred of them are
made again with the same seed by one process, and compared byte by byte.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
PRODUCTS = ("board", "gasket", "label")
IMAGES_EACH = 8
AGAIN = 100


def main() -> None:
    """Measure, compare, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure training.synth.")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="differad-synth-") as name:
        folder = Path(name)
        _write_images(folder / "images", wanted.size)
        began = time.perf_counter()
        said = _synth(folder / "images", folder / "pairs", wanted.n, wanted.size, wanted.workers)
        seconds = time.perf_counter() - began
        print(said)
        again = min(AGAIN, wanted.n)
        held = sum(file.stat().st_size for file in (folder / "pairs").rglob("*") if file.is_file())
        same = _same_again(folder, wanted.size, again)
        found = re.search(r"(\d+) pairs, (\d+) of them normal, (\d+) skipped", said)
        assert found is not None, said
        report = {
            "benchmark": "synth",
            "machine": describe_machine(),
            "command": f"python -m training.synth IMAGES OUT --n {wanted.n} --seed 0 --size {wanted.size} "
            f"--workers {wanted.workers}",
            "pairs": int(found[1]),
            "normal": int(found[2]),
            "skipped": int(found[3]),
            "seconds": round(seconds, 1),
            "pairs_per_s": round(wanted.n / seconds, 2),
            "bytes": held,
            "again": {"pairs": again, "identical": same},
        }
    wanted.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def _write_images(folder: Path, size: int) -> None:
    for product in PRODUCTS:
        parts = SimulatedProduct(product, size)
        (folder / product).mkdir(parents=True)
        for number in range(IMAGES_EACH):
            cv2.imwrite(str(folder / product / f"{number}.png"), parts.good(number))


def _synth(images: Path, out: Path, n: int, size: int, workers: int) -> str:
    words = [str(images), str(out), "--n", str(n), "--seed", "0", "--size", str(size), "--workers", str(workers)]
    return subprocess.run(
        [sys.executable, "-m", "training.synth", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def _same_again(folder: Path, size: int, again: int) -> bool:
    """Whether the first pairs of the run come out the same from one process that makes no others."""
    first, second = folder / "pairs", folder / "again"
    _synth(folder / "images", second, again, size, 1)
    lines = (second / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return (first / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[: len(lines)] == lines and all(
        (first / row[key]).read_bytes() == (second / row[key]).read_bytes()
        for row in rows
        for key in ("reference", "target")
    )


if __name__ == "__main__":
    main()
