"""GRPO as it is run: one process or several, killed and resumed, under DeepSpeed. Each starts real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("scripted_grpo.py")
COMMON = ("optimiser.schedule=constant", "optimiser.warmup_steps=0", "run.log_steps=1", "run.trackers=[]")
COMMON += ("data.workers=0", "data.tiny.pairs=2000", "run.keep_checkpoints=9")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.model import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("random"))


def python(*words: object, timeout_s: float = 300, returns: int = 0, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == returns, done.stderr[-3000:]


def scripted(out: Path, model: Path, *changes: str, processes: int = 1, launch: bool = False) -> dict[str, Any]:
    started = (*LAUNCH, processes) if processes > 1 or launch else ()
    # Linear in the gradients: Adam would turn their last digit into a whole step.
    python(*started, *command(out, model, *changes), SCRIPTED_OPTIMISER="sgd")
    return result(out)


def command(out: Path, model: Path, *changes: str) -> tuple[object, ...]:
    return (SCRIPT, "tiny-grpo", *COMMON, f"model.path={model}", f"run.out={out}", *changes)


def result(out: Path) -> dict[str, Any]:
    with np.load(out / "parameters.npz") as file:
        parameters = {name: file[name] for name in file.files}
    return {"parameters": parameters, "log": json.loads((out / "log.json").read_text())}


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest difference of two runs' parameters."""
    first, second = one["parameters"], other["parameters"]
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        ((), 16),  # whole groups on each process
        (("grpo.loss=dapo", "grpo.kl_beta=0.1"), 4),  # a group of 8 on two processes, by tokens, with a reference model
        (("grpo.resample=false", "grpo.difficulty_weight=false"), 16),  # plain
    ],
)
def test_accumulation_and_processes_give_the_same_parameters(
    changes: tuple[str, ...], batch: int, random_model: Path, tmp_path: Path
) -> None:
    steps = ("optimiser.steps=2", "optimiser.learning_rate=0.5", f"optimiser.batch={batch}", "data.shuffle=false")
    one = scripted(tmp_path / "one", random_model, *steps, *changes, "optimiser.accumulation=2")
    two = scripted(tmp_path / "two", random_model, *steps, *changes, "run.gpus=2", processes=2)
    start = dict(one, parameters=load(random_model))
    assert apart(one, start) > 1e-3  # something was learned
    assert apart(one, two) < 1e-5
    for first, second in zip(one["log"], two["log"], strict=True):
        assert first.keys() == second.keys()
        # The logged loss of one process is a mean over its own rows, about 0 on the policy.
        assert all(first[key] == pytest.approx(second[key], rel=1e-4) for key in first if key != "loss")


def load(model: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(model / "model.safetensors"))


def test_resampling_mends_groups_and_drops_those_that_stay_flat(random_model: Path, tmp_path: Path) -> None:
    changes = ("optimiser.steps=3", "optimiser.learning_rate=0.5", "optimiser.batch=64", "data.shuffle=false")
    run = scripted(tmp_path / "run", random_model, *changes)
    before = [row["groups/degenerate_before"] for row in run["log"]]
    after = [row["groups/degenerate_after"] for row in run["log"]]
    assert np.mean(before) > np.mean(after) > 0
    assert all(1.0 <= row["weight/mean"] <= 2.07 for row in run["log"])


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_three_steps_under_deepspeed_equal_three_without(stage: str, random_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    changes = ("optimiser.steps=3", "optimiser.learning_rate=0.05", "optimiser.batch=16", "data.shuffle=false")
    plain = scripted(tmp_path / "plain", random_model, *changes)
    sharded = scripted(tmp_path / stage, random_model, *changes, f"run.deepspeed={stage}", launch=True)
    assert len(sharded["log"]) == 3
    assert apart(plain, dict(plain, parameters=load(random_model))) > 1e-4
    assert apart(plain, sharded) < 1e-5


def test_a_killed_run_goes_on_to_the_same_end(random_model: Path, tmp_path: Path) -> None:
    changes = ("optimiser.steps=6", "optimiser.batch=32", "optimiser.learning_rate=0.001", "run.save_steps=2")
    changes += ("data.shuffle=false",)  # what the script says does not hang on how often a pair was asked before
    python(*command(tmp_path / "whole", random_model, *changes))
    torn = command(tmp_path / "torn", random_model, *changes)
    python(*torn, returns=-signal.SIGKILL, SCRIPTED_KILL="3")
    assert (tmp_path / "torn" / "checkpoint-2").is_dir()
    assert not (tmp_path / "torn" / "final").exists()
    python(*torn)
    whole, resumed = result(tmp_path / "whole"), result(tmp_path / "torn")
    assert all(row["grad_norm"] > 0 for row in whole["log"])
    assert apart(whole, dict(whole, parameters=load(random_model))) > 1e-3  # something was learned
    assert [row["step"] for row in resumed["log"]] == list(range(1, 7))
    assert resumed["log"] == whole["log"]
    assert apart(whole, resumed) == 0
