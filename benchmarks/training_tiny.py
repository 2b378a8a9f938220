"""Does GRPO improve on the cold start, and what does each part of it bring? Measured on the tiny Qwen2-VL.

Runs ``training.grpo`` from one cold start for every arm and seed, each in a process of its own, asks every result for
the same held-out pairs, and writes a JSON and a picture of the learning curves::

    python -m training.tiny runs/tiny/random
    python -m training.cold_start tiny-cold-start
    python benchmarks/training_tiny.py --out benchmarks/results/training-tiny.json

A run that is already in the folder, with these settings and from these weights, is not repeated: a stopped benchmark
goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from differad_edge.machine import describe_machine

ROOT = Path(__file__).parent.parent
ARMS = {
    "dclr+both": (),
    "iou+both": ("reward.localisation=iou",),
    "center+both": ("reward.localisation=center",),
    "dclr plain": ("grpo.resample=false", "grpo.difficulty_weight=false"),
    "dclr+resampling": ("grpo.difficulty_weight=false",),
    "dclr+weight": ("grpo.resample=false",),
}
"""What each arm changes in the recipe tiny-grpo, which is "dclr+both"."""
FIGURES = ("acc", "f1", "miou", "miou_ano", "tnr", "recall")
CURVES = ("iou", "reward", "groups/degenerate_before", "groups/degenerate_after", "weight/mean", "length")
RESAMPLES = 10_000
SMOOTHING_STEPS = 5

Floats = NDArray[np.float64]


def main() -> None:
    """Run what is missing, then report."""
    arguments = _arguments()
    start = _asked(arguments, arguments.start, "cold-start")
    jobs = [(arm, seed) for seed in arguments.seeds for arm in arguments.arms]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        runs = list(pool.map(lambda job: _run(arguments, *job), jobs))
    report = {
        "benchmark": "training-tiny",
        "machine": describe_machine(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "held_out_pairs": arguments.pairs,
        "steps": arguments.steps,
        "changes": list(arguments.change),
        "cold_start": {name: start[name] for name in FIGURES} | {"weights": _weights(arguments.start)},
        "note": "all runs start from one cold start; intervals are not corrected for the number of comparisons",
        "arms": {
            arm: _arm([run for run, job in zip(runs, jobs, strict=True) if job[0] == arm], start)
            for arm in arguments.arms
        },
    }
    report["against_full"] = _against_full(runs, jobs)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _draw(report, arguments.out.with_suffix(".png"))
    print(json.dumps({arm: entry["gain"] for arm, entry in report["arms"].items()}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, default=ROOT / "runs/tiny/cold-start/final")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/tiny/ablation")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--change", action="append", default=[], help="key=value for every run")
    return parser.parse_args()


def _run(arguments: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    settings = [*ARMS[arm], *arguments.change, str(arguments.steps), _weights(arguments.start)]
    name = f"{arm.replace(' ', '-').replace('+', '-')}-{seed}-{_digest(json.dumps(settings).encode())}"
    out = arguments.runs / name
    if not (out / "final" / "config.json").is_file():
        changes = (f"run.out={out}", f"run.seed={seed}", f"model.path={arguments.start}")
        changes += (f"optimiser.steps={arguments.steps}", "run.log_steps=1", "data.workers=0")
        _python(
            "training.grpo", "tiny-grpo", *changes, *ARMS[arm], *arguments.change, log=arguments.runs / f"{name}.log"
        )
    asked = _asked(arguments, out / "final", name)
    history = json.loads(_last_state(out).read_text(encoding="utf-8"))["log_history"]
    return {**asked, "curves": {curve: [row[curve] for row in history if curve in row] for curve in CURVES}}


def _last_state(out: Path) -> Path:
    return max(out.glob("checkpoint-*/trainer_state.json"), key=lambda file: int(file.parent.name.rpartition("-")[2]))


def _asked(arguments: argparse.Namespace, checkpoint: Path, name: str) -> dict[str, Any]:
    """The figures of a checkpoint on the held-out pairs, from the folder where they are there."""
    file: Path = arguments.runs / f"{name}-{_weights(checkpoint)}-{arguments.pairs}.json"
    if not file.is_file():
        options = ("--tiny", str(arguments.pairs), "--max-new-tokens", "48", "--each")
        said = _python("training.evaluate", str(checkpoint), *options, log=arguments.runs / f"{name}.log")
        file.write_text(said, encoding="utf-8")
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return figures


def _weights(checkpoint: Path) -> str:
    """What tells the weights of a checkpoint from any other's."""
    return _digest((checkpoint / "model.safetensors").read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:10]


def _python(module: str, *words: str, log: Path) -> str:
    log.parent.mkdir(parents=True, exist_ok=True)
    # One thread each: several runs share the cores.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            check=False,
        )
        stream.write(done.stdout)
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(words)} failed, see {log}")
    return done.stdout


def _right(figures: dict[str, Any]) -> Floats:
    """(N,) 1.0 where Acc@0.3 counts a pair as right."""
    return np.array([kind in ("TP", "TN") for kind in figures["kinds"]], dtype=np.float64)


def _arm(runs: Sequence[dict[str, Any]], start: dict[str, Any]) -> dict[str, Any]:
    gains = np.array([_right(run) - _right(start) for run in runs])
    return {
        "seeds": len(runs),
        **{name: [run[name] for run in runs] for name in FIGURES},
        "gain": _interval(gains),
        "gain_t_interval": _t_interval(gains.mean(axis=1)),
        "gain_of_each_seed": [_interval(gain[None]) for gain in gains],
        "curves": [run["curves"] for run in runs],
    }


def _against_full(runs: Sequence[dict[str, Any]], jobs: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Acc@0.3 of "dclr+both" less that of each other arm, seed by seed on the same pairs."""
    by_job = dict(zip(jobs, runs, strict=True))
    others = {arm for arm, _ in jobs} - {"dclr+both"}
    differences = {}
    for other in sorted(others):
        seeds = [seed for arm, seed in jobs if arm == other and ("dclr+both", seed) in by_job]
        if seeds:
            pairs = [_right(by_job["dclr+both", seed]) - _right(by_job[other, seed]) for seed in seeds]
            differences[other] = _interval(np.array(pairs))
    return differences


def _interval(gains: Floats) -> dict[str, float]:
    """Mean of (seeds, pairs) with the 95 % interval of a bootstrap over seeds and, within, over pairs."""
    rng = np.random.default_rng(0)
    seeds, pairs = gains.shape
    means = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        chosen = rng.integers(0, pairs, pairs)
        means[index] = gains[rng.integers(0, seeds, seeds)][:, chosen].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(gains.mean()), "low": float(low), "high": float(high), "pairs": pairs, "seeds": seeds}


def _t_interval(means: Floats) -> list[float] | None:
    """95 % interval of the mean over seeds alone, by Student's t; None for one seed."""
    if len(means) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))
    return [float(means.mean()) - half, float(means.mean()) + half]


def _draw(report: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    kernel = np.ones(SMOOTHING_STEPS) / SMOOTHING_STEPS
    for axis, curve in zip(axes[:2], ("iou", "groups/degenerate_before"), strict=True):
        for arm, entry in report["arms"].items():
            drawn = [np.convolve(one[curve], kernel, "valid") for one in entry["curves"] if one[curve]]
            if drawn:
                shortest = min(map(len, drawn))
                axis.plot(np.mean([line[:shortest] for line in drawn], axis=0), label=f"{arm} (n={len(drawn)})")
        axis.set_xlabel("optimiser step")
        axis.set_title(f"{curve}, mean over seeds, {SMOOTHING_STEPS}-step mean")
        axis.legend(fontsize=7)
    names = list(report["arms"])
    gains = [report["arms"][arm]["gain"] for arm in names]
    means = np.array([gain["mean"] for gain in gains])
    errors = np.array([[gain["mean"] - gain["low"], gain["high"] - gain["mean"]] for gain in gains]).T
    axes[2].errorbar(means, np.arange(len(names)), xerr=errors, fmt="o", capsize=4)
    axes[2].set_yticks(np.arange(len(names)), names)
    axes[2].axvline(0.0, color="grey", linewidth=0.8)
    axes[2].set_title(f"gain in Acc@0.3 over the cold start ({report['cold_start']['acc']:.3f}), 95 %")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
