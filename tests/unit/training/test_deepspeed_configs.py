"""The DeepSpeed files are accepted by DeepSpeed's own checks, filled in for 4 and 16 GPUs, and refused when broken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from training.launch import run_arguments
from training.recipe import DEEPSPEED, Recipe, load_recipe, recipe_names
from training.shapes import QWEN2_VL_7B

pytest.importorskip("deepspeed")
pytest.importorskip("trl")

SHARDED = [name for name in recipe_names() if load_recipe(name).run.deepspeed]


@pytest.fixture(autouse=True)
def _one_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed asks for its rank first, and takes a machine without a process group for one device."""
    monkeypatch.setattr("deepspeed.runtime.config.dist.get_rank", lambda: 0)


class Devices:
    """Stands for the process group of ``count`` devices, each with other data."""

    def __init__(self, count: int) -> None:
        self.count = count

    def get_data_parallel_world_size(self) -> int:
        return self.count

    def get_model_parallel_rank(self) -> int:
        return 0


def filled(recipe: Recipe, devices: int) -> dict[str, Any]:
    """The file as transformers fills it in for ``devices``."""
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
    from trl import GRPOConfig

    arguments = run_arguments(recipe) | {"deepspeed": None, "report_to": [], "use_cpu": True}

    class Arguments(GRPOConfig):  # type: ignore[misc]
        world_size = devices

    args = Arguments(
        **arguments,
        num_generations=recipe.grpo.generations,
        generation_batch_size=recipe.grpo.generations * devices * 16,
    )
    config = HfTrainerDeepSpeedConfig(str(DEEPSPEED / f"{recipe.run.deepspeed}.json"))
    config.trainer_config_process(args)
    hidden = SimpleNamespace(hidden_size=QWEN2_VL_7B.hidden)
    config.trainer_config_finalize(args, SimpleNamespace(config=hidden), 100)
    made: dict[str, Any] = config.config
    return made


@pytest.mark.parametrize("devices", [4, 16])
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_the_files_hold_for_four_and_sixteen_gpus(stage: str, devices: int) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    recipe = load_recipe("differad-r1-7b", [f"run.deepspeed={stage}", f"run.gpus={devices}"])
    config = filled(recipe, devices)
    assert "auto" not in str(config)
    read = DeepSpeedConfig(config, mpu=Devices(devices))
    assert read.zero_optimization_stage == int(stage[-1])
    assert read.train_batch_size == recipe.optimiser.batch * recipe.optimiser.accumulation * devices
    assert config["bf16"]["enabled"] is True


@pytest.mark.parametrize("name", SHARDED)
def test_every_sharded_recipe_has_a_valid_file(name: str) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    recipe = load_recipe(name)
    assert DeepSpeedConfig(filled(recipe, recipe.run.gpus), mpu=Devices(recipe.run.gpus)).zero_optimization_stage == 3


@pytest.mark.parametrize(
    "broken",
    [
        {"zero_optimization": {"stage": 5}},
        {"zero_optimization": {"stage": 2, "no_such_key": 1}},
        {"train_batch_size": 7},
    ],
)
def test_the_check_can_fail(broken: dict[str, Any]) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    with pytest.raises((ValueError, AssertionError)):
        DeepSpeedConfig(filled(load_recipe("differad-r1-7b"), 4) | broken, mpu=Devices(4))
