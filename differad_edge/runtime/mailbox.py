"""Where parts wait for the inspection: bounded, with a named policy for what comes while another part is in hand."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from differad_edge.cameras.base import Frame
from differad_edge.runtime.job import Fault, Job

__all__ = ["Mailbox", "Offer", "Policy"]

Policy: TypeAlias = Literal["latest", "queue", "refuse"]


@dataclass(frozen=True, slots=True)
class Offer:
    """``accepted``: the job waits now and will get its result; ``displaced``: the one that had to make room for it."""

    accepted: bool
    displaced: Job | None = None


class Mailbox:
    """The waiting jobs of one station, oldest first.

    latest: one waits; a newer one takes its place. queue: ``capacity`` wait, more are refused. refuse: a job is
    accepted only when none waits and none is in hand. A part that somebody asked for never makes room for a frame that
    came by itself.

    A job may wait here for its frame: frames are given to jobs in their order, and `take` gives out the oldest job that
    has its own. Thread-safe.
    """

    def __init__(self, policy: Policy, capacity: int, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.policy: Policy = policy
        self._room = capacity if policy == "queue" else 1
        self._clock_ns = clock_ns
        self._jobs: deque[Job] = deque()
        self._in_hand = False
        self._closed = False
        self._lock = threading.Lock()
        # Three kinds of threads wait, each for something else: waking all of them for each part would cost latency.
        self._work = threading.Condition(self._lock)
        self._wish = threading.Condition(self._lock)
        self._expiry = threading.Condition(self._lock)
        self._watched_ns: int | None = None

    def __len__(self) -> int:
        with self._lock:
            return len(self._jobs)

    @property
    def idle(self) -> bool:
        """No job waits and none is in hand."""
        with self._lock:
            return not self._jobs and not self._in_hand

    # -- who brings ----------------------------------------------------------------------------------------------------

    def offer(self, job: Job) -> Offer:
        """Let ``job`` wait, if the policy has room for it."""
        with self._lock:
            if self._closed:
                return Offer(False)
            displaced = None
            if self.policy == "refuse" and (self._jobs or self._in_hand):
                return Offer(False)
            if len(self._jobs) >= self._room:
                displaced = self._to_displace(job)
                if displaced is None:
                    return Offer(False)
                self._jobs.remove(displaced)
            self._jobs.append(job)
            self._changed(job)
            return Offer(True, displaced)

    def give_frame(self, frame: Frame, fill: Callable[[Job, Frame], None]) -> Job | None:
        """Give ``frame`` to the oldest job that waits for one and was accepted before it was captured.

        ``fill`` writes it into the job. Returns the job, None when nobody waits for this frame.
        """
        with self._lock:
            for job in self._jobs:
                if not job.ready and job.since_ns <= frame.captured_ns:
                    fill(job, frame)
                    self._changed(job)
                    return job
            return None

    def fail_waiting(self, fault: Fault, *, only_first: bool = False) -> int:
        """Jobs without a frame will get none: mark them with ``fault``, so that they get their result in turn."""
        with self._lock:
            waiting = [job for job in self._jobs if not job.ready]
            for job in waiting[: 1 if only_first else None]:
                job.fault = fault
                self._changed(job)
            return len(waiting[: 1 if only_first else None])

    def wait_for_use(self, timeout_s: float, *, by_itself: bool) -> bool:
        """Wait until a frame would be of use: a job needs one, or (``by_itself``) nobody waits and none is in hand."""

        def of_use() -> bool:
            if any(not job.ready for job in self._jobs):
                return True
            return by_itself and not self._jobs and not self._in_hand

        with self._lock:
            return self._wish.wait_for(lambda: self._closed or of_use(), timeout_s) and not self._closed

    # -- who works -----------------------------------------------------------------------------------------------------

    def take(self, timeout_s: float) -> Job | None:
        """The oldest job, once it has its frame or its fault; it is in hand until `done`. None after the time."""
        with self._lock:
            self._work.wait_for(lambda: self._closed or any(job.ready for job in self._jobs), timeout_s)
            for job in self._jobs:
                if job.ready:
                    self._jobs.remove(job)
                    self._in_hand = True
                    return job
            return None

    def done(self) -> None:
        """The job in hand has its result."""
        with self._lock:
            self._in_hand = False
            self._wish.notify_all()

    # -- who watches the time ------------------------------------------------------------------------------------------

    def wait_for_expired(self, timeout_s: float) -> list[tuple[Job, Fault]]:
        """Wait until jobs need not wait any longer, and take them out; an empty list after the time."""
        with self._lock:
            expiries = [e for job in self._jobs if (e := job.expiry_ns()) is not None]
            self._watched_ns = min(expiries, default=None)
            if self._watched_ns is not None:
                timeout_s = min(timeout_s, max(0.0, (self._watched_ns - self._clock_ns()) / 1e9))
            if timeout_s > 0 and not self._closed:
                self._expiry.wait(timeout_s)
            now_ns = self._clock_ns()
            over = [(job, fault) for job in self._jobs if (fault := job.expired(now_ns)) is not None]
            for job, _ in over:
                self._jobs.remove(job)
            if over:
                self._wish.notify_all()
            return over

    def close(self) -> list[Job]:
        """Accept nothing any more, wake everybody, and hand out the jobs that still waited."""
        with self._lock:
            self._closed = True
            rest = list(self._jobs)
            self._jobs.clear()
            for condition in (self._work, self._wish, self._expiry):
                condition.notify_all()
            return rest

    # -- inside --------------------------------------------------------------------------------------------------------

    def _to_displace(self, job: Job) -> Job | None:
        by_itself = [waiting for waiting in self._jobs if not waiting.asked_for]
        if by_itself and (job.asked_for or self.policy == "latest"):
            return by_itself[0]
        if self.policy == "latest" and job.asked_for:
            return self._jobs[0]
        return None

    def _changed(self, job: Job) -> None:
        if job.ready:
            self._work.notify()
        else:
            self._wish.notify_all()  # a file or a generated part is read when somebody wants it
        expiry_ns = job.expiry_ns()
        if expiry_ns is not None and (self._watched_ns is None or expiry_ns < self._watched_ns):
            self._expiry.notify()
