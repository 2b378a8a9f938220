"""The states of a managed node, after ROS 2's own: one implementation, whoever asks for the transitions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from differad_edge.errors import DifferadError

__all__ = ["TRANSITIONS", "Answer", "State", "States", "Transition"]

_log = logging.getLogger(__name__)


class State(str, Enum):
    """Where a node is; the names are those of lifecycle_msgs."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    ACTIVE = "active"
    FINALIZED = "finalized"

    def __str__(self) -> str:
        return self.value


class Transition(str, Enum):
    """What may be asked of it."""

    CONFIGURE = "configure"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    CLEANUP = "cleanup"
    SHUTDOWN = "shutdown"

    def __str__(self) -> str:
        return self.value


TRANSITIONS: Mapping[Transition, tuple[frozenset[State], State]] = {
    Transition.CONFIGURE: (frozenset({State.UNCONFIGURED}), State.INACTIVE),
    Transition.ACTIVATE: (frozenset({State.INACTIVE}), State.ACTIVE),
    Transition.DEACTIVATE: (frozenset({State.ACTIVE}), State.INACTIVE),
    Transition.CLEANUP: (frozenset({State.INACTIVE}), State.UNCONFIGURED),
    Transition.SHUTDOWN: (frozenset({State.UNCONFIGURED, State.INACTIVE, State.ACTIVE}), State.FINALIZED),
}
_GOES_UP = frozenset({Transition.CONFIGURE, Transition.ACTIVATE})


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the transition was made, the state after it, and in words what happened."""

    success: bool
    state: State
    message: str


class States:
    """Makes transitions, one at a time, each by the action it is given; an action says no by raising.

    An action that fails on the way up leaves the state as it was. On the way down the state changes whatever happens:
    a node that cannot let go of something must not go on inspecting for it. Thread-safe.
    """

    def __init__(
        self, actions: Mapping[Transition, Callable[[], None]], *, on_change: Callable[[State], None] | None = None
    ) -> None:
        self._actions = actions
        self._on_change = on_change
        self._state = State.UNCONFIGURED
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """Where the node is."""
        return self._state

    def request(self, transition: Transition) -> Answer:
        """Make ``transition``, or say why not. Never raises."""
        with self._lock:
            before, (sources, target) = self._state, TRANSITIONS[transition]
            if before not in sources:
                allowed = ", ".join(sorted(sources))
                return Answer(False, before, f"{transition}: the node is {before}, allowed: when it is {allowed}")
            try:
                self._actions[transition]()
            except Exception as error:  # whatever it is, a manager must hear of it and the node must live
                words = str(error) if isinstance(error, DifferadError) else f"{type(error).__name__}: {error}"
                if not isinstance(error, DifferadError):
                    _log.exception("%s failed", transition)
                if transition in _GOES_UP:
                    return Answer(False, before, f"{transition}: {words}")
                answer = Answer(True, target, f"{transition}: done, but {words}")
            else:
                answer = Answer(True, target, f"{transition}: the node is {target}")
            self._state = target
        if self._on_change is not None:
            self._on_change(target)
        return answer
