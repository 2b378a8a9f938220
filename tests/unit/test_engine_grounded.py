"""Engines that ask a language model: evidence from answers, scores from probabilities, what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.config import ModelConfig
from differad_edge.deadline import Deadline
from differad_edge.decide import decide
from differad_edge.engines import create_engine
from differad_edge.engines.base import ComparesAsItLies, Engine, ReferenceView
from differad_edge.engines.covering import covered
from differad_edge.engines.grounded import GroundedEngine, Said, answer_probability, evidence_of
from differad_edge.errors import ConfigError, EngineError, IncompatibleReferenceError
from differad_edge.images import Image
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Box, Verdict


class Scripted(GroundedEngine):
    """Answers what it was told, and remembers what it was shown."""

    name = "scripted"

    def __init__(self, said: Said) -> None:
        super().__init__(model="script", prompt="trained", max_new_tokens=32)
        self.said = said
        self.shown: list[tuple[Image, Image]] = []

    def ask(self, reference: Image, target: Image, deadline: Deadline | None) -> Said:
        self.shown.append((reference, target))
        return self.said


def pictures(width: int = 200, height: int = 100) -> tuple[Image, Image]:
    rng = np.random.default_rng(0)
    reference = rng.integers(60, 200, (height, width, 3), dtype=np.uint8)
    target = reference.copy()
    target[20:40, 50:90] = 255
    return reference, target


@pytest.mark.parametrize(
    ("text", "probability", "verdict", "score"),
    [
        ("<think>A chip.</think><answer>(250,200),(450,400)</answer>", None, Verdict.NG, 1.0),
        ("<answer>(250,200),(450,400)</answer>", 0.5, Verdict.NG, 0.75),
        ("<answer>(250,200),(450,400)</answer>", 0.0, Verdict.NG, 0.5),  # unsure is still what was said
        ("<answer>(0,0),(0,0)</answer>", None, Verdict.OK, 0.0),
        ("<answer>(0,0),(0,0)</answer>", 0.5, Verdict.OK, 0.25),
        ("<answer>OK</answer>", 0.0, Verdict.OK, 0.5),  # on its side of the threshold
        ("<answer>(0,0),(0", None, Verdict.UNDECIDED, 0.0),  # cut off
        ("All good!", None, Verdict.UNDECIDED, 0.0),
        ("", None, Verdict.UNDECIDED, 0.0),
    ],
)
def test_an_answer_becomes_a_verdict(text: str, probability: float | None, verdict: Verdict, score: float) -> None:
    decision = decide(evidence_of(Said(text, probability), 200, 100), 0.5)
    assert decision.verdict is verdict
    assert decision.score == pytest.approx(score, abs=1e-5)
    if verdict is Verdict.NG:
        assert decision.candidates[0].box == Box(50.0, 20.0, 90.0, 40.0)
    if verdict is Verdict.UNDECIDED:
        assert decision.reason == "unparsable-answer"


@given(st.text(max_size=40), st.floats(0, 1) | st.none())
def test_no_text_without_a_zero_box_or_ok_is_ok(text: str, probability: float | None) -> None:
    decision = decide(evidence_of(Said(f"<answer>{text}</answer>", probability), 64, 64), 0.5)
    assert decision.verdict is not Verdict.ERROR
    if decision.verdict is Verdict.OK:
        assert "OK" in text or text.count("0") >= 4


def test_it_is_an_engine_and_is_used_as_it_lies() -> None:
    engine = Scripted(Said("<think>A chip.</think><answer>(250,200),(450,400)</answer>"))
    assert isinstance(engine, Engine)
    assert isinstance(engine, ComparesAsItLies)
    reference, target = pictures()
    small = np.ascontiguousarray(target[:, :150])
    with EdgeInspector(engine=engine) as inspector:
        result = inspector.compare(reference, small)
    assert result.verdict is Verdict.NG
    assert result.box == Box(37.5, 20.0, 67.5, 40.0)  # in pixels of the target as given
    assert result.findings[0].description == "A chip."
    assert result.alignment is None
    shown = engine.shown[0]
    assert np.array_equal(shown[0], reference)
    assert np.array_equal(shown[1], small)


def test_a_registered_product_says_how_it_is_judged(tmp_path) -> None:  # type: ignore[no-untyped-def]
    engine = Scripted(Said("<answer>OK</answer>"))
    reference, target = pictures()
    with EdgeInspector(store=tmp_path, engine=engine) as inspector:
        inspector.register("plate", [reference], roi=(20, 10, 180, 90))
        assert inspector.inspect(target, "plate").verdict is Verdict.OK
        learning = inspector.learning("plate")
    assert learning is not None
    assert "language model" in learning.statement()
    assert engine.shown[0][1].shape == (80, 160, 3)  # the region of interest alone


def test_what_is_ignored_is_painted_over_in_both() -> None:
    engine = Scripted(Said("<answer>OK</answer>"))
    reference, target = pictures()
    valid = np.ones((100, 200), bool)
    valid[20:40, 50:90] = False
    prepared = engine.prepare([ReferenceView(reference, valid, "0" * 64)])
    engine.compare_as_it_lies(prepared, target)
    first, second = engine.shown[0]
    assert np.array_equal(first[20:40, 50:90], second[20:40, 50:90])
    assert np.array_equal(second, covered(target, ~valid))
    smaller = np.ascontiguousarray(target[:90])
    assert engine.compare_as_it_lies(prepared, smaller).reason == "misaligned"
    restored = engine.restore(prepared.to_arrays())
    assert np.array_equal(restored.reference, prepared.reference)
    assert restored.ignore is not None
    with pytest.raises(IncompatibleReferenceError):
        engine.prepare([])
    for arrays in ({}, {"reference": np.zeros((4, 4))}, {**prepared.to_arrays(), "ignore": np.zeros((2, 2), bool)}):
        with pytest.raises(EngineError):
            engine.restore(arrays)


def test_the_probability_of_an_answer_by_hand() -> None:
    # The tokens between the tags have 0.5 and 0.125: their geometric mean is 0.25. The thought does not count.
    pieces = [("<think>", -9.0), ("x</think><answer>", -0.1), ("(1,2)", math.log(0.5)), (",(3,4)", math.log(0.125))]
    pieces += [("</answer>", -0.2)]
    assert answer_probability(pieces) == pytest.approx(0.25, abs=1e-12)
    assert answer_probability(pieces[:-1]) is None  # never closed
    assert answer_probability([]) is None
    assert answer_probability([("<answer></answer>", -0.1)]) is None  # nothing between
    assert answer_probability([("<answer>", 0.0), ("OK", math.nan), ("</answer>", 0.0)]) is None
    assert answer_probability([("<answer>", 0.0), ("OK", -math.inf), ("</answer>", 0.0)]) == 0.0


def test_the_fingerprint_follows_all_that_changes_an_answer() -> None:
    def made(**changes: object) -> str:
        settings = {"model": "m", "prompt": "trained", "max_new_tokens": 32, **changes}

        class Other(Scripted):
            def __init__(self) -> None:
                GroundedEngine.__init__(self, **settings)  # type: ignore[arg-type]

        return Other().fingerprint

    prints = [made(), made(model="n"), made(prompt="general"), made(max_new_tokens=33)]
    assert len(set(prints)) == 4
    assert made() == prints[0]


@pytest.mark.parametrize(
    ("name", "model", "words"),
    [
        ("lite", ModelConfig(path="x"), "model.path: got 'x', allowed for the engine 'lite': nothing"),
        ("vlm", ModelConfig(), r"model.path: missing, and the engine 'vlm' needs it \(--model\)"),
        ("vlm", ModelConfig(path="x", server="http://a"), "model.server: got 'http://a', allowed for the engine 'vlm'"),
        ("remote", ModelConfig(path="x"), r"model.server: missing, and the engine 'remote' needs it \(--server\)"),
    ],
)
def test_models_that_an_engine_cannot_use_are_named(name: str, model: ModelConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_engine(name, model=model)


def test_a_model_beside_a_finished_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="beside a finished engine"):
        EdgeInspector(engine=Scripted(Said("")), model="x")
    with pytest.raises(ConfigError, match=r"model\.server"):
        EdgeInspector(engine="remote", model="x")
