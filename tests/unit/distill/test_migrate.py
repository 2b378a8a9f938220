"""Migration: recipes are whole, plans fit their machines, adapters end as whole checkpoints, mistakes are named."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from differad_edge.errors import ConfigError, TrainingError
from distill.recipe import load_migrate_recipe, migrate_recipe_names
from training.plan import GPUS, model_shape, parse_gpus, plan
from training.student import student_card
from training.tiny.pair_set import write_tiny_set

NAMES = migrate_recipe_names()
MACHINES = {
    "qwen3-vl-2b-lora": "1xRTX4090-24G",
    "qwen3-vl-2b-full": "4xA100-80G",
    "qwen3-vl-2b-full-16": "16xA100-80G",
}


def test_the_recipes_that_are_promised_are_there() -> None:
    assert set(NAMES) == {*MACHINES, "tiny"}


@pytest.mark.parametrize("name", NAMES)
def test_each_stage_starts_where_the_one_before_ended(name: str) -> None:
    recipe = load_migrate_recipe(name)
    stages = recipe.stages()
    assert [stage.name for stage in stages] == ["sft", "logits", "grpo"]
    assert stages[0].recipe.model.path == recipe.model.path
    for before, after in itertools.pairwise(stages):
        ended = "final" if recipe.model.lora is None else "merged"
        assert after.recipe.model.path == str(before.recipe.run.out / ended)
    assert all(stage.recipe.is_student for stage in stages)
    assert [stage.weight > 0 for stage in stages] == [False, True, False]
    assert stages[2].recipe.data.pair_sets != recipe.pair_sets


@pytest.mark.parametrize(("name", "machine"), MACHINES.items())
def test_the_real_sizes_fit_their_machines(name: str, machine: str) -> None:
    recipe = load_migrate_recipe(name)
    devices, gpu = parse_gpus(machine)
    assert recipe.run.gpus == devices
    assert recipe.model.size_px is not None
    shape = model_shape(recipe.model.path)
    for stage in recipe.stages():
        made = plan(stage.recipe, shape, GPUS[gpu], devices, recipe.model.size_px, 10_000)
        assert made.image_tokens == 625
        assert 0 < made.total_gib < GPUS[gpu].memory_gib


def test_the_plan_is_printed_stage_by_stage() -> None:
    from distill.plan import main

    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["qwen3-vl-2b-lora", "--gpus", "1xRTX4090-24G", "--pairs", "10000"])
    assert done.exit_code == 0
    assert done.output.count("GiB: fits") == 4
    assert CliRunner().invoke(app, ["nobody"]).exit_code == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["sft=null", "logits=null", "grpo=null"], "at least one of sft, logits and grpo"),
        (["pair_sets=[]"], "pair_sets"),
        (["logits.weight=2"], "logits.weight"),
        (["speed=1"], "speed"),
        (["model.size_px=[1,1]"], "size_px"),
        (["grpo.reward.kind=difference"], "got 'student', allowed with reward.kind 'difference'"),
        (["grpo.optimiser.batch=3"], "no multiple"),
    ],
)
def test_mistakes_in_recipes_are_named(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_migrate_recipe("tiny", changes)


def test_mistakes_on_the_command_line_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    from distill.migrate import main

    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["nobody"]) == 2
    assert "recipe: got 'nobody', allowed" in capsys.readouterr().err
    assert main(["tiny", "pair_sets=[nowhere]", "model.path=nowhere", "held_out=[]"]) == 2
    assert "error: " in capsys.readouterr().err
    assert main(["tiny", "held_out=[nowhere]"]) == 2  # before anything is trained
    assert "error: nowhere: not a folder" in capsys.readouterr().err
    assert main(["tiny", "--report"]) == 2
    assert "not there yet; train first" in capsys.readouterr().err


@pytest.mark.slow
def test_adapters_end_as_a_whole_student(tmp_path: Path) -> None:
    """Two steps of each stage with LoRA: what comes out is a checkpoint that the engine loads, with its card."""
    from differad_edge.config import ModelConfig
    from differad_edge.engines.vlm.load import load_student, read_card
    from distill.ask import ask_student
    from distill.migrate import main
    from training.data import CanvasSource, TinySource
    from training.tiny.student import write_tiny_student

    base = write_tiny_student(tmp_path / "base", seed=1)
    pairs = write_tiny_set(tmp_path / "pairs", n=16, seed=3)
    changes = [
        *(f"model.path={base}", "model.lora={rank: 4, alpha: 8}", f"pair_sets=[{pairs}]", f"held_out=[{pairs}]"),
        *(f"grpo.pair_sets=[{pairs}]", f"run.out={tmp_path / 'out'}", "workers=0", "grpo.optimiser.batch=8"),
        *(f"{stage}.optimiser.steps=2" for stage in ("sft", "logits", "grpo")),
        *("sft.optimiser.batch=4", "logits.optimiser.batch=4"),
    ]
    assert main(["tiny", *changes]) == 0
    final = tmp_path / "out" / "final"
    assert read_card(str(final)).size_px == (64, 64)
    assert not list(final.glob("adapter*"))
    assert not list(final.glob("*.bin"))
    student = load_student(ModelConfig(path=str(final)), dtype="float32")
    answers = ask_student(student, [CanvasSource(TinySource(3, 0), student.question.layout.size)[n] for n in range(3)])
    assert len(answers) == 3
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["stages"]) == ["before", "sft", "logits", "grpo"]
    assert report["stages"]["before"]["weights"] != report["stages"]["sft"]["weights"]
    card = (final / "README.md").read_text()
    assert "not stated" in card  # the licence of a set that states none
    assert "held out, not learnt from" in card
    assert main(["tiny", *changes]) == 0  # nothing is trained again
    assert main(["tiny", *changes, "sft.optimiser.learning_rate=1"]) == 2


def test_a_card_says_what_a_student_is_asked_with(tmp_path: Path) -> None:
    from training.tiny.student import write_tiny_student

    base = write_tiny_student(tmp_path / "base", seed=1)
    recipe = load_migrate_recipe("tiny", [f"model.path={base}", "model.size_px=[96, 64]", "model.fit=letterbox"])
    assert student_card(recipe.model).size_px == (96, 64)
    assert student_card(recipe.model).fit == "letterbox"


def test_gain_is_paired() -> None:
    from differad_edge.results import Box, Finding, Verdict
    from differad_edge.scoring import Outcome
    from distill.report import gain

    box = Box(0, 0, 10, 10)

    def outcome(right: bool) -> Outcome:
        found = (Finding(box, 1.0),) if right else ()
        return Outcome("p", (box,), found, found, Verdict.NG if right else Verdict.OK, (100, 100), score=1.0)

    before = [outcome(n % 2 == 0) for n in range(400)]
    after = [outcome(n % 2 == 0 or n % 10 == 1) for n in range(400)]
    mean, low, high = gain(before, after)
    assert mean == pytest.approx(0.1)
    assert 0.05 < low < mean < high < 0.15
    assert np.allclose(gain(before, before), 0)


def test_a_stage_that_is_missing_is_named(tmp_path: Path) -> None:
    from distill.report import write_report

    with pytest.raises(TrainingError, match="train first"):
        write_report(load_migrate_recipe("tiny", [f"run.out={tmp_path}"]))
