"""The engine "vlm" with a tiny Qwen2-VL of random weights: it runs, is honest about nonsense, keeps its deadline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from differad_edge.cli import app
from differad_edge.config import ModelConfig
from differad_edge.deadline import Deadline
from differad_edge.errors import DeadlineExceeded, ModelIntegrityError
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Verdict

pytest.importorskip("transformers")

from differad_edge.engines.vlm.checkpoint import weights_identity
from differad_edge.engines.vlm.generate import GenerateEngine
from differad_edge.engines.vlm.load import read_card
from training.tiny.pairs import tiny_pair


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.model import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_random_weights_answer_nonsense_and_that_is_no_verdict(checkpoint: Path) -> None:
    pair = tiny_pair(0, 1, 0.0)
    with EdgeInspector(engine="vlm", model=str(checkpoint)) as inspector:
        result = inspector.compare(pair.reference, pair.target)
    assert result.verdict is Verdict.UNDECIDED
    assert result.reason == "unparsable-answer"
    assert result.engine == "vlm"


def test_the_answer_equals_generates_own(checkpoint: Path) -> None:
    """The words, and their probability against a forward pass over the whole sequence."""
    import torch
    from PIL import Image

    engine = GenerateEngine(ModelConfig(path=str(checkpoint), max_new_tokens=20))
    pair = tiny_pair(0, 2, 1.0)
    bgr = [np.ascontiguousarray(image[..., ::-1]) for image in (pair.reference, pair.target)]
    said = engine.ask(bgr[0], bgr[1], None)
    pictures = [[Image.fromarray(pair.reference), Image.fromarray(pair.target)]]
    inputs = engine._processor(images=pictures, text=[engine._text], return_tensors="pt")
    with torch.no_grad():
        ids = engine._model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert said.text == engine._processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert engine.ask(bgr[0], bgr[1], None) == said


def test_a_deadline_breaks_the_answer_off(checkpoint: Path) -> None:
    engine = GenerateEngine(ModelConfig(path=str(checkpoint), max_new_tokens=4000))
    image = tiny_pair(0, 1, 0.0).reference
    with pytest.raises(DeadlineExceeded):
        engine.compare_as_it_lies(engine.prepare([_view(image)]), image, deadline=Deadline.after_ms(200))


def _view(image: object) -> object:
    from differad_edge.engines.base import ReferenceView

    return ReferenceView(image, None, "0" * 64)  # type: ignore[arg-type]


def test_the_fingerprint_is_that_of_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(checkpoint, tmp_path / "copy")
    first = GenerateEngine(ModelConfig(path=str(checkpoint))).fingerprint
    assert GenerateEngine(ModelConfig(path=str(copied))).fingerprint == first
    from training.tiny.model import write_tiny_checkpoint

    other = write_tiny_checkpoint(tmp_path / "other", seed=1)
    assert GenerateEngine(ModelConfig(path=str(other))).fingerprint != first


def test_the_fingerprint_of_a_hub_id_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same id may hold other weights tomorrow; its references must then be registered again."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--some--model"
    for commit in ("a" * 40, "b" * 40):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        assert weights_identity("some/model") == f"some/model@{commit}"
        assert read_card("some/model").order == "student"
        (snapshot / "student.json").write_text(json.dumps({"order": "trained", "size_px": [640, 480]}))
        assert read_card("some/model").size_px == (640, 480)
    with pytest.raises(ModelIntegrityError, match="some/other cannot be loaded"):
        weights_identity("some/other")


@pytest.mark.parametrize(("section", "key"), [("text_config", "num_hidden_layers"), ("vision_config", "depth")])
def test_a_config_of_fewer_layers_than_the_weights_is_refused(
    section: str, key: str, checkpoint: Path, tmp_path: Path
) -> None:
    """transformers would leave the others out and answer all the same."""
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config[section][key] = 1
    if "layer_types" in config[section]:
        config[section]["layer_types"] = config[section]["layer_types"][:1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelIntegrityError, match="weights are not those of its config"):
        GenerateEngine(ModelConfig(path=str(folder)))
    assert weights_identity(str(folder)) != weights_identity(str(checkpoint))


def test_evaluate_takes_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    import cv2

    lines = []
    for index in range(4):
        pair = tiny_pair(7, index, 0.0)
        cv2.imwrite(str(tmp_path / f"r{index}.png"), pair.reference[..., ::-1])
        cv2.imwrite(str(tmp_path / f"t{index}.png"), pair.target[..., ::-1])
        line = {"id": str(index), "product": "tiny", "reference": f"r{index}.png", "target": f"t{index}.png"}
        box = [] if pair.box is None else [[side / 10 for side in pair.box]]
        lines.append(json.dumps(line | {"boxes": box, "label": "NG" if box else "OK"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    words = ["evaluate", str(tmp_path), "--engine", "vlm", "--model", str(checkpoint), "--json", "-"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["micro"]["undecided_share"] == 1.0  # nothing that random weights say is an answer
    assert report["reasons"] == {"unparsable-answer": 4}


def test_a_chat_template_that_fails_is_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    (folder / "chat_template.jinja").write_text("{% for")
    with pytest.raises(ModelIntegrityError, match=r"^chat template: cannot be used: unexpected 'end of template'$"):
        GenerateEngine(ModelConfig(path=str(folder)))


def test_what_is_no_checkpoint_is_named(checkpoint: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--engine", "vlm", "--model", str(tmp_path / "none")])
    assert done.exit_code == 2
    torn = shutil.copytree(checkpoint, tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelIntegrityError, match="torn cannot be loaded"):
        GenerateEngine(ModelConfig(path=str(torn)))
