"""Recipes: the committed ones are complete and say what the papers say; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from differad_edge.errors import ConfigError
from training.evaluate import TINY_SEED
from training.recipe import DEEPSPEED, Recipe, load_recipe, recipe_names
from training.reward_functions import reward_set
from training.tiny.pairs import HELD_OUT_SEED

NAMES = recipe_names()


def test_the_recipes_that_are_promised_are_there() -> None:
    promised = {"differad-r1-7b", "differad-r1-7b-cold-start", "iad-r1", "iad-r1-pa-sft", "lr-iad", "tiny-cold-start"}
    promised |= {"tiny-grpo", "tiny-student-base"} | {f"ablation-{name}" for name in ("iou-only", "center-only", "eq7")}
    promised |= {f"ablation-{name}" for name in ("plain", "resampling", "weight", "g2", "g4", "g6")}
    assert promised == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_is_whole(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    rewards = reward_set(recipe.reward)
    assert len(rewards.functions) == len(rewards.weights) > rewards.judged
    if recipe.run.deepspeed is not None:
        assert (DEEPSPEED / f"{recipe.run.deepspeed}.json").is_file()


def test_each_recipe_writes_to_a_folder_of_its_own() -> None:
    folders = [load_recipe(name).run.out for name in NAMES]
    assert len(set(folders)) == len(folders)


def test_differad_r1_is_what_the_paper_says() -> None:
    recipe = load_recipe("differad-r1-7b")
    assert recipe.optimiser.learning_rate == 1e-6
    assert recipe.model.freeze_vision
    assert (recipe.grpo.generations, recipe.grpo.temperature, recipe.grpo.max_new_tokens) == (8, 0.9, 256)
    assert (recipe.grpo.top_k, recipe.grpo.retries, recipe.grpo.tau) == (0, 2, 0.3)
    assert (recipe.reward.localisation, recipe.reward.alpha, recipe.reward.format_weight) == ("dclr", 0.6, 1.0)
    assert groups_a_step(recipe) == 16


def test_the_ablations_change_one_thing() -> None:
    base = load_recipe("differad-r1-7b")
    for name in NAMES:
        if not name.startswith("ablation-"):
            continue
        recipe = load_recipe(name)
        assert groups_a_step(recipe) == 16
        changed = {field for field in Recipe.model_fields if getattr(recipe, field) != getattr(base, field)}
        expected = {"grpo", "optimiser"} if "-g" in name else {"reward"} if recipe.reward != base.reward else {"grpo"}
        assert changed == expected | {"name", "about", "run"}, name


def groups_a_step(recipe: Recipe) -> int:
    completions = recipe.optimiser.batch * recipe.optimiser.accumulation * recipe.run.gpus
    assert completions % recipe.grpo.generations == 0
    return completions // recipe.grpo.generations


def test_changes_from_the_command_line() -> None:
    recipe = load_recipe("tiny-grpo", ["optimiser.steps=7", "reward.localisation=iou", "run.trackers=[]"])
    assert recipe.optimiser.steps == 7
    assert recipe.reward.localisation == "iou"
    assert recipe.run.trackers == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["optimiser.steps=0"], "optimiser.steps: got 0"),
        (["grpo.generations=1"], "grpo.generations: got 1"),
        (["grpo.temperature=.nan"], "grpo.temperature"),
        (["grpo.retry=3"], "grpo.retry: unknown setting, allowed here:.*retries"),
        (["reward.localisation=giou"], "reward.localisation: got 'giou'"),
        (["optimiser.batch=3"], "no multiple of grpo.generations"),
        (["data.pair_sets=[a]"], "either pair_sets or tiny"),
        (["rollout.backend=vllm-server"], "server_url where backend is vllm-server"),
        (["steps"], "change: got 'steps', allowed: key=value"),
        (["run.out=[}"], "a value that is not YAML"),
        ([".x=1"], "change: got"),
        (["optimiser.steps=true"], "optimiser.steps: got True"),
        (["run.seed=4294967296"], "run.seed: got 4294967296"),
        (["model.lora.targets=(["], "model.lora.targets: .*no regular expression"),
        (["rollout.backend=vllm-server", "rollout.server_url=nonsense"], "rollout.server_url: got 'nonsense'"),
        (["data.tiny.ramp_start=0.9", "data.tiny.ramp_end=0.1"], "ramp_end: got 0.1, allowed: at least"),
        (["grpo.loss=bnpo"], "grpo.loss: got 'bnpo'"),
        (["reward.kind=student"], "got 'difference-fixed', allowed with reward.kind 'student': 'student'"),
        (["data.answers=student"], "allowed with reward.kind 'difference': 'difference' or 'difference-fixed'"),
        (["reward.kind=lr-iad"], "data.answers: got 'difference-fixed', allowed with reward.kind 'lr-iad': 'lr-iad'"),
        (["data.answers=iad-r1"], "data.answers: got 'iad-r1', allowed with reward.kind 'difference'"),
        (["run.seed=1000003"], "run.seed: got 1000003, allowed with data.tiny: any but that of its held-out pairs"),
        (["run.out=~nouser/x"], "run.out: got '~nouser/x', allowed: a folder; "),
        (["run.out=''"], "run.out: got '', allowed: a folder"),
        (["run.out="], "run.out: got None"),
        (["model.path=''"], "model.path: got ''"),
        (["name='  '"], "name: got '  '"),
        (["data.workers=257"], "data.workers: got 257"),
        (["run.out=" + "[" * 3000], r"change: 'run.out=\[+' has a value that is not YAML"),
        (["run.seed=" + "9" * 5000], "change: 'run.seed=9+' has a value that is not YAML"),
        (["run.out=2001-99-99"], "has a value that is not YAML"),
        (["model.size_px=[64, 64]"], "model.size_px: allowed with data.answers 'student' alone"),
        (
            ["reward.kind=iad-r1", "data.answers=iad-r1"],
            "grpo.resample: got true, allowed with .* 'iad-r1': false",
        ),
        (
            ["reward.kind=lr-iad", "data.answers=lr-iad", "grpo.resample=false", "grpo.difficulty_weight=false"],
            "grpo.scale_rewards: got 'group', allowed with reward.kind 'lr-iad': 'none'",
        ),
    ],
)
def test_mistakes_are_named(changes: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe("tiny-grpo", changes)


def test_unknown_recipes_and_wrong_stages_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe: got 'differad', allowed: .*differad-r1-7b"):
        load_recipe("differad")
    with pytest.raises(ConfigError, match="stage is 'grpo', allowed here: 'cold-start'"):
        load_recipe("tiny-grpo", stage="cold-start")
    file = tmp_path / "mine.yaml"
    file.write_text("base: tiny-grpo\nname: mine\nrun: {out: here}\n")
    mine = load_recipe(str(file))
    assert (mine.name, mine.run.out, mine.run.seed) == ("mine", Path("here"), load_recipe("tiny-grpo").run.seed)
    file.write_text("base: nothing\n")
    with pytest.raises(ConfigError, match="base is 'nothing'"):
        load_recipe(str(file))
    file.write_text(f"base: {'n' * 5000}\n")
    with pytest.raises(ConfigError, match="base is 'nnn"):
        load_recipe(str(file))
    for name in ("n" * 5000, "n" * 5000 + ".yaml", "a\0b"):
        with pytest.raises(ConfigError, match="recipe: got '"):
            load_recipe(name)


def test_a_cold_start_answers_as_it_likes() -> None:
    assert load_recipe("tiny-cold-start", ["data.answers=iad-r1"]).data.answers == "iad-r1"


def test_held_out_pairs_are_those_that_checkpoints_are_asked_for() -> None:
    assert TINY_SEED == HELD_OUT_SEED
    recipe = load_recipe("differad-r1-7b", [f"run.seed={HELD_OUT_SEED}"])
    assert recipe.run.seed == HELD_OUT_SEED  # of a run on real pairs


def test_trained_weights_are_held_where_small_steps_count() -> None:
    tiny = ("model.dtype=bfloat16",)
    assert load_recipe("tiny-grpo", tiny).weights_dtype == "float32"
    assert load_recipe("tiny-grpo", (*tiny, "run.deepspeed=zero2")).weights_dtype == "bfloat16"
    assert load_recipe("tiny-grpo", (*tiny, "model.lora={}")).weights_dtype == "bfloat16"
