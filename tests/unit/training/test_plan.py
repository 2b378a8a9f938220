"""Plans: parameters and tokens equal the real model's, work equals what PyTorch counts, and the CLI names mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from differad_edge.errors import ConfigError
from training.lineage import model_shape
from training.plan import GIB, GPUS, Plan, kept_by_a_layer, main, parse_gpus, plan, trained_parameters
from training.recipe import LoraRecipe, ModelRecipe, load_recipe, recipe_names
from training.shapes import KNOWN, QWEN2_VL_2B, QWEN2_VL_7B, QWEN3_VL_2B, Shape, shape_of

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.model import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.student import write_tiny_student

    return write_tiny_student(tmp_path_factory.mktemp("student"))


@pytest.fixture(params=["tiny", "student"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def make(name: str, *changes: str, gpus: str = "4xA100-80G", shape: Shape = QWEN2_VL_7B) -> Plan:
    devices, gpu = parse_gpus(gpus)
    return plan(load_recipe(name, changes), shape, GPUS[gpu], devices, (800, 800), 10_000)


def make_student(*changes: str, name: str = "differad-r1-7b-cold-start", gpus: str = "4xA100-80G") -> Plan:
    return make(name, "model.path=Qwen/Qwen3-VL-2B-Instruct", *changes, gpus=gpus, shape=QWEN3_VL_2B)


def test_published_sizes() -> None:
    assert QWEN2_VL_7B.parameters == 8_291_375_616  # as the checkpoint's index says
    assert QWEN2_VL_2B.parameters == 2_208_985_600
    assert QWEN2_VL_7B.image_tokens(800, 800) == 841
    assert QWEN2_VL_7B.image_tokens(640, 640) == 529
    assert QWEN3_VL_2B.parameters == 2_127_532_032
    assert QWEN3_VL_2B.image_tokens(800, 800) == 625
    assert QWEN3_VL_2B.image_tokens(640, 640) == 400
    assert QWEN3_VL_2B.kv_bytes_per_token() == 114_688
    assert model_shape("Qwen/Qwen3-VL-2B-Instruct") is QWEN3_VL_2B


def test_parameters_equal_the_real_models(checkpoint: Path) -> None:
    from training.launch import freeze_vision, load_model

    model, _ = load_model(ModelRecipe(path=str(checkpoint), dtype="float32", freeze_vision=False))
    shape = model_shape(str(checkpoint))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.vision == freeze_vision(model)


def test_parameters_of_heads_that_are_wider_than_the_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import get_peft_model

    from training.launch import adapters
    from training.tiny import student as tiny_student

    monkeypatch.setattr(tiny_student, "HEAD_WIDTH", 24)
    model = tiny_student.student_model(tiny_student.student_processor(), seed=0)
    shape = shape_of(model.config.to_dict())
    assert (shape.q_width, shape.hidden) == (192, 128)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    recipe = load_recipe("tiny-cold-start", ["model.lora={rank: 4}"])
    wrapped = get_peft_model(model, adapters(recipe.model))
    assert trained_parameters(recipe, shape) == sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


def test_a_saved_config_gives_back_the_shape(student: Path) -> None:
    expected = Shape(4, 128, 384, 8, 4, 16, 0, True, 3, 96, 288, 8, qk_norm=True, positions=256, deepstack=2)
    config = json.loads((student / "config.json").read_text())
    assert shape_of(config) == replace(expected, vocabulary=config["text_config"]["vocab_size"])


def test_work_equals_what_pytorch_counts(checkpoint: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from differad_edge.grounding import EVALUATION_PROMPT, messages
    from training.data import TinySource
    from training.launch import load_model

    model, processor = load_model(ModelRecipe(path=str(checkpoint), dtype="float32", attention="eager"))
    example = TinySource(1, 0)[0]
    text = processor.apply_chat_template(messages(EVALUATION_PROMPT), add_generation_prompt=True)
    inputs = processor(images=[[example.reference, example.target]], text=[text], return_tensors="pt")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    tokens = inputs["input_ids"].shape[1]
    shape = model_shape(str(checkpoint))
    _, rows, columns = inputs["image_grid_thw"][0].tolist()
    image_tokens = shape.image_tokens(columns * shape.patch_px, rows * shape.patch_px)
    assert image_tokens == int((inputs["input_ids"] == model.config.image_token_id).sum()) // 2
    assert shape.forward_flops(tokens, image_tokens, 2, scored=tokens) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )


def test_memory_equals_what_adam_really_holds(tiny: Path) -> None:
    from training.launch import load_model

    recipe = load_recipe("tiny-grpo")
    model, _ = load_model(ModelRecipe(path=str(tiny), dtype="float32"))
    _holds_what_it_plans(model, plan(recipe, model_shape(str(tiny)), GPUS["A100-80G"], 1, (56, 56), None))


def test_memory_equals_what_adapters_really_hold(student: Path) -> None:
    from peft import get_peft_model

    from training.launch import adapters, load_model

    recipe = load_recipe("tiny-cold-start", ["model.dtype=bfloat16", "model.lora={rank: 4}"])
    model, _ = load_model(recipe.model.model_copy(update={"path": str(student)}), recipe.weights_dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    wrapped = get_peft_model(model, adapters(recipe.model))
    _holds_what_it_plans(wrapped, plan(recipe, model_shape(str(student)), GPUS["RTX4090-24G"], 1, (64, 64), None))


def _holds_what_it_plans(model: Any, made: Plan) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moments = [value for state in optimiser.state.values() for name, value in state.items() if name != "step"]
    assert made.trained == sum(parameter.numel() for parameter in trained)
    assert made.weights_gib * GIB == pytest.approx(_bytes(model.parameters()))
    assert made.gradients_gib * GIB == pytest.approx(_bytes(parameter.grad for parameter in trained))
    assert made.optimiser_gib * GIB == pytest.approx(_bytes(moments))


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("lora", [None, LoraRecipe(rank=8, dropout=0.0)], ids=["full", "adapters"])
def test_a_layer_keeps_what_pytorch_saves(student: Path, lora: LoraRecipe | None) -> None:
    from peft import get_peft_model

    from training.launch import adapters, load_model

    recipe = ModelRecipe(path=str(student), dtype="bfloat16", lora=lora)
    model, _ = load_model(recipe)
    wrapped = model if lora is None else get_peft_model(model, adapters(recipe))
    wrapped.train()
    text = model.model.language_model
    weights = {parameter.untyped_storage().data_ptr() for parameter in wrapped.parameters()}
    tokens, kept = 61, {}  # a length that is no width of the model's

    def keep(tensor: Any) -> Any:
        if tokens in tensor.shape and tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that its address is not used again
        return tensor

    states = torch.randn(1, tokens, text.config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    turns = text.rotary_emb(states, torch.arange(tokens).expand(3, 1, -1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        text.layers[0](states, position_embeddings=turns, attention_mask=None)
    values = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / tokens / 2
    assert kept_by_a_layer(lora, model_shape(str(student))) == pytest.approx(values, rel=0.05)


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).data.tiny is None])
def test_every_recipe_has_a_plan_that_fits_its_machine(name: str) -> None:
    path = load_recipe(name).model.path
    made = make(name, shape=next((shape for known, shape in KNOWN.items() if known in path), QWEN2_VL_7B))
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


@pytest.mark.parametrize("batch", [2, 4])
def test_adapters_of_the_student_fit_one_24_gb_card(batch: int) -> None:
    changes = ("model.lora={}", "run.gpus=1", "run.deepspeed=null", f"optimiser.batch={batch}")
    made = make_student(*changes, gpus="1xRTX4090-24G")
    assert made.image_tokens == 625
    assert made.trained == 69_730_304
    assert made.weights_gib == pytest.approx((2 * 2_127_532_032 + 4 * 69_730_304) / GIB)
    assert made.total_gib < 0.5 * GPUS["RTX4090-24G"].memory_gib
    plain = make_student(*changes, "optimiser.gradient_checkpointing=false", gpus="1xRTX4090-24G")
    assert plain.activations_gib > 8 * made.activations_gib
    assert plain.train_s < made.train_s
    rollouts = make_student(*changes, "optimiser.batch=8", name="differad-r1-7b", gpus="1xRTX4090-24G")
    assert 0 < rollouts.rollout_gib < rollouts.total_gib < GPUS["RTX4090-24G"].memory_gib


@pytest.mark.parametrize("name", ["differad-r1-7b-cold-start", "differad-r1-7b"])
def test_full_training_of_the_student_fits_four_80_gb_cards(name: str) -> None:
    made = make_student("run.deepspeed=zero2", name=name)
    assert made.trained == QWEN3_VL_2B.parameters - QWEN3_VL_2B.vision
    assert made.weights_gib == pytest.approx(2 * QWEN3_VL_2B.parameters / GIB)
    assert made.gradients_gib == pytest.approx(2 * made.trained / 4 / GIB)
    assert made.optimiser_gib == pytest.approx(12 * made.trained / 4 / GIB)
    assert made.total_gib < GPUS["A100-80G"].memory_gib
    wide = make_student("run.deepspeed=zero2", name=name, gpus="16xA100-80G")
    assert wide.optimiser_gib == pytest.approx(made.optimiser_gib / 4)
    assert made.steps is not None
    assert wide.steps == made.steps // 4
    seeing = make_student("run.deepspeed=zero2", "model.freeze_vision=false", name=name)
    assert seeing.trained == QWEN3_VL_2B.parameters
    assert seeing.activations_gib > made.activations_gib
    assert seeing.train_s > made.train_s


def test_a_divergence_costs_a_pass_and_without_adapters_a_second_model() -> None:
    for lora in ("null", "{}"):
        changes = (f"model.lora={lora}", "run.deepspeed=zero2")
        plain = make_student(*changes, name="differad-r1-7b")
        held = make_student(*changes, "grpo.kl_beta=0.04", name="differad-r1-7b")
        assert held.step_flops - plain.step_flops == pytest.approx(32 * plain.forward_flops)
        assert held.reference_gib == (plain.weights_gib if lora == "null" else 0)


@pytest.mark.parametrize("text", ["4", "x A100-80G", "0xA100-80G", "4xA100", "-1xA100-80G"])
def test_unknown_gpus_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--gpus"):
        parse_gpus(text)


def test_the_command_prints_a_plan_and_names_mistakes(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["differad-r1-7b", "--model", "Qwen2-VL-7B", "--pairs", "10000"])
    assert done.exit_code == 0
    assert "625 steps" in done.output
    assert "fits" in done.output
    absent = CliRunner().invoke(app, ["differad-r1-7b", "model.path=runs/mine/final"])
    assert absent.exit_code == 2
    assert "--model: got 'runs/mine/final', allowed" in absent.output
    failed = CliRunner().invoke(app, ["differad-r1-7b", "--model", "Nobody/Model-3B"])
    assert failed.exit_code == 2
    assert "Qwen2-VL-7B or Qwen2-VL-2B or Qwen3-VL-2B" in failed.output
    for gpus in ("1xRTX4090-24G", "4xA100-80G", "16xH100-80G"):
        student = ["differad-r1-7b-cold-start", "run.deepspeed=zero2", "--model", "Qwen3-VL-2B", "--gpus", gpus]
        done = CliRunner().invoke(app, student)
        assert done.exit_code == 0
        assert "2.128 billion" in done.output
        assert "2 x 625 for images" in done.output


def test_a_student_is_planned_at_its_size() -> None:
    app = typer.Typer()
    app.command()(main)
    changes = ["data.answers=student", "model.size_px=[640, 320]", "--model", "Qwen3-VL-2B"]
    done = CliRunner().invoke(app, ["differad-r1-7b-cold-start", *changes])
    assert "2 x 200 for images" in done.output
    assert (
        "2 x 400 for images"
        in CliRunner().invoke(app, ["differad-r1-7b-cold-start", *changes, "--image", "640"]).output
    )


@pytest.mark.parametrize("name", recipe_names())
def test_the_command_plans_every_committed_recipe_where_no_checkpoint_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, [name, "--gpus", "4xA100-80G"])
    assert done.exit_code == 0, done.output
    assert "GiB: fits" in done.output
    assert (" 0.00" if load_recipe(name).data.tiny else " 8.291 billion") in done.output


def test_a_result_that_is_not_there_is_like_what_it_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path, student: Path
) -> None:
    expected = {"runs/differad-r1-7b/grpo/final": QWEN2_VL_7B, "runs/differad-r1-7b/grpo": QWEN2_VL_7B}
    expected |= {"runs/iad-r1/grpo/final": QWEN2_VL_7B, "runs/tiny/grpo/final/": model_shape(str(tiny))}
    expected |= {"runs/tiny/random": model_shape(str(tiny)), "runs/tiny/student-base/final": model_shape(str(student))}
    monkeypatch.chdir(tmp_path)
    for path, shape in expected.items():
        assert model_shape(path) == shape
    monkeypatch.setattr("training.lineage.TINY", {})
    with pytest.raises(ConfigError, match="--model: got 'runs/tiny/grpo/final', allowed: a checkpoint folder"):
        model_shape("runs/tiny/grpo/final")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({}, "vision_config"),
        ({"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280, "intermediate_size": 3420}}, "embed_dim"),
        ({"model_type": "qwen3_vl", "text_config": {}, "vision_config": {"hidden_size": 1024}}, "num_hidden_layers"),
        ({"model_type": "qwen3_vl_moe", "vision_config": {"hidden_size": 1152}}, "embed_dim"),
    ],
)
def test_an_unknown_config_is_named(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"does not describe a model of the Qwen-VL family: '{named}'"):
        model_shape(str(tmp_path))


QWEN2 = {
    "text_config": {
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_key_value_heads": 1,
        "vocab_size": 99,
    },
    "vision_config": {"embed_dim": 8, "mlp_ratio": 4, "depth": 2, "patch_size": 14},
}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "got list, allowed: an object"),
        ("null", "got NoneType, allowed: an object"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ({"vision_config": []}, "vision_config: got '\\[\\]', allowed: an object"),
        ({"text_config": "big"}, "text_config: got 'big', allowed: an object"),
        ({"text_config": {"hidden_size": "3584"}}, "hidden_size: got '3584', allowed: a whole number from 1"),
        ({"text_config": {"num_attention_heads": 0}}, "num_attention_heads: got '0', allowed: a whole number from 1"),
        ({"text_config": {"vocab_size": 10**400}}, "vocab_size: got '1000"),
        ({"vision_config": {"mlp_ratio": None}}, "mlp_ratio: got 'None', allowed: a number above 0"),
        ({"vision_config": {"patch_size": 14.0}}, "patch_size: got '14.0', allowed: a whole number"),
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, text: Any, named: str) -> None:
    if isinstance(text, dict):
        broken = {name: QWEN2[name] | part if isinstance(part, dict) and part else part for name, part in text.items()}
        text = json.dumps(QWEN2 | broken)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=f"does not describe a model of the Qwen-VL family: .*{named}"):
        model_shape(str(tmp_path))
