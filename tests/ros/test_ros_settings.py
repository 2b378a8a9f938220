"""Parameters and states."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from conftest import ROOT
from differad_edge_ros.settings import CHANGEABLE, PARAMETERS, Settings, check, settings_from
from differad_edge_ros.states import TRANSITIONS, State, States, Transition
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.errors import ConfigError


def test_every_parameter_is_described_and_has_an_allowed_default() -> None:
    settings = Settings()
    assert set(PARAMETERS) == set(Settings.__dataclass_fields__)
    for name, parameter in PARAMETERS.items():
        assert parameter.description.endswith(".")
        assert check(name, getattr(settings, name)) == getattr(settings, name)
    assert {"product", "deadline_ms"} <= CHANGEABLE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "guess"),
        ("mode", 3),
        ("product", "../up"),
        ("product", "a b"),
        ("engine", " "),
        ("threads", -1),
        ("threads", 1.5),
        ("control", "localhost:5571"),
        ("timeout_ms", 0.0),
        ("timeout_ms", math.inf),
        ("deadline_ms", -0.1),
        ("deadline_ms", math.nan),
        ("deadline_ms", True),
        ("max_age_ms", -1),
        ("image_transport", "theora"),
        ("queue_depth", 0),
        ("queue_depth", 1001),
        ("overlay", 1),
        ("silence_s", -1.0),
        ("store", "a\0b"),
        ("nonsense", 1),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from({name: value})
    assert name in str(caught.value)
    assert "allowed" in str(caught.value)


def test_whole_numbers_are_taken_for_floats() -> None:
    assert settings_from({"deadline_ms": 100}).deadline_ms == 100.0


def test_the_file_of_parameters_is_complete_and_allowed() -> None:
    file = ROOT / "ros" / "differad_edge_ros" / "config" / "cell.yaml"
    given_values = yaml.safe_load(file.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    assert settings_from(given_values) == Settings(**given_values)
    assert set(PARAMETERS) - set(given_values) == {"model", "threads"}


@given(st.lists(st.tuples(st.sampled_from(list(Transition)), st.booleans()), max_size=20))
def test_the_states_follow_the_table_whatever_is_asked_and_fails(asked: list[tuple[Transition, bool]]) -> None:
    fails = False
    changes: list[State] = []

    def act() -> None:
        if fails:
            raise OSError("no disk")

    states = States(dict.fromkeys(Transition, act), on_change=changes.append)
    for transition, fails in asked:  # act reads it
        before = states.state
        sources, target = TRANSITIONS[transition]
        answer = states.request(transition)
        upwards = transition in (Transition.CONFIGURE, Transition.ACTIVATE)
        assert answer.success == (before in sources and not (fails and upwards))
        assert states.state == answer.state == (target if answer.success else before)
        assert (before in sources) or "allowed: when it is" in answer.message
        assert not (fails and before in sources) or "no disk" in answer.message
    assert (changes[-1] if changes else State.UNCONFIGURED) == states.state
