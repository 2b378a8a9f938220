"""A cell without ROS: one outcome for each accepted image, in order; drops counted and named; never a false OK."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from differad_edge_ros import worker
from differad_edge_ros.cell import Cell
from differad_edge_ros.figures import Figures, Level
from differad_edge_ros.outcome import LOST_ON_THE_WAY, QUEUE_FULL, Drop, Outcome
from differad_edge_ros.settings import Settings
from differad_edge_ros.states import State, Transition
from line_fakes import until
from ros_fakes import Picture, ScriptedJudge, grey

from differad_edge.errors import (
    CameraTimeoutError,
    ConfigError,
    EngineError,
    NoAnswerError,
    RefusedError,
    SmokeTestError,
    UnknownProductError,
)
from differad_edge.results import InspectionResult, Verdict


class Scripted:
    """A cell with a scripted judge; ``settings``: its parameters."""

    def __init__(self, judge: ScriptedJudge | None = None, **settings: Any) -> None:
        self.judge = judge or ScriptedJudge()
        self.settings = Settings(**{"product": "p", **settings})
        self.outcomes: list[Outcome] = []
        self.cell = Cell(
            lambda: self.settings,
            lambda outcome, job, image: self.outcomes.append(outcome),
            make_judge=lambda given: self.judge,
        )

    def active(self) -> Scripted:
        for transition in (Transition.CONFIGURE, Transition.ACTIVATE):
            answer = self.cell.request(transition)
            assert answer.success, answer.message
        return self

    def show(self, number: int, message: Any = None, age_ms: float | None = None) -> bool:
        return self.cell.arrive(message or grey(number), (number, 0), f"frame-{number}", age_ms)

    def one(self, number: int = 1, message: Any = None, age_ms: float | None = None) -> Outcome:
        known = len(self.outcomes)
        assert self.show(number, message, age_ms)
        until(lambda: len(self.outcomes) > known)
        return self.outcomes[-1]

    def busy(self) -> None:
        """Image 0 is in hand and stays there until the gate opens."""
        self.judge.gate.clear()
        self.judge.entered.clear()
        assert self.show(0)
        assert self.judge.entered.wait(5)


def test_each_accepted_image_has_one_outcome_in_order_and_drops_are_named() -> None:
    scripted = Scripted(queue_depth=3).active()
    scripted.busy()
    accepted = [scripted.show(number) for number in range(1, 9)]
    scripted.cell.lost(2)
    assert accepted == [True] * 3 + [False] * 5
    scripted.judge.gate.set()
    until(lambda: len(scripted.outcomes) == 4)
    assert [outcome.stamp for outcome in scripted.outcomes] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert [outcome.frame_id for outcome in scripted.outcomes] == [f"frame-{number}" for number in range(4)]
    assert [outcome.sequence for outcome in scripted.outcomes] == [1, 2, 3, 4]
    assert scripted.judge.seen == [0, 1, 2, 3]
    assert scripted.outcomes[0].dropped == (Drop(QUEUE_FULL, 5, (4, 0), (8, 0)), Drop(LOST_ON_THE_WAY, 2))
    assert all(outcome.dropped == () for outcome in scripted.outcomes[1:])
    assert json.loads(scripted.outcomes[0].to_json())["dropped"][0]["first_stamp"] == [4, 0]
    scripted.cell.request(Transition.SHUTDOWN)


def test_what_waits_at_a_deactivation_is_undecided_and_the_part_in_hand_is_finished() -> None:
    scripted = Scripted().active()
    scripted.busy()
    scripted.show(1)
    scripted.show(2)
    opener = threading.Timer(0.2, scripted.judge.gate.set)
    opener.start()
    assert scripted.cell.request(Transition.DEACTIVATE).state is State.INACTIVE
    assert [(o.result.verdict, o.result.reason) for o in scripted.outcomes] == [
        (Verdict.OK, None),
        (Verdict.UNDECIDED, "stopped"),
        (Verdict.UNDECIDED, "stopped"),
    ]
    assert not scripted.show(3)
    assert scripted.cell.request(Transition.ACTIVATE).success
    assert scripted.one(4).sequence == 4
    opener.join()


def test_a_judge_that_hangs_is_left_behind_and_its_late_answer_belongs_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker.Worker.stop, "__defaults__", (0.2,))
    scripted = Scripted().active()
    scripted.busy()
    scripted.show(1)
    answer = scripted.cell.request(Transition.DEACTIVATE)
    assert (answer.success, answer.state) == (True, State.INACTIVE)
    assert "hung" in answer.message
    assert [(o.stamp[0], o.result.verdict, o.result.reason) for o in scripted.outcomes] == [
        (0, Verdict.ERROR, "engine-failure"),
        (1, Verdict.UNDECIDED, "stopped"),
    ]
    refused = scripted.cell.request(Transition.ACTIVATE)
    assert not refused.success
    assert "clean up" in refused.message
    scripted.judge.gate.set()
    until(lambda: len(scripted.judge.seen) == 1)
    assert scripted.cell.request(Transition.CLEANUP).success
    scripted.active()
    assert scripted.one(5).result.is_ok
    assert len(scripted.outcomes) == 3


def raising(error: Exception) -> Callable[[Any, str], InspectionResult]:
    def script(image: Any, product: str) -> InspectionResult:
        raise error

    return script


@pytest.mark.parametrize(
    ("error", "deadline_ms", "verdict", "reason"),
    [
        (EngineError("broken"), 0.0, Verdict.ERROR, "engine"),
        (ValueError("surprise"), 0.0, Verdict.ERROR, "engine-failure"),
        (MemoryError(), 0.0, Verdict.ERROR, "engine-failure"),
        (UnknownProductError("gone"), 0.0, Verdict.ERROR, "unknown-product"),
        (NoAnswerError("silent"), 0.0, Verdict.ERROR, "no-answer"),
        (NoAnswerError("silent"), 500.0, Verdict.UNDECIDED, "deadline"),
        (RefusedError("not-ready", "wait"), 0.0, Verdict.ERROR, "not-ready"),
        (RefusedError("Not A Code!", "wait"), 0.0, Verdict.ERROR, "refused"),
    ],
)
def test_a_judge_that_fails_never_reads_as_ok(
    error: Exception, deadline_ms: float, verdict: Verdict, reason: str
) -> None:
    scripted = Scripted(ScriptedJudge(raising(error)), deadline_ms=deadline_ms).active()
    outcome = scripted.one()
    assert (outcome.result.verdict, outcome.result.reason) == (verdict, reason)
    scripted.judge.script = None
    assert scripted.one(2).result.is_ok


def test_an_image_that_is_none_is_undecided() -> None:
    scripted = Scripted().active()
    for message in (Picture(), object()):
        outcome = scripted.one(1, message)
        assert outcome.result.verdict in (Verdict.UNDECIDED, Verdict.ERROR)
    assert scripted.judge.seen == []


def test_the_deadline_counts_from_the_arrival() -> None:
    scripted = Scripted(deadline_ms=60.0).active()
    scripted.busy()
    scripted.show(1)
    threading.Event().wait(0.1)
    scripted.judge.gate.set()
    until(lambda: len(scripted.outcomes) == 2)
    assert [outcome.result.reason for outcome in scripted.outcomes] == ["deadline", "deadline"]
    assert scripted.judge.seen == [0]
    assert scripted.judge.left_ms[0] is not None
    assert scripted.judge.left_ms[0] <= 60.0


@pytest.mark.parametrize(("age_ms", "verdict"), [(99.0, Verdict.OK), (101.0, Verdict.UNDECIDED)])
def test_an_image_that_is_too_old_is_undecided(age_ms: float, verdict: Verdict) -> None:
    assert Scripted(max_age_ms=100.0).active().one(1, age_ms=age_ms).result.verdict is verdict


def test_only_a_product_that_passes_is_activated_or_selected() -> None:
    scripted = Scripted(ScriptedJudge(unproven=SmokeTestError("its own golden sample is NG")))
    scripted.cell.request(Transition.CONFIGURE)
    answer = scripted.cell.request(Transition.ACTIVATE)
    assert (answer.success, answer.state) == (False, State.INACTIVE)
    assert "golden sample" in answer.message
    with pytest.raises(SmokeTestError):
        scripted.cell.select("q").result(5)
    scripted.judge.unproven = None
    scripted.cell.select("q").result(5)
    assert scripted.cell.request(Transition.ACTIVATE).success
    assert scripted.one().result.product == "q"
    with pytest.raises(ConfigError):
        scripted.cell.select("").result(5)
    assert not Scripted(product="").cell.request(Transition.ACTIVATE).success


def test_a_changed_product_meets_the_next_image() -> None:
    scripted = Scripted().active()
    scripted.busy()
    scripted.show(1)
    scripted.cell.change({"product": "q"})
    scripted.show(2)
    scripted.judge.gate.set()
    until(lambda: len(scripted.outcomes) == 3)
    assert [outcome.result.product for outcome in scripted.outcomes] == ["p", "p", "q"]


def test_the_next_image_is_registered_and_is_no_part() -> None:
    scripted = Scripted().active()
    future = scripted.cell.register("new", [], [1, 2, 30, 40], 5.0)
    until(lambda: scripted.cell._wanted)
    assert not scripted.show(7)
    assert future.result(5) == ("ref-001",)
    product, images, roi = scripted.judge.registered[0]
    assert (product, int(images[0][0, 0, 0]), roi) == ("new", 7, [1, 2, 30, 40])
    assert scripted.cell.register("", ["a.png", "b.png"], [], 0.0).result(5) == ("ref-001", "ref-002")
    with pytest.raises(CameraTimeoutError):
        scripted.cell.register("new", [], [], 0.05).result(5)
    with pytest.raises(ConfigError):
        scripted.cell.register("new", [], [1], 1.0).result(5)
    assert scripted.one(8).result.is_ok


def test_inspect_takes_the_latest_image_and_is_published_too() -> None:
    scripted = Scripted(queue_depth=1)
    with pytest.raises(RefusedError) as refused:
        scripted.cell.inspect(None, (0, 0), "", "", lambda outcome: None)
    assert refused.value.code == "not-ready"
    scripted.active()
    with pytest.raises(RefusedError) as refused:
        scripted.cell.inspect(None, (0, 0), "", "", lambda outcome: None)
    assert refused.value.code == "no-image"
    scripted.one(3)
    answers: list[Outcome] = []
    scripted.cell.inspect(None, (0, 0), "", "q", answers.append)
    until(lambda: answers)
    assert answers == scripted.outcomes[1:]
    assert (answers[0].trigger, answers[0].stamp, answers[0].result.product) == ("request", (3, 0), "q")
    scripted.busy()
    scripted.show(1)
    with pytest.raises(RefusedError) as refused:
        scripted.cell.inspect(grey(5), (5, 0), "", "", answers.append)
    assert refused.value.code == "busy"
    scripted.judge.gate.set()


def test_diagnostics_say_what_is_wrong() -> None:
    now_s = 100.0
    figures = Figures(lambda: now_s)

    def health(state: State = State.ACTIVE, **given: Any) -> tuple[Level, str]:
        told = figures.health(state, **{"waiting": 0, "dropped_total": 0, "busy_s": 0.0, "silence_s": 5.0, **given})
        assert dict(told.values)["state"] == state.value
        return told.level, told.message

    assert health(State.INACTIVE)[0] is Level.WARN
    assert health() == (Level.OK, "inspecting")
    assert health(dropped_total=3) == (Level.WARN, "3 images dropped since the last report")
    assert health(dropped_total=3) == (Level.OK, "inspecting")
    assert health(busy_s=6.0)[0] is Level.ERROR
    now_s += 6.0
    assert health() == (Level.WARN, "no image for 6.0 s")
    assert health(silence_s=0.0) == (Level.OK, "inspecting")


def test_the_outcome_of_an_error_shows_in_diagnostics() -> None:
    scripted = Scripted(ScriptedJudge(raising(EngineError("no memory")))).active()
    scripted.one()
    told = scripted.cell.health()
    assert (told.level, told.message) == (Level.ERROR, "engine: no memory")
    assert dict(told.values)["results.ERROR"] == "1"
    assert dict(told.values)["results.OK"] == "0"
