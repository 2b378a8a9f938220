"""The engine "vlm" for a student: verdicts with reasons, scores, several references, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from students import GRAMMAR, IMAGE, question

from differad_edge.config import InspectorConfig, ModelConfig
from differad_edge.deadline import Deadline
from differad_edge.decide import decide
from differad_edge.engines.base import ReferenceView
from differad_edge.engines.vlm import student
from differad_edge.engines.vlm.checkpoint import load_processor
from differad_edge.engines.vlm.layout import Layout
from differad_edge.engines.vlm.questions import Question
from differad_edge.engines.vlm.runner import Floats, Prefix
from differad_edge.engines.vlm.shelf import Shelf
from differad_edge.engines.vlm.student import StudentEngine
from differad_edge.errors import ConfigError, DeadlineExceeded, EngineError, ModelIntegrityError
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Box, Verdict

OK, NG = GRAMMAR.verdicts  # type: ignore[misc]
THINK = 900  # in these tests: the token that reads </think>


class Scripted:
    """A runner that says what a test wants: ``says`` gives, for the tokens of the answer so far, those it likes."""

    def __init__(self, layout: Layout, says: dict[tuple[int, ...], dict[int, float]]) -> None:
        self.layout, self.says = layout, says
        self.loaded: list[str] = []
        self.read_tokens: list[int] = []

    def encode(self, canvas: Any) -> Any:
        return canvas

    def pooled(self, features: Any) -> Floats:
        return features[::32, ::32].reshape(-1, 3).astype(np.float32)

    def make_prefix(self, key: str, features: Any) -> Prefix:
        return Prefix(key, np.zeros(10), 80)

    def save_prefix(self, prefix: Prefix) -> dict[str, Any]:
        return {"keys_and_values": prefix.content}

    def check_prefix(self, arrays: dict[str, Any]) -> None:
        if "keys_and_values" not in arrays:
            raise EngineError("prepared reference: got nothing")

    def restore_prefix(self, key: str, arrays: dict[str, Any]) -> Prefix:
        return Prefix(key, arrays["keys_and_values"], 80)

    def load(self, prefix: Prefix) -> None:
        self.loaded.append(prefix.key)

    def read(self, features: Any) -> Floats:
        return self._state(())[None]

    def advance(self, tokens: Sequence[int], at: int) -> Floats:
        self.read_tokens[at - self.layout.length :] = tokens
        end = len(self.read_tokens)
        return np.stack([self._state(tuple(self.read_tokens[: end - len(tokens) + n + 1])) for n in range(len(tokens))])

    def logits(self, hidden: Floats, rows: Sequence[int] | None = None) -> Floats:
        return hidden if rows is None else hidden[..., list(rows)]

    def _state(self, so_far: tuple[int, ...]) -> Floats:
        logits = np.full(1000, -50.0, np.float32)
        for token, logit in self.says.get(so_far, {}).items():
            logits[token] = logit
        return logits


def box_script(box: tuple[int, int, int, int], after: Sequence[int] = ()) -> dict[tuple[int, ...], dict[int, float]]:
    """Says NG, this box, and the tokens of ``after``."""
    tokens = [NG, *GRAMMAR.box_tokens(box), *after]
    return {tuple(tokens[:n]): {token: 10.0} for n, token in enumerate(tokens)}


def engine_of(says: dict[tuple[int, ...], dict[int, float]], **options: Any) -> tuple[StudentEngine, Scripted]:
    layout = question(128)
    runner = Scripted(layout, says)
    asked = Question(layout, GRAMMAR, "student", frozenset({901}), IMAGE, ())
    given: dict[str, Any] = {"identity": "x", "max_new_tokens": 20, "to_text": spoken}
    return StudentEngine(runner, asked, **given | options), runner


def spoken(ids: Sequence[int]) -> str:
    return "".join("</think>" if token == THINK else f" w{token}" for token in ids)


def view(seed: int = 0, size: tuple[int, int] = (128, 128), valid: Any = None) -> ReferenceView:
    image = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return ReferenceView(image, valid, f"{seed:064d}")


def compared(engine: StudentEngine, target: Any = None, **options: Any) -> Any:
    prepared = engine.prepare([view()])
    return engine.compare_as_it_lies(prepared, view(1).image if target is None else target, **options)


def test_ok_needs_one_pass() -> None:
    engine, runner = engine_of({(): {OK: 10.0, NG: 4.0}})
    evidence = compared(engine)
    assert evidence.score == pytest.approx(1 / (1 + np.exp(6)), rel=1e-5)
    assert evidence.candidates == ()
    assert runner.read_tokens == []
    assert decide(evidence, 0.5).verdict is Verdict.OK


def test_ng_has_a_box_in_pixels_of_the_target_and_words() -> None:
    engine, _ = engine_of(box_script((100, 200, 500, 1000), (30, 31, THINK)))
    target = np.zeros((300, 400, 3), np.uint8)
    evidence = compared(engine, target)
    assert evidence.score == pytest.approx(1.0, abs=1e-6)
    (found,) = evidence.candidates
    assert tuple(found.box) == pytest.approx((40, 60, 200, 300))
    assert found.description == "w30 w31"
    assert decide(evidence, 0.5).verdict is Verdict.NG


def test_what_an_unsure_digit_costs() -> None:
    says = box_script((100, 200, 500, 1000))
    says[()] = {NG: 10.0, OK: 8.0}
    says[(NG, *GRAMMAR.box_open)][GRAMMAR.digits[9]] = 9.0
    engine, _ = engine_of(says, describes=False)
    evidence = compared(engine)
    certain = 1 / (1 + np.exp(-2.0))
    # A large defect without sharp edges is a defect all the same.
    assert certain - 0.05 < evidence.score < certain
    assert evidence.candidates[0].score == evidence.score
    assert evidence.candidates[0].description is None


def test_a_part_that_may_be_ng_has_a_box_for_lower_thresholds() -> None:
    says = box_script((100, 200, 500, 1000))
    says[()] = {OK: 10.0, NG: 9.0}
    evidence = compared(engine_of(says)[0])
    assert decide(evidence, 0.5).verdict is Verdict.OK
    assert decide(evidence, 0.2).verdict is Verdict.NG
    assert evidence.candidates[0].description is None


def test_one_that_gives_no_verdict_is_no_student() -> None:
    evidence = compared(engine_of({(): {OK: 1.0, 7: 10.0}})[0])
    assert decide(evidence, 0.5).verdict is Verdict.UNDECIDED
    assert decide(evidence, 0.5).reason == "unparsable-answer"


def test_words_that_do_not_end_are_left_out() -> None:
    evidence = compared(engine_of(box_script((1, 2, 3, 4), [30] * 30))[0])
    assert evidence.candidates[0].description is None
    assert decide(evidence, 0.5).verdict is Verdict.NG


def test_a_draft_changes_nothing() -> None:
    script = box_script((100, 200, 500, 1000), (30, THINK))
    plain = compared(engine_of(script)[0])
    for draft in (plain.candidates[0].box, Box(0, 0, 1, 1), Box(-20, -20, 500, 500), Box(500, 500, 600, 600)):
        assert compared(engine_of(script)[0], draft=draft) == plain


def test_a_teacher_thinks_first() -> None:
    layout = question(128)
    asked = Question(layout, GRAMMAR_OF_A_TEACHER, "trained", frozenset({901}), IMAGE, (800,))
    for box, verdict in (((0, 0, 0, 0), Verdict.OK), ((100, 200, 500, 1000), Verdict.NG)):
        tokens = [800, 30, THINK, *GRAMMAR_OF_A_TEACHER.opening, *GRAMMAR_OF_A_TEACHER.box_tokens(box)]
        says: dict[tuple[int, ...], dict[int, float]] = {
            tuple(tokens[:n]): {token: 10.0} for n, token in enumerate(tokens)
        }
        engine = StudentEngine(Scripted(layout, says), asked, identity="x", max_new_tokens=20, to_text=spoken)
        evidence = compared(engine)
        assert decide(evidence, 0.5).verdict is verdict
        assert [found.description for found in evidence.candidates] == ([] if verdict is Verdict.OK else ["w30"])
    # One that says something else than a box is not OK for the zero box that its digits would give.
    mute = {(800,): {THINK: 10.0}, (800, THINK, *GRAMMAR_OF_A_TEACHER.opening): {7: 10.0}}
    engine = StudentEngine(Scripted(layout, mute), asked, identity="x", max_new_tokens=20, to_text=spoken)
    assert decide(compared(engine), 0.5).verdict is Verdict.UNDECIDED
    endless = {(800, *[30] * n): {30: 10.0} for n in range(40)}
    engine = StudentEngine(Scripted(layout, endless), asked, identity="x", max_new_tokens=20, to_text=spoken)
    assert decide(compared(engine), 0.5).reason == "unparsable-answer"
    with pytest.raises(DeadlineExceeded):
        compared(engine, deadline=Deadline.after_ms(1))


GRAMMAR_OF_A_TEACHER = type(GRAMMAR)(
    opening=(40, 41), verdicts=(), box_open=(), stops=GRAMMAR.stops, close=(47, 41), digits=GRAMMAR.digits
)


def test_a_deadline_is_kept() -> None:
    engine, _ = engine_of({(): {OK: 10.0}})
    with pytest.raises(DeadlineExceeded):
        compared(engine, deadline=Deadline.after_ms(0.001))


def test_the_reference_most_like_the_part_is_taken() -> None:
    engine, runner = engine_of({(): {OK: 10.0}})
    prepared = engine.prepare([view(number) for number in range(4)])
    for number in (2, 0, 3):
        noisy = np.clip(
            view(number).image.astype(int) + np.random.default_rng(9).integers(-9, 9, (128, 128, 3)), 0, 255
        )
        engine.compare_as_it_lies(prepared, noisy.astype(np.uint8))
        assert runner.loaded[-1] == prepared.references[number].key


def test_prepared_references_survive_the_disk() -> None:
    engine, _ = engine_of({(): {OK: 10.0}})
    valid = np.ones((128, 128), bool)
    valid[:30] = False
    prepared = engine.prepare([view(0, valid=valid), view(1)])
    restored = engine.restore(prepared.to_arrays())
    assert [one.key for one in restored.references] == [one.key for one in prepared.references]
    assert np.array_equal(restored.ignore, ~valid)  # type: ignore[arg-type]
    assert engine.learning(prepared).memory_bytes == prepared.bytes > 0
    for missing in prepared.to_arrays():
        if missing != "ignore" and missing.startswith("0"):
            with pytest.raises(EngineError, match="prepared reference"):
                engine.restore({k: v for k, v in prepared.to_arrays().items() if k != missing})
    other_size = compared(engine, np.zeros((64, 64, 3), np.uint8))
    assert other_size.reason is None
    evidence = engine.compare_as_it_lies(prepared, np.zeros((64, 64, 3), np.uint8))
    assert evidence.reason == "misaligned"


def test_the_fingerprint_is_of_all_that_is_kept() -> None:
    layout = question(128)
    known = set()
    for changed in (
        layout,
        replace(layout, between=(*layout.between[:-1], 5)),
        replace(layout, after=(*layout.after[:-1], 5)),
        replace(layout, size=replace(layout.size, fit="letterbox")),
    ):
        asked = Question(changed, GRAMMAR, "student", frozenset({901}), IMAGE, ())
        engine = StudentEngine(Scripted(changed, {}), asked, identity="x", max_new_tokens=20, to_text=spoken)
        known.add(engine.fingerprint)
    assert len(known) == 4


def test_a_reference_that_another_prompt_prepared_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys and values are those of other words; they are read again."""
    read: list[str] = []

    class Counting(Scripted):
        def make_prefix(self, key: str, features: Any) -> Prefix:
            read.append(key)
            return super().make_prefix(key, features)

    def reads_of_a_new_process() -> int:
        before, layout = len(read), question(128)
        asked = Question(layout, GRAMMAR, "student", frozenset({901}), IMAGE, ())
        runner = Counting(layout, {(): {OK: 10.0}})
        engine = StudentEngine(runner, asked, identity="x", max_new_tokens=20, to_text=spoken)
        with EdgeInspector(store=tmp_path, engine=engine) as inspector:
            if not inspector.products():
                inspector.register("p", [view().image])
            assert inspector.inspect(view().image, product="p").verdict is Verdict.OK
        return len(read) - before

    assert [reads_of_a_new_process(), reads_of_a_new_process()] == [1, 0]
    monkeypatch.setattr(student, "PROMPT_VERSION", "another")
    assert [reads_of_a_new_process(), reads_of_a_new_process()] == [1, 0]


def test_the_shelf_keeps_within_its_budget() -> None:
    shelf, restored = Shelf(200), []

    def get(key: str) -> Prefix:
        def restore() -> Prefix:
            restored.append(key)
            return Prefix(key, None, 80)

        return shelf.get(key, restore)

    for key in "abacaba":
        assert get(key).key == key
    assert "".join(restored) == "abcb"
    assert shelf.bytes == 160
    assert Shelf(1).get("x", lambda: Prefix("x", None, 80)).bytes == 80


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.student import write_tiny_student

    folder = write_tiny_student(tmp_path_factory.mktemp("student"))
    (folder / "student.json").write_text(json.dumps({"size_px": [128, 128]}))
    return folder


def test_random_weights_are_no_student(checkpoint: Path) -> None:
    image = view().image
    with EdgeInspector(engine="vlm", model=checkpoint) as inspector:
        result = inspector.compare(image, image)
    assert inspector.config.model.path == str(checkpoint)
    assert (result.verdict, result.reason, result.engine) == (Verdict.UNDECIDED, "unparsable-answer", "vlm")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"prompt_version": "0"}, "prompt_version: got '0'"),
        ({"size_px": [1]}, "size_px"),
        ({"size_px": [100_000, 100_000]}, r"student.json: size_px.0: got 100000, allowed: less than or equal to 4096"),
        ({"sizes": 1}, "sizes"),
    ],
)
def test_a_card_of_another_kind_is_refused(card: dict[str, Any], words: str, checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    (folder / "student.json").write_text(json.dumps(card))
    with pytest.raises(ModelIntegrityError, match=words):
        EdgeInspector(engine="vlm", model=str(folder))


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    tokenizer: Any = load_processor(folder).tokenizer
    tokenizer.add_tokens(["assistant"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelIntegrityError, match="its tokenizer gives the token"):
        EdgeInspector(engine="vlm", model=str(folder))


def test_a_model_that_is_no_path_is_named() -> None:
    with pytest.raises(ConfigError, match=r"EdgeInspector: model\.path: got 3, allowed: a valid string"):
        EdgeInspector(engine="vlm", model=3)  # type: ignore[arg-type]


def test_settings_that_do_not_fit_are_named(checkpoint: Path) -> None:
    for settings, words in (
        ({"size_px": (130, 128)}, "model.size_px: width_px: got 130, allowed: a multiple of 16"),
        ({"prompt": "general", "fit": "letterbox"}, "model.fit: got 'letterbox'"),
    ):
        config = InspectorConfig(engine="vlm", model=ModelConfig(path=str(checkpoint), **settings))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=words):
            EdgeInspector(config=config)
