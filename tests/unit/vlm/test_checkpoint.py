"""What a checkpoint may be: a folder with safetensors, or an id of the hub; anything else is named in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from differad_edge.engines.vlm import checkpoint as reading
from differad_edge.engines.vlm.checkpoint import file_beside, load_model, load_processor, model_type, weights_identity
from differad_edge.errors import ModelIntegrityError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.student import write_tiny_student

    return write_tiny_student(tmp_path_factory.mktemp("student"))


def test_pickled_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    load_model(folder, dtype="float32")  # beside safetensors it is not looked at
    (folder / "model.safetensors").unlink()
    words = "copy holds no weights: got pytorch_model.bin, allowed: safetensors"
    with pytest.raises(ModelIntegrityError, match=words):
        load_model(folder, dtype="float32")
    with pytest.raises(ModelIntegrityError, match=words):
        weights_identity(str(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelIntegrityError, match="copy holds no weights: got none, allowed: safetensors"):
        load_model(folder, dtype="float32")


def test_no_pickle_comes_from_the_hub_either(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForImageTextToText

    asked = {}

    def from_pretrained(model: str, **options: object) -> None:
        asked.update(options)
        raise OSError("some/model does not appear to have a file named model.safetensors.")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", from_pretrained)
    with pytest.raises(ModelIntegrityError, match=r"an id that the hub knows: some/model does not .* model\.safetens"):
        load_model("some/model", dtype="float32")
    assert asked["use_safetensors"] is True


@pytest.mark.parametrize("name", ["/no/such/folder", "students/of/mine", "./student", "../student"])
def test_a_folder_that_is_missing_is_no_matter_of_the_hub(name: str) -> None:
    for read in (
        model_type,
        load_processor,
        lambda path: load_model(path, dtype="float32"),
        lambda path: file_beside(path, "x"),
    ):
        with pytest.raises(ModelIntegrityError) as caught:
            read(name)
        assert str(caught.value) == f"model: got {name!r}, allowed: a checkpoint folder, or an id that the hub knows"


def test_progress_is_shown_on_a_terminal_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    with monkeypatch.context() as patch:
        patch.setattr(reading.sys.stderr, "isatty", lambda: True, raising=False)
        load_model(checkpoint, dtype="float32")
    assert "Loading weights" in capsys.readouterr().err
    load_model(checkpoint, dtype="float32")
    assert capsys.readouterr().err == ""
