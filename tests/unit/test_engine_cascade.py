"""The cascade: who decides which part, what a failing or slow language model does to it, words for clear NG parts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from differad_edge.config import CascadeConfig, InspectorConfig, ModelConfig
from differad_edge.deadline import Deadline
from differad_edge.decide import decide
from differad_edge.engines import create_engine
from differad_edge.engines.base import Candidate, ComparesAsItLies, Engine, Evidence, ReferenceView
from differad_edge.engines.cascade import CascadeEngine
from differad_edge.engines.grounded import GroundedEngine, Said
from differad_edge.engines.lite import LiteEngine
from differad_edge.errors import ConfigError, DeadlineExceeded, EngineError
from differad_edge.images import Image
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Box, Verdict

DEFECT = Box(50.0, 20.0, 90.0, 40.0)
OK = "<answer>OK</answer>"
NG = "<answer>NG (250,200),(450,400)</answer><think>A chip.</think>"
ELSEWHERE = "<answer>NG (600,600),(900,900)</answer><think>A scratch.</think>"


class Quick(LiteEngine):
    """The embedded engine with a prepared answer; everything else is its own."""

    answer = Evidence(0.0)

    def compare(self, *args: Any, **options: Any) -> Evidence:
        return self.answer


class Asked(GroundedEngine):
    """A language model that answers what it was told, as slowly as it was told, or fails."""

    name = "asked"

    def __init__(self, text: str) -> None:
        super().__init__(model=text, prompt="student", max_new_tokens=32)
        self.text, self.questions, self.error, self.takes_s = text, 0, None, 0.0
        self.error: Exception | None = None

    def ask(self, reference: Image, target: Image, deadline: Deadline | None) -> Said:
        self.questions += 1
        time.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return Said(self.text)


def cascade(score: float, text: str = OK, **options: Any) -> tuple[CascadeEngine, Asked]:
    quick, asked = Quick(threads=1), Asked(text)
    found = (Candidate(DEFECT, score),) if score >= 0.5 else ()
    quick.answer = Evidence(score, found, **{name: options.pop(name) for name in list(options) if name == "reason"})
    return CascadeEngine(quick, asked, options.pop("limits", CascadeConfig()), **{"describes": True} | options), asked


def picture() -> Image:
    return np.random.default_rng(0).integers(60, 200, (100, 200, 3), dtype=np.uint8)


def compared(engine: CascadeEngine, **options: Any) -> Evidence:
    return engine.compare(engine.prepare([ReferenceView(picture(), None, "0" * 64)]), picture(), **options)


def test_it_is_an_engine() -> None:
    engine, _ = cascade(0.0)
    assert isinstance(engine, Engine)
    assert isinstance(engine, ComparesAsItLies)
    prepared = engine.prepare([ReferenceView(picture(), None, "0" * 64)])
    again = engine.restore(prepared.to_arrays())
    assert engine.compare(again, picture()) == Evidence(0.0)
    learned = engine.learning(again)
    assert learned.way == "aligned"
    assert learned.memory_bytes > picture().nbytes
    assert engine.needs_alignment(again, misfit=False)
    with pytest.raises(EngineError):
        engine.restore({})


@pytest.mark.parametrize(
    ("score", "text", "asked", "verdict"),
    [
        (0.1, NG, 0, Verdict.OK),  # clear, whatever the model would have said
        (0.25, OK, 1, Verdict.OK),
        (0.3, NG, 1, Verdict.NG),
        (0.7, OK, 1, Verdict.OK),
        (0.7, NG, 1, Verdict.NG),
        (0.7, "I see nothing", 1, Verdict.UNDECIDED),
        (0.3, "I see nothing", 1, Verdict.UNDECIDED),
        (0.9, OK, 1, Verdict.NG),  # asked for words alone
        (float("nan"), OK, 1, Verdict.OK),  # no number is no clear case
    ],
)
def test_who_decides(score: float, text: str, asked: int, verdict: Verdict) -> None:
    engine, model = cascade(score, text)
    decision = decide(compared(engine), engine.default_threshold)
    assert (decision.verdict, model.questions) == (verdict, asked)


def test_what_the_embedded_engine_cannot_tell_the_model_is_asked() -> None:
    for text, verdict in ((OK, Verdict.OK), (NG, Verdict.NG), ("", Verdict.UNDECIDED)):
        engine, model = cascade(0.1, text, reason="misaligned")
        assert decide(compared(engine), 0.5).verdict is verdict
        assert model.questions == 1


def test_limits_say_what_is_clear() -> None:
    for score, limits in ((0.1, CascadeConfig(ok_below=0.0)), (0.95, CascadeConfig(ng_from=1.0))):
        engine, model = cascade(score, ELSEWHERE, limits=limits)
        assert compared(engine).candidates[0].description == "A scratch."
        assert model.questions == 1
    with pytest.raises(ValueError, match=r"ok_below: got 0\.9, allowed: at most ng_from, 0\.85"):
        CascadeConfig(ok_below=0.9)


def test_a_clear_ng_gets_words_about_its_own_place() -> None:
    found = compared(cascade(0.9, NG)[0])
    assert (found.candidates[0].box, found.candidates[0].description) == (DEFECT, "A chip.")
    (plain,) = compared(cascade(0.9, ELSEWHERE)[0]).candidates
    assert (plain.box, plain.description) == (DEFECT, None)
    engine, model = cascade(0.9, NG, describes=False)
    assert compared(engine).candidates[0].description is None
    assert model.questions == 0


def test_a_threshold_fitted_to_doubtful_parts_passes_no_clear_ng() -> None:
    """Good parts that the model calls nearly NG may lift the threshold far; what is clear lies beyond it."""
    doubtful = compared(cascade(0.5, NG)[0])
    clear = compared(cascade(0.86)[0])
    assert compared(cascade(0.2)[0]).score < 0.01 < doubtful.score <= 0.99 < clear.score
    assert decide(clear, 0.985).verdict is Verdict.NG
    assert decide(compared(cascade(0.5, OK)[0]), 0.5).score < 0.5
    engine, _ = cascade(0.9, describes=False)
    engine._quick.answer = Evidence(0.9, (Candidate(DEFECT, 0.9), Candidate(DEFECT, 0.4)))  # type: ignore[attr-defined]
    assert len(decide(compared(engine), 0.5).candidates) == 1


@pytest.mark.parametrize("error", [EngineError("gone"), DeadlineExceeded("late")])
def test_a_failing_model_takes_the_doubtful_parts_alone(error: Exception) -> None:
    for score in (0.1, 0.9):
        engine, model = cascade(score)
        model.error = error
        assert decide(compared(engine), 0.5).verdict is (Verdict.OK if score < 0.5 else Verdict.NG)
    engine, model = cascade(0.4)
    model.error = error
    with pytest.raises(type(error)):
        compared(engine)


def test_words_must_not_make_an_ng_late() -> None:
    engine, model = cascade(0.9, NG)
    model.takes_s = 0.05
    assert compared(engine, deadline=Deadline.after_ms(10_000)).candidates[0].description is None
    assert model.questions == 0  # nobody knows yet how long it takes
    compared(engine)
    assert compared(engine, deadline=Deadline.after_ms(10_000)).candidates[0].description == "A chip."
    compared(engine, deadline=Deadline.after_ms(30))
    assert model.questions == 2


def test_the_fingerprint_holds_both_engines_and_the_limits() -> None:
    prints = [
        cascade(0.1)[0].fingerprint,
        cascade(0.1, NG)[0].fingerprint,
        cascade(0.1, limits=CascadeConfig(ok_below=0.3))[0].fingerprint,
        cascade(0.1, limits=CascadeConfig(ng_from=0.9))[0].fingerprint,
    ]
    assert len(set(prints)) == 4
    assert cascade(0.8)[0].fingerprint == prints[0]


def test_a_whole_inspection() -> None:
    rng = np.random.default_rng(1)
    golden = np.kron(rng.integers(60, 200, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    bad = golden.copy()
    bad[100:130, 150:190] = 255 - bad[100:130, 150:190]
    asked = Asked(OK)
    engine = CascadeEngine(LiteEngine(threads=1), asked, CascadeConfig(), describes=False)
    with EdgeInspector(engine=engine) as inspector:
        assert inspector.compare(golden, golden).verdict is Verdict.OK
        result = inspector.compare(golden, bad)
    assert (result.verdict, result.engine, asked.questions) == (Verdict.NG, "cascade", 0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (InspectorConfig(engine="cascade"), r"model\.path: missing, and the engine 'cascade' needs it"),
        (
            InspectorConfig(engine="lite", model=ModelConfig(server="http://a")),
            r"model\.server: got 'http://a', allowed for the engine 'lite': nothing",
        ),
    ],
)
def test_a_cascade_needs_a_model(config: InspectorConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_engine(config.engine, model=config.model, cascade=config.cascade)
