"""When a station may accept triggers: what its state follows from."""

from __future__ import annotations

import threading

from differad_edge.errors import RefusedError
from differad_edge.runtime.states import EXECUTING, OnChange, State, StateMachine

__all__ = ["Readiness"]


class Readiness:
    """Engine proven, camera connected, nobody halted it: then Ready, or ContinuousExecution where frames or a clock
    trigger. A lost camera or a failed engine is Error, which ends by itself when they come back; Halted ends by reset.
    """

    def __init__(self, *, executes_continuously: bool, has_camera: bool, on_change: OnChange) -> None:
        self.machine = StateMachine(on_change)
        self._continuous = executes_continuously
        self._has_camera = has_camera
        self._camera = not has_camera
        self._camera_fault: str | None = None
        self._engine = False
        self._ended = False
        self._lock = threading.RLock()

    @property
    def accepting(self) -> bool:
        """Whether triggers are accepted."""
        return self.machine.state is State.READY or self.machine.state in EXECUTING

    @property
    def camera_connected(self) -> bool:
        """Whether frames can come."""
        return self._has_camera and self._camera

    @property
    def camera_fault(self) -> str | None:
        """Why none can."""
        return self._camera_fault

    @property
    def ended(self) -> bool:
        """Whether the camera has no more frames."""
        return self._ended

    def check(self, name: str, *, needs_camera: bool) -> None:
        """Raise RefusedError "not-ready" unless triggers are accepted."""
        if not self.accepting:
            raise RefusedError("not-ready", f"station {name!r} is {self.machine.state}: {self.machine.why}")
        if needs_camera and not self._camera:
            raise RefusedError("not-ready", f"station {name!r} has no camera: {self._camera_fault or 'connecting'}")

    def engine_proven(self) -> None:
        """An engine has passed its smoke pairs for every product."""
        with self._lock:
            self._engine = True
            self._advance()

    def engine_failed(self, why: str) -> None:
        """There is no engine that may judge."""
        with self._lock:
            self._engine = False
            self._fail(why)

    def camera_came(self) -> None:
        """The camera is open."""
        with self._lock:
            self._camera, self._camera_fault = True, None
            self._advance()

    def camera_went(self, why: str) -> None:
        """The camera is lost, or was not found."""
        with self._lock:
            self._camera, self._camera_fault = False, why
            self._fail(why)

    def camera_ended(self) -> None:
        """No frame will come any more; images that clients send are still inspected."""
        with self._lock:
            self._camera, self._camera_fault, self._ended = False, "the camera has no more frames", True
            self.machine.swap(State.CONTINUOUS_EXECUTION, State.READY, "the camera has no more frames")

    def halt(self) -> None:
        """Until `reset`."""
        with self._lock:
            self.machine.to(State.HALTED, "halted by request")

    def reset(self) -> None:
        """Legal from everywhere: begin again at Preoperational and go as far as engine and camera allow."""
        with self._lock:
            self.machine.to(State.PREOPERATIONAL, "reset by request")
            self._advance()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _fail(self, why: str) -> None:
        if self.machine.state is not State.HALTED:
            self.machine.to(State.ERROR, why)

    def _advance(self) -> None:
        """Go as far towards execution as is possible now."""
        machine = self.machine
        if machine.state is State.HALTED:
            return
        if machine.state is State.ERROR:
            if not (self._engine and (self._camera or self._ended)):
                return
            machine.to(State.PREOPERATIONAL, "what had failed works again")
        if machine.state is State.PREOPERATIONAL and self._engine:
            machine.to(State.INITIALIZED, "the engine has passed its smoke pairs")
        if machine.state is State.INITIALIZED and (self._camera or self._ended):
            machine.to(State.READY, "triggers are accepted")
        if machine.state is State.READY and self._continuous and self._camera:
            machine.to(State.CONTINUOUS_EXECUTION, "frames or a clock trigger")
