"""One accepted trigger on its way to its one result."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from differad_edge.cameras.base import Frame
from differad_edge.results import InspectionResult, Reason, Verdict
from differad_edge.runtime.record import SequenceRange
from differad_edge.runtime.service import OnResult

__all__ = ["Fault", "Job", "TriggerKind"]

TriggerKind: TypeAlias = Literal["free", "rate", "request", "image"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a part cannot be inspected: its result, without asking the engine."""

    reason: Reason
    detail: str
    verdict: Verdict = Verdict.UNDECIDED


@dataclass(slots=True, eq=False)
class Job:
    """A trigger that was accepted. It ends exactly once: whoever `claim`s it gives the result.

    ``since_ns``: monotonic, when the trigger came, or when a free-running frame was captured; ``frame_due_ns``: until
    when it waits for its frame; ``deadline_ns``: until when its result must be out. ``dropped``: what the station
    dropped before this part, cause -> ranges of frame sequences. ``sequence``: of its result, 0 before there is one.
    ``torn_sequence``: what the camera counted a frame as that arrived in pieces; ``late``: what came after the deadline
    and before the result was out.
    """

    trigger_id: str
    trigger: TriggerKind
    station: str
    product: str
    since_ns: int
    deadline_ns: int | None = None
    frame_due_ns: int | None = None
    part_id: str | None = None
    job_id: str | None = None
    frame: Frame | None = None
    camera: str | None = None
    image_fingerprint: str | None = None
    is_simulated: bool = False
    fault: Fault | None = None
    on_result: OnResult | None = None
    dropped: dict[str, tuple[SequenceRange, ...]] = field(default_factory=dict)
    sequence: int = 0
    torn_sequence: int | None = None
    late: InspectionResult | None = None
    _ended: bool = False
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def asked_for(self) -> bool:
        """Whether somebody asked for this very part; a free-running frame came by itself."""
        return self.trigger != "free"

    @property
    def ready(self) -> bool:
        """Whether it can be worked on: its frame is there, or it is known that none will be."""
        return self.frame is not None or self.fault is not None

    def claim(self) -> bool:
        """True for the first caller only, who then must give the result."""
        with self._guard:
            if self._ended:
                return False
            self._ended = True
            return True

    def expiry_ns(self) -> int | None:
        """When waiting any longer is useless."""
        if self.ready or self.frame_due_ns is None:
            return self.deadline_ns
        return self.frame_due_ns if self.deadline_ns is None else min(self.frame_due_ns, self.deadline_ns)

    def overdue(self, now_ns: int) -> Fault | None:
        """That its deadline has passed, or None."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return None
        budget_ms = (self.deadline_ns - self.since_ns) / 1e6
        return Fault(Reason.DEADLINE, f"the deadline of {budget_ms:g} ms has passed")

    def expired(self, now_ns: int) -> Fault | None:
        """Why it need not wait any longer, or None."""
        overdue = self.overdue(now_ns)
        if overdue is not None:
            return overdue
        if not self.ready and self.frame_due_ns is not None and now_ns >= self.frame_due_ns:
            waited_ms = (self.frame_due_ns - self.since_ns) / 1e6
            return Fault(Reason.NO_FRAME, f"the camera gave no frame for this trigger within {waited_ms:g} ms")
        return None
