"""A run's folder belongs to one recipe, a finished run is left alone, a torn checkpoint is passed over."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from differad_edge.errors import TrainingError
from training.recipe import Recipe, load_recipe
from training.resume import RECIPE_FILE, begin, last_checkpoint


def recipe(out: Path, *changes: str) -> Recipe:
    return load_recipe("tiny-cold-start", (f"run.out={out}", *changes))


def checkpoint(out: Path, step: int) -> Path:
    folder = out / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    save_file({"w": np.zeros(1000, np.float32)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.save({"state": {}}, folder / name)
    return folder


def finished(out: Path) -> Path:
    """The weights of a finished run."""
    begin(recipe(out))
    (out / "final").mkdir()
    save_file({"w": np.zeros(30, np.float32)}, out / "final" / "model.safetensors")
    return out / "final" / "model.safetensors"


def test_a_folder_belongs_to_one_recipe(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert begin(recipe(out))
    checkpoint(out, 2)
    assert begin(recipe(out, "run.log_steps=3", "data.workers=0"))  # changes nothing of what is learnt
    with pytest.raises(TrainingError, match=r"optimiser\.learning_rate: 0\.001 there, 0\.5 now"):
        begin(recipe(out, "optimiser.learning_rate=0.5"))
    with pytest.raises(TrainingError, match=r"data\.shuffle: False there, True now"):
        begin(load_recipe("tiny-grpo", (f"run.out={out}",)))


def test_a_start_that_failed_leaves_the_folder_free(tmp_path: Path) -> None:
    assert begin(recipe(tmp_path, "optimiser.learning_rate=0.5"))
    assert begin(recipe(tmp_path))
    checkpoint(tmp_path, 2)
    assert begin(recipe(tmp_path))
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.001 there, 0\.5 now"):
        begin(recipe(tmp_path, "optimiser.learning_rate=0.5"))


def test_a_field_that_is_newer_than_the_run_has_its_default(tmp_path: Path) -> None:
    begin(recipe(tmp_path))
    checkpoint(tmp_path, 2)
    file = tmp_path / RECIPE_FILE
    older = json.loads(file.read_text())
    del older["optimiser"]["max_grad_norm"], older["rollout"], older["data"]["tiny"]["hardest"]
    file.write_text(json.dumps(older))
    assert begin(recipe(tmp_path))
    with pytest.raises(TrainingError, match=r"optimiser\.max_grad_norm: 1\.0 there, 2\.0 now"):
        begin(recipe(tmp_path, "optimiser.max_grad_norm=2"))
    older["optimiser"]["momentum"] = 0.9  # gone since then
    file.write_text(json.dumps(older))
    with pytest.raises(TrainingError, match=r"optimiser\.momentum: 0\.9 there, None now"):
        begin(recipe(tmp_path))


@pytest.mark.parametrize("text", ["[]", "{", '{"run": 3}', "[" * 5000])
def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    checkpoint(tmp_path, 2)
    (tmp_path / RECIPE_FILE).write_text(text)
    with pytest.raises(TrainingError, match=r"run\.out: "):
        begin(recipe(tmp_path))


def test_a_finished_run_is_left_alone_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finished(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert not begin(recipe(tmp_path))
    assert f"{tmp_path} is finished already" in caplog.text


def test_a_torn_result_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = finished(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-4])
    with caplog.at_level(logging.WARNING):
        assert begin(recipe(tmp_path))
    assert "final is not complete and made again: model.safetensors is torn" in caplog.text
    weights.unlink()
    assert begin(recipe(tmp_path))


def test_a_result_in_several_files_needs_all_of_them(tmp_path: Path) -> None:
    weights = finished(tmp_path)
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for part in parts:
        (weights.parent / part).write_bytes(weights.read_bytes())
    weights.unlink()
    assert begin(recipe(tmp_path))  # without an index nothing can be loaded
    index = {"weight_map": {"a": parts[0], "b": parts[1]}}
    (weights.parent / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not begin(recipe(tmp_path))
    (weights.parent / parts[1]).unlink()
    assert begin(recipe(tmp_path))


def test_a_folder_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "other", 4)
    with pytest.raises(TrainingError, match=r"holds a run without recipe\.json"):
        begin(recipe(tmp_path / "other"))
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="allowed: a folder that can be written"):
        begin(recipe(tmp_path / "file"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trainer_state.json", ""),
        ("model.safetensors", "torn"),
        ("model.safetensors", None),
        ("optimizer.pt", "torn"),
        ("optimizer.pt", None),
        ("scheduler.pt", None),
    ],
)
def test_a_torn_checkpoint_is_passed_over(
    name: str, content: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert last_checkpoint(tmp_path) is None
    good, torn = checkpoint(tmp_path, 8), checkpoint(tmp_path, 10)
    (tmp_path / "checkpoint-abc").mkdir()
    assert last_checkpoint(tmp_path) == str(torn)
    if content is None:
        (torn / name).unlink()
    else:
        (torn / name).write_text(content)
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(tmp_path) == str(good)
    assert "checkpoint-10 is not complete" in caplog.text
    (good / "trainer_state.json").unlink()
    with pytest.raises(TrainingError, match=r"no complete checkpoint \(checkpoint-10.*checkpoint-8.*remove them"):
        last_checkpoint(tmp_path)


def test_half_written_weights_are_noticed(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"model\.safetensors is torn"):
        last_checkpoint(tmp_path)
