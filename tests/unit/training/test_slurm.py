"""The batch script of SLURM, with commands in its place that say how they were called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "training" / "slurm" / "grpo.sbatch"
NODES = ("n1", "n2", "n3")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a script for bash")


def started(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the script says, as job 7 on three nodes."""
    for name, body in {
        "scontrol": f"printf '%s\\n' {' '.join(NODES)}",
        "srun": 'echo "srun $*"',
        "python": "echo the-model",
    }.items():
        file = folder / name
        file.write_text(f"#!/usr/bin/env bash\n{body}\n")
        file.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    job = {"PATH": path, "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "7", **environment}
    return subprocess.run(["bash", SCRIPT, *words], env=job, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("gpus", "each"), [(None, 4), ("8", 8), ("a100:4", 4), ("gpu:a100:2", 2)])
def test_all_gpus_of_all_nodes_train(tmp_path: Path, gpus: str | None, each: int) -> None:
    environment = {} if gpus is None else {"SLURM_GPUS_PER_NODE": gpus}
    done = started(tmp_path, "tiny-grpo", "run.seed=3", **environment)
    assert done.returncode == 0, done.stderr
    assert "srun --nodes=3 --ntasks=3 --nodelist=n1,n2,n3 torchrun --nnodes=3" in done.stdout
    assert f"--nproc-per-node={each} " in done.stdout
    assert f"-m training.grpo tiny-grpo run.gpus={3 * each} run.seed=3" in done.stdout


def test_a_node_that_serves_does_not_train(tmp_path: Path) -> None:
    done = started(tmp_path, "tiny-grpo", VLLM_NODES="1", SLURM_GPUS_PER_NODE="a100:4")
    assert done.returncode == 0, done.stderr
    assert "--nodelist=n3 trl vllm-serve --model the-model --tensor-parallel-size 4" in done.stdout
    assert "run.gpus=8 rollout.backend=vllm-server rollout.server_url=http://n3:8000" in done.stdout


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ((), {}, "usage: sbatch"),
        (("tiny-grpo",), {"VLLM_NODES": "3"}, "VLLM_NODES=3 leaves none of 3 nodes to train"),
        (("tiny-grpo",), {"SLURM_GPUS_PER_NODE": "a100"}, "SLURM_GPUS_PER_NODE=a100, allowed: N or KIND:N"),
        (("tiny-grpo",), {"SLURM_GPUS_PER_NODE": "0"}, "SLURM_GPUS_PER_NODE=0, allowed: N or KIND:N"),
    ],
)
def test_what_cannot_start_is_named(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    done = started(tmp_path, *words, **environment)
    assert done.returncode != 0
    assert message in done.stderr
