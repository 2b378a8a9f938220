"""Cold start: it learns from the answers alone, goes on after a stop, and names what it cannot start from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from differad_edge.errors import ModelIntegrityError
from training.recipe import ModelRecipe, load_recipe

pytest.importorskip("trl")

SMALL = ("optimiser.batch=4", "run.log_steps=1", "run.trackers=[]", "data.workers=0", "data.tiny.pairs=400")


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.model import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("random"))


@pytest.mark.slow
def test_it_learns_and_a_stopped_run_goes_on_to_the_same_end(random_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from training.cold_start import cold_start_trainer, train
    from training.resume import begin

    changes = (*SMALL, f"model.path={random_model}", "run.save_steps=5", "optimiser.steps=12", "run.keep_checkpoints=9")
    changes += ("optimiser.schedule=constant", "optimiser.warmup_steps=0")
    whole, torn = (load_recipe("tiny-cold-start", (*changes, f"run.out={tmp_path / name}")) for name in "ab")
    train(whole)
    begin(torn)
    trainer = cold_start_trainer(torn)
    trainer.args.max_steps = 7  # stopped two steps after a checkpoint
    trainer.train()
    train(torn)
    logs = []
    for recipe in (whole, torn):
        state = json.loads((recipe.run.out / "checkpoint-12" / "trainer_state.json").read_text())
        logs.append([(row["step"], row["loss"]) for row in state["log_history"] if "loss" in row])
    assert logs[0][-1][1] < 0.7 * logs[0][0][1]
    assert dict(logs[0])[12] == dict(logs[1])[12]
    first, second = (load_file(recipe.run.out / "final" / "model.safetensors") for recipe in (whole, torn))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    for recipe in (whole, torn):
        assert not list((recipe.run.out / "final").glob("*.bin"))  # no pickle
        assert not (recipe.run.out / "final.tmp").exists()


@pytest.mark.slow
def test_a_torn_result_is_written_again_from_the_last_checkpoint(random_model: Path, tmp_path: Path) -> None:
    from training.cold_start import train

    changes = (*SMALL, f"model.path={random_model}", "run.save_steps=2", "optimiser.steps=2", f"run.out={tmp_path}")
    train(load_recipe("tiny-cold-start", changes))
    weights = tmp_path / "final" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    (tmp_path / "final" / "student.json").write_text("{}")
    train(load_recipe("tiny-cold-start", changes))
    assert weights.read_bytes() == whole
    assert not (tmp_path / "final" / "student.json").exists()


@pytest.mark.slow
def test_adapters_alone_are_trained_and_a_stopped_run_goes_on_to_the_same_end(
    random_model: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    from training.cold_start import cold_start_trainer, train
    from training.resume import begin

    changes = (*SMALL, f"model.path={random_model}", "model.lora={rank: 4, dropout: 0.0}", "run.save_steps=2")
    changes += ("optimiser.steps=4", "optimiser.schedule=constant", "optimiser.warmup_steps=0")
    whole, torn = (load_recipe("tiny-cold-start", (*changes, f"run.out={tmp_path / name}")) for name in "ab")
    train(whole)
    begin(torn)
    trainer = cold_start_trainer(torn)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name and "language_model" in name for name in trained)
    trainer.args.max_steps = 3  # stopped a step after a checkpoint
    trainer.train()
    train(torn)
    assert not begin(torn)
    first, second = (load_file(recipe.run.out / "final" / "adapter_model.safetensors") for recipe in (whole, torn))
    assert len(first) == len(trained)
    assert any(np.abs(first[name]).max() > 0 for name in first if "lora_B" in name)  # B starts at zero
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_loss_is_taken_on_the_answer_alone(random_model: Path, tmp_path: Path) -> None:
    from training.cold_start import cold_start_trainer

    changes = (*SMALL, f"model.path={random_model}", f"run.out={tmp_path}")
    trainer = cold_start_trainer(load_recipe("tiny-cold-start", changes))
    batch = next(iter(trainer.get_train_dataloader()))
    tokenizer = trainer.processing_class.tokenizer
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        learned = tokenizer.decode(ids[labels != -100])
        assert learned.startswith("<think>")
        assert learned.strip().endswith("</answer><|im_end|>")


@pytest.mark.parametrize("what", ["nothing", "text", "torn", "lacking", "foreign"])
def test_what_is_no_checkpoint_is_named(what: str, random_model: Path, tmp_path: Path) -> None:
    import shutil

    from training.launch import load_model

    folder = tmp_path / "model"
    if what != "nothing":
        shutil.copytree(random_model, folder)
    if what == "text":
        (folder / "processor_config.json").write_text("{")
    if what == "torn":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    if what == "lacking":
        from safetensors.numpy import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        del weights[next(name for name in weights if name.endswith("q_proj.weight"))]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if what == "foreign":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelIntegrityError, match="model"):
        load_model(ModelRecipe(path=str(folder), dtype="float32"))
