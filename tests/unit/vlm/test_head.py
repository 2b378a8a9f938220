"""The box head: no answer depends on it, right drafts save passes, and one of another model is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file
from students import GRAMMAR, IMAGE, QUESTION, box_head, picture, question, student

from differad_edge.config import ModelConfig
from differad_edge.engines.base import ReferenceView
from differad_edge.engines.vlm import torch_runner
from differad_edge.engines.vlm.box_head import BOX_HEAD_FILE, BoxHead, read_box_head, write_box_head
from differad_edge.engines.vlm.checkpoint import weights_identity, weights_sha256
from differad_edge.engines.vlm.decode import write_box
from differad_edge.engines.vlm.exported import MANIFEST, Exported
from differad_edge.engines.vlm.load import load_student, vlm_engine
from differad_edge.engines.vlm.questions import Question
from differad_edge.engines.vlm.student import StudentEngine
from differad_edge.engines.vlm.torch_runner import TorchRunner
from differad_edge.errors import EngineError, ModelIntegrityError
from differad_edge.results import Box

LEAD = GRAMMAR.verdicts[1:]
WORDS = 7


class Counting:
    """A runner that counts how often the student was asked for tokens, and keeps what it read last."""

    def __init__(self, runner: Any) -> None:
        self._runner, self.passes = runner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def read(self, features: Any) -> Any:
        self.hidden = self._runner.read(features)
        return self.hidden

    def advance(self, tokens: Any, at: int) -> Any:
        self.passes += 1
        return self._runner.advance(tokens, at)


class Sure:
    """A student that has learnt to give verdicts: random weights say neither OK nor NG, and no box is written."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def logits(self, hidden: Any, rows: Any = None) -> Any:
        logits = np.array(self._runner.logits(hidden, rows))
        if rows is None and logits.ndim == 1 and not self.spoken:
            logits[list(GRAMMAR.verdicts)] += 100
            self.spoken = True
        return logits

    def read(self, features: Any) -> Any:
        self.spoken = False
        return self._runner.read(features)


def spoken(ids: Any) -> str:
    return " ".join(map(str, ids)) + ("</think>" if len(ids) >= WORDS else "")


def engine_of(runner: Any, asked: Question, head: BoxHead | None) -> StudentEngine:
    return StudentEngine(runner, asked, identity="x", to_text=spoken, max_new_tokens=20, box_head=head)


def asked_of(seed: int) -> Question:
    return Question(question(64, seed=seed), GRAMMAR, "student", frozenset({901}), IMAGE, ())


def answer(engine: StudentEngine, seed: int, **options: Any) -> Any:
    side_px = engine._question.layout.size.width_px
    prepared = engine.prepare([ReferenceView(picture(seed, side_px), None, f"{seed:064d}")])
    return engine.compare_as_it_lies(prepared, picture(1000 + seed, side_px), **options)


def test_no_answer_depends_on_a_head() -> None:
    """25 models and inputs: verdict, box and words; a random head drafts a wrong box."""
    with_boxes = 0
    for seed in range(25):
        model, asked, head = student(seed), asked_of(seed), box_head(seed)
        plain, headed = TorchRunner(model, asked.layout), TorchRunner(model, asked.layout, queries=head.queries)
        read = []
        for runner in (plain, headed):
            runner.load(runner.make_prefix("r", runner.encode(picture(seed, 64))))
            read.append(runner.read(runner.encode(picture(1000 + seed, 64))))
        assert [one.shape for one in read] == [(1, 64), (6, 64)]
        # Sums of more rows may be taken in another order; logits are as large as 40.
        np.testing.assert_allclose(headed.logits(read[1][0]), plain.logits(read[0][0]), rtol=1e-5, atol=5e-5)
        said = [answer(engine_of(Sure(one), asked, own), seed) for one, own in ((plain, None), (headed, head))]
        assert said[1].score == pytest.approx(said[0].score, abs=1e-5)
        assert [one.box for one in said[1].candidates] == [one.box for one in said[0].candidates]
        assert [one.description for one in said[1].candidates] == [one.description for one in said[0].candidates]
        with_boxes += len(said[0].candidates)
    assert 5 < with_boxes < 25  # some are OK


def saying(head: BoxHead, hidden: Any, box: tuple[int, ...]) -> BoxHead:
    """``head`` with bins that read ``box`` off these hidden states."""
    weights = np.zeros_like(head.bins_weight)
    # A row for each bin that is to win at its query and nowhere else.
    solved = np.linalg.lstsq(hidden[1:], np.eye(4), rcond=None)[0].T
    for number, step in enumerate(box):
        weights[step] += solved[number].astype(np.float32)
    return replace(head, bins_weight=weights, bins_bias=np.zeros_like(head.bins_bias))


def test_the_drafts_of_a_head_save_passes() -> None:
    saved = 0
    for seed in range(20):
        model, asked, head = student(seed), asked_of(seed), box_head(seed)
        runner = Counting(TorchRunner(model, asked.layout, queries=head.queries))
        plain = engine_of(Sure(runner), asked, None)
        plain._describes = False
        right = answer(plain, seed)
        if not right.candidates:
            continue
        without, runner.passes = runner.passes, 0
        box = write_box(runner, GRAMMAR, lead=LEAD, at=asked.layout.length).box  # type: ignore[arg-type]
        runner.passes = 0
        told = saying(head, runner.hidden[1:], box)
        assert told.box(runner.hidden[1:]) == box
        engine = engine_of(Sure(runner), asked, told)
        engine._describes = False
        found = answer(engine, seed, draft=Box(0, 0, 5, 5))  # the head's own goes before it
        assert found.candidates[0].box == right.candidates[0].box
        assert found.score == pytest.approx(right.score, abs=1e-6)
        assert runner.passes == 1 < without
        saved += without - runner.passes
    assert saved > 30


def test_the_answer_is_written_over_the_queries() -> None:
    model, layout, head = student(3), question(64, seed=3), box_head(3)
    plain, headed = TorchRunner(model, layout), TorchRunner(model, layout, queries=head.queries)
    said = []
    for runner in (plain, headed):
        runner.load(runner.make_prefix("r", runner.encode(picture(1, 64))))
        runner.read(runner.encode(picture(2, 64)))
        said.append(runner.advance(list(range(100, 108)), layout.length))
    np.testing.assert_allclose(said[1], said[0], rtol=1e-5, atol=1e-5)
    # They see the question: with another part they say something else, and what they say is theirs.
    states = [headed.read(headed.encode(picture(number, 64)))[1:] for number in (2, 4)]
    assert np.abs(states[0] - states[1]).max() > 1e-3
    other = TorchRunner(model, layout, queries=box_head(4).queries)
    other.load(other.make_prefix("r", other.encode(picture(1, 64))))
    assert np.abs(other.read(other.encode(picture(2, 64)))[1:] - states[0]).max() > 1e-3


def test_queries_are_read_as_the_tokens_that_follow() -> None:
    """A query that is the embedding of a token has the hidden state of that token: positions and masks are right."""
    model, layout = student(5), question(128)
    tokens = [43, 44, 55, 56, 45]
    queries = model.get_input_embeddings().weight[tokens].detach().numpy()
    runner = TorchRunner(model, layout, queries=queries)
    runner.load(runner.make_prefix("r", runner.encode(picture(1))))
    read = runner.read(runner.encode(picture(2)))
    np.testing.assert_allclose(read[1:], runner.advance(tokens, layout.length), rtol=1e-4, atol=1e-5)


def test_queries_are_in_a_captured_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def capture(run: Any, inputs: Any, pool: Any) -> Any:
        def replay(*given: Any) -> Any:
            found = run(*given)
            shapes.append(tuple(getattr(found, "shape", ())))
            return found

        return replay

    monkeypatch.setattr(torch_runner, "_capture", capture)
    runner = TorchRunner(student(1), question(64), queries=box_head().queries, graphs=True)
    runner.load(runner.make_prefix("r", runner.encode(picture(1, 64))))
    assert runner.read(runner.encode(picture(2, 64))).shape == shapes[-1] == (6, 64)


def test_queries_need_room() -> None:
    layout = question(64)
    tight = replace(layout, capacity=layout.length + 4)
    with pytest.raises(EngineError, match=f"got {layout.length + 5} tokens with its question, allowed"):
        TorchRunner(student(), tight, queries=box_head().queries)


def test_a_box_is_always_one() -> None:
    """Edges are put in order, and never fall together."""
    head = box_head()
    hidden = np.zeros((5, 64), np.float32)
    hidden[1:, :4] = np.eye(4)
    for steps in ((5, 6, 5, 6), (1000, 1000, 1000, 1000), (0, 0, 0, 0), (900, 30, 20, 40), (1, 2, 3, 4)):
        x1, y1, x2, y2 = saying(head, hidden, steps).box(hidden)
        assert 0 <= x1 < x2 <= 1000
        assert 0 <= y1 < y2 <= 1000
        if steps[0] < steps[2] and steps[1] < steps[3]:
            assert (x1, y1, x2, y2) == steps
    for logit in (-1e4, 0.0, 1e4):
        said = replace(head, verdict_weight=np.zeros(64, np.float32), verdict_bias=np.array([logit], np.float32))
        assert said.ng(hidden) == pytest.approx(0.5 if logit == 0 else float(logit > 0), abs=1e-9)


def test_a_head_survives_the_disk(tmp_path: Path) -> None:
    head, file = box_head(), tmp_path / BOX_HEAD_FILE
    write_box_head(box_head(1), file)
    write_box_head(head, file, {"steps": 3})
    first = file.read_bytes()
    write_box_head(head, file, {"steps": 3})
    assert file.read_bytes() == first
    found = read_box_head(file, 64)
    assert all(np.array_equal(getattr(found, one.name), getattr(head, one.name)) for one in fields(BoxHead))
    assert [one.name for one in tmp_path.iterdir()] == [BOX_HEAD_FILE]


ABOUT = {"format": 1, "model": "0" * 64}


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "cannot be read"),
        (lambda file: file.write_bytes(b"x"), "cannot be read"),
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: changed(file, {}), "box_head.format: got None, allowed: 1"),
        (lambda file: changed(file, []), "box_head.format: got None, allowed: 1"),
        (lambda file: changed(file, ABOUT | {"format": 2}), "box_head.format: got 2, allowed: 1"),
        (lambda file: changed(file, ABOUT, surprise=np.zeros(1)), "got .*surprise.*, allowed: queries, "),
        (lambda file: changed(file, ABOUT, bins_bias=np.zeros(1000, np.float32)), r"bins_bias: got \(1000,\) float32"),
        (lambda file: changed(file, ABOUT, verdict_bias=np.zeros(1)), r"verdict_bias: got \(1,\) float64"),
        (lambda file: changed(file, ABOUT, queries=np.full((5, 64), np.nan, np.float32)), "queries: got NaN"),
        (lambda file: changed(file, ABOUT, verdict_bias=np.full(1, np.inf, np.float32)), "verdict_bias: got NaN or"),
        (lambda file: write_box_head(box_head(width=32), file), r"queries: got \(5, 32\) float32, allowed for a model"),
    ],
)
def test_a_head_that_is_none_of_this_model_is_refused(harm: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / BOX_HEAD_FILE
    write_box_head(box_head(), file)
    harm(file)
    with pytest.raises(ModelIntegrityError, match=words):
        read_box_head(file, 64)


def changed(file: Path, about: Any, **arrays: Any) -> None:
    save_file(load_file(file) | arrays, file, metadata={"box_head": json.dumps(about)})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student with a random head."""
    from training.tiny.student import WIDTH, write_tiny_student

    folder = write_tiny_student(tmp_path_factory.mktemp("student"))
    (folder / "student.json").write_text(json.dumps({"size_px": [64, 64]}))
    write_box_head(replace(box_head(width=WIDTH), model=weights_sha256(folder)), folder / BOX_HEAD_FILE)
    return folder


def test_the_engine_takes_the_head_beside_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    engine = vlm_engine(ModelConfig(path=str(checkpoint)))
    assert isinstance(engine, StudentEngine)
    assert engine._box_head is not None
    bare = shutil.copytree(checkpoint, tmp_path / "bare")
    (bare / BOX_HEAD_FILE).unlink()
    without = vlm_engine(ModelConfig(path=str(bare)))
    assert isinstance(without, StudentEngine)
    assert without._box_head is None
    assert engine.fingerprint != without.fingerprint
    # Who thinks before the answer has no place for it; who trains another does not look at it.
    assert load_student(ModelConfig(path=str(checkpoint), prompt="trained"), dtype="float32").box_head is None
    assert load_student(ModelConfig(path=str(checkpoint)), dtype="float32", with_head=False).queries is None


def test_a_head_of_other_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    from training.tiny.student import write_tiny_student

    other = write_tiny_student(tmp_path / "other", seed=1)
    before = weights_identity(str(other)), weights_sha256(other)
    shutil.copy(checkpoint / BOX_HEAD_FILE, other / BOX_HEAD_FILE)
    assert weights_identity(str(other)) != before[0]
    assert weights_sha256(other) == before[1]
    with pytest.raises(ModelIntegrityError, match=r"model: got .*, allowed: .* of the weights beside it"):
        vlm_engine(ModelConfig(path=str(other)))


def test_a_head_does_not_stand_for_weights(checkpoint: Path, tmp_path: Path) -> None:
    """Nor do pickles; weights themselves do, each by what is in it."""
    shutil.copy(checkpoint / BOX_HEAD_FILE, tmp_path / BOX_HEAD_FILE)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a")
    with pytest.raises(ModelIntegrityError, match="holds no weights"):
        weights_identity(str(tmp_path))
    known = set()
    for content in (b"a", b"b"):
        (tmp_path / "model.safetensors").write_bytes(content)
        known.add(weights_identity(str(tmp_path)))
    assert len(known) == 2


@pytest.mark.slow
def test_an_export_with_a_head_answers_as_one_without(
    head_export: tuple[Any, BoxHead, Path], random_export: tuple[Any, Path]
) -> None:
    """25 inputs on ONNX Runtime, and the same hidden states as in PyTorch."""
    from differad_edge.engines.vlm.onnx_runner import OnnxRunner

    model, head, folder = head_export
    exported = Exported(folder)
    exported.check_files()
    found = exported.box_head
    assert found is not None
    assert np.array_equal(found.bins_weight, head.bins_weight)
    headed, plain = OnnxRunner(exported), OnnxRunner(Exported(random_export[1]))
    right = TorchRunner(model, QUESTION.layout, queries=head.queries)
    with_boxes = 0
    for seed in range(25):
        read = []
        for runner in (headed, plain, right):
            runner.load(runner.make_prefix("r", runner.encode(picture(seed))))  # type: ignore[arg-type]
            read.append(runner.read(runner.encode(picture(1000 + seed))))  # type: ignore[arg-type]
        assert [one.shape for one in read] == [(6, 64), (1, 64), (6, 64)]
        np.testing.assert_allclose(read[0], read[2], atol=1e-4)
        np.testing.assert_allclose(read[0][:1], read[1], atol=1e-5)
        assert found.box(read[0][1:]) == head.box(read[2][1:])
        said = [answer(engine_of(Sure(one), QUESTION, own), seed) for one, own in ((plain, None), (headed, found))]
        assert said[1].score == pytest.approx(said[0].score, abs=1e-5)
        assert [one.box for one in said[1].candidates] == [one.box for one in said[0].candidates]
        assert [one.description for one in said[1].candidates] == [one.description for one in said[0].candidates]
        with_boxes += len(said[0].candidates)
    assert with_boxes > 5


@pytest.mark.slow
def test_an_export_names_its_head(
    head_export: tuple[Any, BoxHead, Path], random_export: tuple[Any, Path], tmp_path: Path
) -> None:
    _, _, original = head_export
    folder = shutil.copytree(original, tmp_path / "out")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["box_head"] == {"file": BOX_HEAD_FILE, "queries": 5}
    assert BOX_HEAD_FILE in manifest["files"]
    # One without is what it was before there were heads.
    assert "box_head" not in json.loads((random_export[1] / MANIFEST).read_text())
    assert Exported(random_export[1]).box_head is None
    write_box_head(box_head(6), folder / BOX_HEAD_FILE)
    with pytest.raises(ModelIntegrityError, match=r"head\.safetensors: got SHA-256"):
        Exported(folder).check_files()
    for entry, words in (
        ({"file": BOX_HEAD_FILE, "queries": 4}, "box_head.queries: got 4, allowed: the 5 of head.safetensors"),
        ({"file": "../x", "queries": 5}, r"box_head.file: got '\.\./x', allowed: one of its files"),
    ):
        (folder / MANIFEST).write_text(json.dumps(manifest | {"box_head": entry}))
        with pytest.raises(ModelIntegrityError, match=words):
            print(Exported(folder).box_head)


@pytest.mark.slow
def test_a_student_with_a_head_is_exported_and_verified(checkpoint: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from differad_edge.cli import app

    out = tmp_path / "out"
    words = ["export", str(checkpoint), str(out), "--pairs", "2"]  # in bfloat16, with widened graphs
    for command in (words, ["verify", str(out)]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    engine = vlm_engine(ModelConfig(path=str(out)))
    assert isinstance(engine, StudentEngine)
    assert engine._box_head is not None
