"""Training the box head: it sees what the engine sees, learns, and is written where the engine finds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from safetensors import safe_open
from typer.testing import CliRunner

from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.box_head import BOX_HEAD_FILE
from differad_edge.engines.vlm.load import LoadedStudent, load_student, vlm_engine
from differad_edge.engines.vlm.student import StudentEngine
from differad_edge.engines.vlm.torch_runner import TorchRunner
from differad_edge.errors import ModelIntegrityError, TrainingError
from distill.head import HeadTraining, main, measure, split, train, train_head
from distill.head_model import FrozenStudent, TrainedHead
from distill.head_pairs import ReadPairs, drawn
from training.data import Example, TinySource
from training.tiny.student import write_tiny_student

EASY = TinySource(24, 0, 1.0, 2.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_student(tmp_path_factory.mktemp("student"))
    (folder / "student.json").write_text(json.dumps({"size_px": [64, 64]}))
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> LoadedStudent:
    return load_student(ModelConfig(path=str(checkpoint)), dtype="float32")


@pytest.fixture(scope="module")
def student(loaded: LoadedStudent) -> FrozenStudent:
    return FrozenStudent(loaded)


def pairs_of(student: FrozenStudent, loaded: LoadedStudent, source: Any = EASY, **options: float) -> ReadPairs:
    return ReadPairs(student, source, loaded.question.layout.size, **options)


def test_queries_see_what_they_will_see_in_the_engine(student: FrozenStudent, loaded: LoadedStudent) -> None:
    """Hidden states of training are those of the engine's own tail, for several pairs at once as for one."""
    torch.manual_seed(0)
    head = TrainedHead(student.start)
    runner = TorchRunner(loaded.weights, loaded.question.layout, queries=head.to_box_head("0").queries)
    questions, right = [], []
    for index in range(4):
        pair = drawn(EASY, index, loaded.question.layout.size)
        questions.append(student.read(pair.reference, pair.target))
        runner.load(runner.make_prefix(str(index), runner.encode(pair.reference)))
        right.append(runner.read(runner.encode(pair.target))[1:])
    together = student.ask(head.queries, questions)
    np.testing.assert_allclose(together.detach(), np.stack(right), rtol=1e-4, atol=1e-5)
    alone = torch.cat([student.ask(head.queries, [question]) for question in questions])
    np.testing.assert_allclose(together.detach(), alone.detach(), rtol=1e-4, atol=1e-5)
    verdicts, bins = head(together)
    assert (verdicts.shape, bins.shape) == ((4,), (4, 4, 1001))
    assert float(bins.detach().abs().max()) == 0  # nothing is likelier at first


def test_queries_and_maps_learn_and_the_student_does_not(student: FrozenStudent, loaded: LoadedStudent) -> None:
    head = TrainedHead(student.start)
    torch.nn.init.normal_(head.bins.weight)
    pairs = pairs_of(student, loaded)
    head(student.ask(head.queries, [pairs[0][0], pairs[1][0]]))[1].square().mean().backward()
    assert head.queries.grad is not None
    # The verdict's query has no bins; but those behind it see it.
    assert (head.queries.grad.abs().amax(1) > 0).all()
    assert all(parameter.grad is None for parameter in loaded.weights.parameters())


def test_a_short_training_learns(student: FrozenStudent, loaded: LoadedStudent) -> None:
    """Sixteen pairs by heart: losses fall, and boxes come nearer."""
    pairs, told = pairs_of(student, loaded, keep_bytes=1e9), []
    config = HeadTraining(steps=100, batch=16, learning_rate=0.01)
    head = train(student, pairs, range(16), config, told.append)
    first, last = told[0], told[-1]
    assert [line["step"] for line in told] == [20, 40, 60, 80, 100]
    assert last["loss"] < 0.7 * first["loss"]
    for part in ("verdict", "bins", "l1", "giou"):
        assert last[part] < 0.8 * first[part]
    before = measure(student, TrainedHead(student.start).to_box_head("0"), pairs, range(16))
    after = measure(student, head.to_box_head("0"), pairs, range(16))
    assert after["n"] == 16
    assert after["edge_steps"] < 0.3 * before["edge_steps"]
    assert after["iou"] > max(0.5, before["iou"])
    assert after["verdicts"] >= before["verdicts"]
    again = train(student, pairs, range(16), config.model_copy(update={"steps": 3}))
    other = train(student, pairs_of(student, loaded), range(16), config.model_copy(update={"steps": 3}))
    for one, two in zip(again.parameters(), other.parameters(), strict=True):  # kept or read again
        np.testing.assert_array_equal(one.detach(), two.detach())


def test_every_pair_comes_once_before_any_comes_again(loaded: LoadedStudent) -> None:
    class Listing:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def ahead(self, pool: Any, indices: Any) -> None:
            self.coming = list(indices)

        def __getitem__(self, index: int) -> int:
            assert index in self.coming
            self.asked.append(index)
            return index

    from distill.head import _batches

    pairs = Listing()
    config = HeadTraining(steps=10, batch=3)
    assert [len(batch) for batch in _batches(pairs, range(5), config)] == [3] * 10  # type: ignore[arg-type]
    for start in range(0, 30, 5):
        assert sorted(pairs.asked[start : start + 5]) == [0, 1, 2, 3, 4]


def test_what_is_kept_has_a_budget(student: FrozenStudent, loaded: LoadedStudent) -> None:
    one = pairs_of(student, loaded)[0][0]
    pairs = pairs_of(student, loaded, keep_bytes=2.5 * one.nbytes)
    first = [pairs[index][0] for index in range(4)]
    again = [pairs[index][0] for index in range(4)]
    assert [one is two for one, two in zip(first, again, strict=True)] == [True, True, False, False]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


def test_pairs_are_shown_as_the_engine_shows_them() -> None:
    """Blue first, at the working size, and the box on the canvas, grey margins and all."""
    from differad_edge.engines.vlm.layout import WorkingSize

    class Wide:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int, /) -> Example:
            red = np.zeros((50, 100, 3), np.uint8)
            red[..., 0] = 200
            return Example(red, red, (100, 200, 500, 1000), "")

    stretched = drawn(Wide(), 0, WorkingSize(64, 64))
    assert stretched.box == (100, 200, 500, 1000)
    assert stretched.target[0, 0].tolist() == [0, 0, 200]
    boxed = drawn(Wide(), 0, WorkingSize(64, 64, "letterbox"))
    assert boxed.box == (100, 350, 500, 750)
    assert boxed.reference[0, 0].tolist() == [128, 128, 128]


def test_some_pairs_are_held_out() -> None:
    for count, held in ((2, 1), (15, 1), (200, 20), (5000, 64)):
        learnt, kept = split(count, 0)
        assert len(kept) == held
        assert sorted(learnt + kept) == list(range(count))
    assert split(200, 0) == split(200, 0) != split(200, 1)
    with pytest.raises(TrainingError, match="pairs: got 1, allowed: at least 2"):
        split(1, 0)


def test_the_engine_finds_what_was_trained(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "student")
    words = [str(folder), "--tiny", "20", "--steps", "4", "--batch", "4"]
    (folder / BOX_HEAD_FILE).write_bytes(b"torn")  # what was there is not looked at
    done = run(words)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) >= {"n", "verdicts", "checkpoint"}
    assert figures["n"] == 2
    with safe_open(str(folder / BOX_HEAD_FILE), framework="numpy") as held:
        about = json.loads(held.metadata()["box_head"])
    assert about["trained"]["training"]["steps"] == 4
    assert about["trained"]["pairs"] == 18
    first = (folder / BOX_HEAD_FILE).read_bytes()
    engine = vlm_engine(ModelConfig(path=str(folder)))
    assert isinstance(engine, StudentEngine)
    assert engine._box_head is not None
    assert run(words).exit_code == 0
    assert (folder / BOX_HEAD_FILE).read_bytes() == first  # the same command, the same head
    # Another student under the same name, and the head is none of its own.
    write_tiny_student(folder, seed=3)
    with pytest.raises(ModelIntegrityError, match="of the weights beside it; train it again or take it away"):
        vlm_engine(ModelConfig(path=str(folder)))


def test_pair_sets_are_learnt_from(checkpoint: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    rows = []
    for index in range(4):
        example = EASY[index]
        for name in ("reference", "target"):
            cv2.imwrite(str(pairs / f"{name}{index}.png"), getattr(example, name)[..., ::-1])
        box = None if example.box is None else [edge / 10 for edge in example.box]
        row = {"id": str(index), "product": "p", "reference": f"reference{index}.png", "target": f"target{index}.png"}
        rows.append(row | {"boxes": [box] if box else [], "label": "NG" if box else "OK"})
    (pairs / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (pairs / "set.json").write_text(json.dumps({"name": "four pictures"}))
    folder = shutil.copytree(checkpoint, tmp_path / "student")
    done = run([str(folder), "--pairs", str(pairs), "--steps", "2", "--batch", "2"])
    assert done.exit_code == 0, done.output
    assert (folder / BOX_HEAD_FILE).is_file()


def test_what_cannot_be_trained_is_named(checkpoint: Path, tmp_path: Path) -> None:
    from training.tiny.model import write_tiny_checkpoint

    teacher = write_tiny_checkpoint(tmp_path / "teacher")
    thinking = shutil.copytree(checkpoint, tmp_path / "thinking")
    (thinking / "student.json").write_text(json.dumps({"size_px": [64, 64], "order": "trained"}))
    for words, reason in (
        ([str(checkpoint)], "either --pairs or --tiny"),
        ([str(checkpoint), "--tiny", "4", "--steps", "0"], "options: steps: got 0"),
        ([str(checkpoint), "--tiny", "4", "--learning-rate", "nan"], "options: learning_rate: got nan"),
        ([str(checkpoint), "--pairs", str(tmp_path / "none")], "none"),
        (["some/model", "--tiny", "4"], "CHECKPOINT: got some/model, allowed: a folder"),
        ([str(teacher), "--tiny", "4"], "is a 'qwen2_vl', allowed: a Qwen3-VL"),
        ([str(thinking), "--tiny", "4"], "order: got 'trained', allowed: 'student'"),
    ):
        done = run(words)
        assert done.exit_code == 2, done.output
        assert reason in " ".join(done.output.split())
    assert not (checkpoint / BOX_HEAD_FILE).exists()


def test_a_loss_that_is_no_number_writes_no_head(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "student")
    monkeypatch.setattr(FrozenStudent, "ask", lambda self, queries, questions: queries.repeat(4, 1, 1) * torch.nan)
    with pytest.raises(TrainingError, match="the loss of step 1 is nan, allowed: a finite number"):
        train_head(folder, EASY, HeadTraining(steps=20, batch=4))
    assert not (folder / BOX_HEAD_FILE).exists()


def run(words: list[str]) -> Any:
    import typer

    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, words)
