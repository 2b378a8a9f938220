"""The states of OPC 40100-1, and what leads a station through them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.errors import RefusedError
from differad_edge.runtime.readiness import Readiness
from differad_edge.runtime.states import LEGAL, State, StateMachine

WAY = {
    State.PREOPERATIONAL: [],
    State.HALTED: [State.HALTED],
    State.ERROR: [State.ERROR],
    State.INITIALIZED: [State.INITIALIZED],
    State.READY: [State.INITIALIZED, State.READY],
    State.SINGLE_EXECUTION: [State.INITIALIZED, State.READY, State.SINGLE_EXECUTION],
    State.CONTINUOUS_EXECUTION: [State.INITIALIZED, State.READY, State.CONTINUOUS_EXECUTION],
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_only_legal_transitions_happen(old: State, new: State) -> None:
    changes: list[tuple[State, State]] = []
    machine = StateMachine(lambda a, b, why: changes.append((a, b)))
    for state in WAY[old]:
        machine.to(state, "on the way")
    changes.clear()
    if new in LEGAL[old] or new is old:
        machine.to(new, "test")
        assert machine.state is new
        assert changes == ([] if new is old else [(old, new)])
    else:
        with pytest.raises(RefusedError, match="allowed") as caught:
            machine.to(new, "test")
        assert caught.value.code == "illegal-transition"
        assert (machine.state, changes) == (old, [])


def test_reset_is_legal_from_everywhere() -> None:
    assert all(State.PREOPERATIONAL in allowed for allowed in LEGAL.values())


def make(*, continuous: bool = True, camera: bool = True) -> tuple[Readiness, list[State]]:
    states: list[State] = []
    return Readiness(
        executes_continuously=continuous, has_camera=camera, on_change=lambda old, new, why: states.append(new)
    ), states


def test_ready_needs_engine_and_camera_in_any_order() -> None:
    for first, second in (("engine_proven", "camera_came"), ("camera_came", "engine_proven")):
        readiness, _ = make()
        getattr(readiness, first)()
        assert not readiness.accepting
        getattr(readiness, second)()
        assert readiness.machine.state is State.CONTINUOUS_EXECUTION


def test_on_request_a_station_is_ready_and_not_executing() -> None:
    readiness, states = make(continuous=False)
    readiness.camera_came()
    readiness.engine_proven()
    assert states == [State.INITIALIZED, State.READY]


def test_a_lost_camera_is_an_error_that_ends_when_it_comes_back() -> None:
    readiness, states = make()
    readiness.engine_proven()
    readiness.camera_came()
    readiness.camera_went("unplugged")
    assert (readiness.machine.state, readiness.machine.why) == (State.ERROR, "unplugged")
    with pytest.raises(RefusedError, match="unplugged"):
        readiness.check("main", needs_camera=True)
    readiness.camera_came()
    assert states[-4:] == [State.PREOPERATIONAL, State.INITIALIZED, State.READY, State.CONTINUOUS_EXECUTION]


def test_a_failed_engine_is_not_mended_by_the_camera() -> None:
    readiness, _ = make()
    readiness.camera_came()
    readiness.engine_failed("garbage")
    readiness.camera_went("unplugged")
    readiness.camera_came()
    assert readiness.machine.state is State.ERROR
    readiness.engine_proven()
    assert readiness.accepting


def test_halted_ends_by_reset_alone() -> None:
    readiness, _ = make()
    readiness.engine_proven()
    readiness.camera_came()
    readiness.halt()
    readiness.camera_went("unplugged")
    readiness.camera_came()
    readiness.engine_proven()
    assert readiness.machine.state is State.HALTED
    readiness.reset()
    assert readiness.accepting


def test_reset_in_error_goes_no_further_than_what_works() -> None:
    readiness, _ = make()
    readiness.camera_came()
    readiness.engine_failed("garbage")
    readiness.reset()
    assert readiness.machine.state is State.PREOPERATIONAL


def test_after_the_last_frame_images_are_still_taken() -> None:
    readiness, _ = make()
    readiness.engine_proven()
    readiness.camera_came()
    readiness.camera_ended()
    assert readiness.machine.state is State.READY
    readiness.check("main", needs_camera=False)
    with pytest.raises(RefusedError, match="no more frames"):
        readiness.check("main", needs_camera=True)


@given(
    st.lists(
        st.sampled_from(
            ["engine_proven", "engine_failed", "camera_came", "camera_went", "camera_ended", "halt", "reset"]
        ),
        max_size=30,
    )
)
def test_no_order_of_events_breaks_it(calls: list[str]) -> None:
    readiness, _ = make()
    for call in calls:
        getattr(readiness, call)(*(["why"] if call in ("engine_failed", "camera_went") else []))
        if readiness.accepting:
            assert readiness._engine
            assert readiness._camera or readiness.ended
