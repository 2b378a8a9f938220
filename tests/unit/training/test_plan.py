"""Plans: parameters and tokens equal the real model's, work equals what PyTorch counts, and the CLI names mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from differad_edge.errors import ConfigError
from training.plan import GPUS, Plan, model_shape, parse_gpus, plan
from training.recipe import load_recipe, recipe_names
from training.shapes import QWEN2_VL_2B, QWEN2_VL_7B, shape_of

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.model import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def make(name: str, *changes: str, gpus: str = "4xA100-80G") -> Plan:
    devices, gpu = parse_gpus(gpus)
    return plan(load_recipe(name, changes), QWEN2_VL_7B, GPUS[gpu], devices, (800, 800), 10_000)


def test_published_sizes() -> None:
    assert QWEN2_VL_7B.parameters == 8_291_375_616  # as the checkpoint's index says
    assert QWEN2_VL_2B.parameters == 2_208_985_600
    assert QWEN2_VL_7B.image_tokens(800, 800) == 841
    assert QWEN2_VL_7B.image_tokens(640, 640) == 529


def test_parameters_equal_the_real_models(tiny: Path) -> None:
    from training.launch import freeze_vision, load_model
    from training.recipe import ModelRecipe

    model, _ = load_model(ModelRecipe(path=str(tiny), dtype="float32", freeze_vision=False))
    shape = shape_of(json.loads((tiny / "config.json").read_text()))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.vision == freeze_vision(model)


def test_work_equals_what_pytorch_counts(tiny: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from differad_edge.grounding import EVALUATION_PROMPT, messages
    from training.data import TinySource
    from training.launch import load_model
    from training.recipe import ModelRecipe

    model, processor = load_model(ModelRecipe(path=str(tiny), dtype="float32", attention="eager"))
    example = TinySource(1, 0)[0]
    text = processor.apply_chat_template(messages(EVALUATION_PROMPT), add_generation_prompt=True)
    inputs = processor(images=[[example.reference, example.target]], text=[text], return_tensors="pt")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    tokens = inputs["input_ids"].shape[1]
    shape = shape_of(json.loads((tiny / "config.json").read_text()))
    image_tokens = shape.image_tokens(56, 56)
    assert image_tokens == int((inputs["input_ids"] == model.config.image_token_id).sum()) // 2
    assert shape.forward_flops(tokens, image_tokens, 2, scored=tokens) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )


def test_memory_equals_what_adam_really_holds(tiny: Path) -> None:
    from training.launch import load_model
    from training.recipe import ModelRecipe

    recipe = load_recipe("tiny-grpo")
    model, _ = load_model(ModelRecipe(path=str(tiny), dtype="float32"))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moments = sum(
        value.numel() * value.element_size()
        for state in optimiser.state.values()
        for name, value in state.items()
        if name != "step"
    )
    shape = shape_of(json.loads((tiny / "config.json").read_text()))
    made = plan(recipe, shape, GPUS["A100-80G"], 1, (56, 56), None)
    gib = 2**30
    assert made.trained == sum(parameter.numel() for parameter in trained)
    assert made.weights_gib * gib == pytest.approx(sum(p.numel() * p.element_size() for p in model.parameters()))
    assert made.gradients_gib * gib == pytest.approx(sum(p.grad.numel() * p.grad.element_size() for p in trained))
    assert made.optimiser_gib * gib == pytest.approx(moments)


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("tiny-")])
def test_every_recipe_has_a_plan_that_fits_its_machine(name: str) -> None:
    made = make(name)
    assert 0 < made.total_gib < GPUS["A100-80G"].memory_gib
    assert made.step_s > 0
    assert made.steps is not None


def test_a_plan_moves_as_it_should() -> None:
    full, lora = make("differad-r1-7b"), make("differad-r1-7b", "model.lora={}")
    assert lora.trained < 0.05 * full.trained
    assert lora.optimiser_gib < 0.05 * full.optimiser_gib
    assert make("differad-r1-7b", "grpo.kl_beta=0.04").reference_gib > 0
    assert make("differad-r1-7b", "run.deepspeed=zero2").weights_gib > 3 * full.weights_gib
    assert make("differad-r1-7b", "optimiser.gradient_checkpointing=false").activations_gib > full.activations_gib
    assert make("differad-r1-7b", "rollout.backend=vllm-server", "rollout.server_url=http://a:8000").rollout_gib == 0
    wide = make("differad-r1-7b", gpus="16xA100-80G")
    assert wide.optimiser_gib == pytest.approx(full.optimiser_gib / 4)


@pytest.mark.parametrize("text", ["4", "x A100-80G", "0xA100-80G", "4xA100", "-1xA100-80G"])
def test_unknown_gpus_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--gpus"):
        parse_gpus(text)


def test_the_command_prints_a_plan_and_names_mistakes(tmp_path: Path) -> None:
    import typer

    from training.plan import main

    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["differad-r1-7b", "--model", "Qwen2-VL-7B", "--pairs", "10000"])
    assert done.exit_code == 0
    assert "625 steps" in done.output
    assert "fits" in done.output
    absent = CliRunner().invoke(app, ["differad-r1-7b"])
    assert absent.exit_code == 2
    assert "--model: got 'runs/differad-r1-7b/cold-start/final', allowed" in absent.output
    failed = CliRunner().invoke(app, ["differad-r1-7b", "--model", "Nobody/Model-3B"])
    assert failed.exit_code == 2
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="does not describe a Qwen2-VL"):
        model_shape(str(tmp_path))
