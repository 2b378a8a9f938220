"""``python -m distill.chain OUT``: the whole chain at tiny size, from generated pairs to an engine on the line.

Pairs, a Qwen2-VL teacher (cold start, GRPO), its labels, a Qwen3-VL student (SFT, the teacher's probabilities, GRPO),
its export on ONNX Runtime, and `EdgeInspector` with it. Beside the student that was distilled, one that learned the
true boxes of the same pairs in as many steps, and the one that both started from. All are asked about the same held-out
pairs, which no step has seen. ``OUT/chain.json`` has the figures and times, ``OUT/chain.png`` shows them.

Every step is a command that a user would type, and is printed. The same command goes on after a kill.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from differad_edge.errors import DifferadError, TrainingError
from differad_edge.pairs import load_pairs, write_pairs
from distill.chain_figures import chain_figures, draw_chain
from distill.labelling import place_file
from training.batch_journal import replace_file
from training.evaluate import TINY_SEED

__all__ = ["FULL", "SHORT", "Sizes", "run_chain"]

FIGURES_FILE = "chain.json"
PICTURE_FILE = "chain.png"
TIMES_FILE = "times.json"
POOL_SEED, SYNTHETIC_SEED = 11, 12


@dataclass(frozen=True)
class Sizes:
    """Pairs and optimiser steps; ``extra``: changes to every training recipe."""

    pool: int
    synthetic: int
    held_out: int
    teacher_pairs: int
    teacher_grpo_steps: int
    base_pairs: int
    samples: int
    sft_steps: int
    logit_steps: int
    grpo_steps: int
    difficulty: float = 1.0
    extra: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


FULL = Sizes(6000, 3000, 600, 57600, 60, 48000, 4, 150, 150, 40)
SHORT = Sizes(
    *(96, 64, 48, 4800, 2, 4800, 2, 6, 6, 2),
    difficulty=0.0,
    extra=("data.tiny.ramp_start=0.9", "data.tiny.ramp_end=1.0", "data.tiny.hardest=0.1", "optimiser.warmup_steps=20"),
    rules=("--least-valid", "0.1", "--least-overlap", "0", "--least-majority", "0"),
)
"""Few steps on plain pairs: whether every part fits the next one, not how good a student becomes."""


def run_chain(out: Path, sizes: Sizes) -> dict[str, Any]:
    """Run what is not done yet and return the figures.

    Raises TrainingError where a step fails, or where ``out`` holds a chain of other sizes.
    """
    steps = Steps(out)
    teacher, student, pairs = out / "teacher", out / "student", out / "pairs"
    held_out, pool, synthetic = pairs / "held-out", pairs / "pool", pairs / "synthetic"
    for folder, n, seed in (
        (held_out, sizes.held_out, TINY_SEED),
        (pool, sizes.pool, POOL_SEED),
        (synthetic, sizes.synthetic, SYNTHETIC_SEED),
    ):
        steps.python(
            f"pairs {folder.name}",
            *("training.tiny.pair_set", folder, "--n", n, "--seed", seed, "--difficulty", sizes.difficulty),
        )
    steps.python("teacher random", "training.tiny", teacher / "random")
    steps.python(
        "teacher cold start",
        *("training.cold_start", "tiny-cold-start", f"model.path={teacher / 'random'}"),
        *(f"run.out={teacher / 'cold-start'}", f"data.tiny.pairs={sizes.teacher_pairs}", "run.trackers=[]"),
        *sizes.extra,
    )
    steps.python(
        "teacher grpo",
        *("training.grpo", "tiny-grpo", f"model.path={teacher / 'cold-start' / 'final'}"),
        *(f"run.out={teacher / 'grpo'}", f"optimiser.steps={sizes.teacher_grpo_steps}", "run.trackers=[]"),
    )
    labels = out / "labels"
    steps.python(
        "labels",
        *("distill.label", teacher / "grpo" / "final", labels, "--pairs", pool, "--no-truth", "--batch", 48),
        *("--samples", sizes.samples, "--max-new-tokens", 48, *sizes.rules),
    )
    truth = _true_boxes_of(labels, pool, pairs / "truth")
    steps.python("student random", "training.tiny", student / "random", "--student", "--seed", 1)
    steps.python(
        "student base",
        *("training.cold_start", "tiny-student-base", f"model.path={student / 'random'}"),
        *(f"run.out={student / 'base'}", f"data.tiny.pairs={sizes.base_pairs}", "run.trackers=[]", *sizes.extra),
    )
    sft, logits = sizes.sft_steps, sizes.logit_steps
    for name, labelled, changes in (
        ("distilled", labels, (f"sft.optimiser.steps={sft}", f"logits.optimiser.steps={logits}")),
        ("truth", truth, (f"sft.optimiser.steps={sft + logits}", "logits=null")),
    ):
        steps.python(
            f"student {name}",
            *("distill.migrate", "tiny", f"model.path={student / 'base' / 'final'}", f"name=tiny-{name}"),
            *(f"pair_sets=[{labelled}]", f"held_out=[{held_out}]", f"grpo.pair_sets=[{synthetic}]"),
            *(f"grpo.optimiser.steps={sizes.grpo_steps}", f"run.out={student / name}", *changes),
        )
    final, exported = student / "distilled" / "final", out / "export"
    steps.edge("export", "export", final, exported, "--precision", "float32")
    steps.edge("verify", "verify", exported)
    began = time.monotonic()
    figures = chain_figures(teacher=teacher, student=student, labels=labels, exported=exported, held_out=held_out)
    steps.note("figures", [], time.monotonic() - began)
    figures = {"sizes": sizes.__dict__, "seconds": steps.seconds, **figures}
    replace_file(out / FIGURES_FILE, (json.dumps(figures, indent=1, allow_nan=False) + "\n").encode())
    draw_chain(figures, out / PICTURE_FILE)
    return figures


class Steps:
    """Commands that are run once each; how long each took is kept in OUT/times.json."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._file = out / TIMES_FILE
        try:
            self._done: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._done = {}
        except (OSError, ValueError) as exc:
            raise TrainingError(f"{self._file}: cannot be read: {exc}; allowed: a chain of this command") from exc

    @property
    def seconds(self) -> dict[str, float]:
        """Of every step, killed attempts left out."""
        return {name: step["seconds"] for name, step in self._done.items()}

    def python(self, name: str, module: str, *words: object) -> None:
        """Run ``python -m module words``."""
        self._run(name, [sys.executable, "-m", module, *map(str, words)])

    def edge(self, name: str, *words: object) -> None:
        """Run ``differad-edge words``."""
        self._run(name, [sys.executable, "-m", "differad_edge", *map(str, words)])

    def note(self, name: str, command: Sequence[str], seconds: float) -> None:
        """Keep how long a step took."""
        self._done[name] = {"command": list(command), "seconds": round(seconds, 1)}
        replace_file(self._file, (json.dumps(self._done, indent=1) + "\n").encode())

    def _run(self, name: str, command: list[str]) -> None:
        shown = ["python" if word == sys.executable else word for word in command]
        if name in self._done:
            if self._done[name]["command"] != shown:
                raise TrainingError(f"OUT: {self._file.parent} holds a chain of other sizes ({name}); give another")
            return
        print(f"[{name}] {' '.join(shown)}", file=sys.stderr, flush=True)
        began = time.monotonic()
        log = self._file.with_name(f"{name.replace(' ', '-')}.log")
        with log.open("ab") as stream:
            code = subprocess.run(command, stdout=stream, stderr=stream, env=_quiet(), check=False).returncode
        if code:
            last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2][:300]
            raise TrainingError(f"{name}: ended with {code}: {last}; all of it: {log}")
        self.note(name, shown, time.monotonic() - began)


def _quiet() -> dict[str, str]:
    return {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}


def _true_boxes_of(labels: Path, pool: Path, out: Path) -> Path:
    """The pairs that the teacher labelled, with the boxes that are true."""
    kept = {pair.id for pair in load_pairs(labels).pairs}
    read = load_pairs(pool)
    chosen = tuple(
        replace(pair, reference=out / place_file(pair.reference, out), target=out / place_file(pair.target, out))
        for pair in read.pairs
        if pair.id in kept
    )
    write_pairs(replace(read, root=out, name="truth", pairs=chosen))
    return out


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the chain; the same again goes on.")],
    short: Annotated[bool, typer.Option("--short", help="A few steps of each: do the parts fit together?")] = False,
) -> None:
    """Run the whole chain at tiny size: under an hour on two cores."""
    try:
        figures = run_chain(out, SHORT if short else FULL)
    except DifferadError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    for name, row in figures["models"].items():
        low, high = row["acc_ci"]
        typer.echo(f"{row['acc']:.3f} [{low:.3f}, {high:.3f}] Acc@0.3, recall {row['recall']:.3f}: {name}")
    typer.echo(f"{sum(figures['seconds'].values()) / 60:.1f} minutes; {out / FIGURES_FILE}")


if __name__ == "__main__":
    typer.run(main)
