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
from training.resume import begin, last_checkpoint


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


def test_a_folder_belongs_to_one_recipe(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert begin(recipe(out))
    assert begin(recipe(out, "run.log_steps=3", "data.workers=0"))  # changes nothing of what is learnt
    with pytest.raises(TrainingError, match=r"optimiser\.learning_rate: 0\.001 there, 0\.5 now"):
        begin(recipe(out, "optimiser.learning_rate=0.5"))
    with pytest.raises(TrainingError, match=r"data\.shuffle: False there, True now"):
        begin(load_recipe("tiny-grpo", (f"run.out={out}",)))


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    begin(recipe(tmp_path))
    (tmp_path / "final").mkdir()
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "final" / "model.safetensors")
    assert not begin(recipe(tmp_path))


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
