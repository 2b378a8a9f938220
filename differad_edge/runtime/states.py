"""The states of a vision system and the transitions that are legal, as in OPC 40100-1 (Machine Vision).

    Preoperational ─▶ Initialized ─▶ Ready ⇄ SingleExecution, ContinuousExecution
          ▲               (Initialized, Ready and the executions are "Operational")
          ├── Error       from anywhere when something fails
          └── Halted      from anywhere when it is told to

Reset leads from anywhere to Preoperational; from Error and Halted there is no other way on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum

from differad_edge.errors import RefusedError

__all__ = ["EXECUTING", "State", "StateMachine"]


class State(str, Enum):
    """Names as OPC 40100-1 spells them."""

    PREOPERATIONAL = "Preoperational"
    HALTED = "Halted"
    ERROR = "Error"
    INITIALIZED = "Initialized"
    READY = "Ready"
    SINGLE_EXECUTION = "SingleExecution"
    CONTINUOUS_EXECUTION = "ContinuousExecution"

    def __str__(self) -> str:
        return self.value


EXECUTING = frozenset({State.SINGLE_EXECUTION, State.CONTINUOUS_EXECUTION})
_ALWAYS = frozenset({State.PREOPERATIONAL, State.HALTED, State.ERROR})

LEGAL: dict[State, frozenset[State]] = {
    State.PREOPERATIONAL: frozenset({State.INITIALIZED, State.HALTED, State.ERROR, State.PREOPERATIONAL}),
    State.INITIALIZED: _ALWAYS | {State.READY},
    State.READY: _ALWAYS | EXECUTING | {State.INITIALIZED},
    State.SINGLE_EXECUTION: _ALWAYS | {State.READY, State.INITIALIZED},
    State.CONTINUOUS_EXECUTION: _ALWAYS | {State.READY, State.INITIALIZED},
    State.ERROR: frozenset({State.PREOPERATIONAL, State.HALTED, State.ERROR}),
    State.HALTED: frozenset({State.PREOPERATIONAL, State.HALTED}),
}

OnChange = Callable[[State, State, str], None]


class StateMachine:
    """The state of one station. ``on_change(old, new, why)`` is called after each change, in order."""

    def __init__(self, on_change: OnChange | None = None) -> None:
        self._state = State.PREOPERATIONAL
        self._why = "starting"
        self._on_change = on_change
        self._lock = threading.RLock()

    @property
    def state(self) -> State:
        """Now."""
        return self._state

    @property
    def why(self) -> str:
        """What led here."""
        return self._why

    def to(self, new: State, why: str) -> None:
        """Change. Raises RefusedError "illegal-transition"; to where it is already, nothing happens."""
        with self._lock:
            old = self._state
            if new is old:
                self._why = why
                return
            if new not in LEGAL[old]:
                allowed = ", ".join(sorted(LEGAL[old] - {old}))
                raise RefusedError("illegal-transition", f"from {old} to {new} ({why}), allowed: {allowed}")
            self._state, self._why = new, why
            if self._on_change is not None:
                self._on_change(old, new, why)

    def swap(self, old: State, new: State, why: str) -> bool:
        """Change only when it is in ``old``; tells whether it did."""
        with self._lock:
            if self._state is not old:
                return False
            self.to(new, why)
            return True
