"""The thread that inspects: one job after the other, one outcome for each, in order."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from differad_edge import Reason, Verdict
from differad_edge.images import Image
from differad_edge_ros.judges import Judge, Judged, judged_failure
from differad_edge_ros.outcome import Outcome, failed
from differad_edge_ros.pictures import picture_of
from differad_edge_ros.waiting import Job, Waiting

__all__ = ["Publish", "Worker"]

Publish = Callable[[Outcome, "Job", "Image | None"], None]
"""Gets every outcome in order, its job, and the decoded image where there is one (HxWx3 uint8 BGR)."""

STOP_LIMIT_S = 10.0
_log = logging.getLogger(__name__)


class Worker:
    """Takes jobs out of ``waiting`` until that is closed, and gives each its outcome. ``numbers``: for the outcomes."""

    def __init__(
        self, waiting: Waiting, judge: Judge, publish: Publish, *, session: str, numbers: itertools.count[int]
    ) -> None:
        self._waiting = waiting
        self._judge = judge
        self._publish = publish
        self._session = session
        self._numbers = numbers
        self._giving = threading.Lock()
        self._in_hand: tuple[Job, float] | None = None
        self._thread = threading.Thread(target=self._run, name="differad-ros-worker", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """How long the job in hand has been worked on; 0.0 without one."""
        in_hand = self._in_hand
        return 0.0 if in_hand is None else time.monotonic() - in_hand[1]

    def stop(self, limit_s: float = STOP_LIMIT_S) -> bool:
        """Accept nothing any more; what waits gets UNDECIDED "stopped", the job in hand its result within the limit.

        False: the judge hangs. Its job and those behind it have been answered all the same, and what it says later
        belongs to nobody.
        """
        self._waiting.close()
        self._thread.join(limit_s)
        if not self._thread.is_alive():
            return True
        in_hand = self._in_hand
        if in_hand is not None:
            detail = f"the inspection did not end within {limit_s:g} s after the node was stopped"
            self._give(in_hand[0], None, self._failed(in_hand[0], Verdict.ERROR, Reason.ENGINE_FAILURE.value, detail))
        self._drain()
        return False

    # -- inside -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._waiting.take()) is not None:
            if self._waiting.closed:
                self._refuse(job)
                continue
            self._in_hand = (job, time.monotonic())
            try:
                self._work(job)
            except Exception:  # the thread must live: without it no image would get a result any more
                _log.exception("a result could not be given")
            finally:
                self._in_hand = None

    def _drain(self) -> None:
        while self._waiting and (job := self._waiting.take()) is not None:
            self._refuse(job)

    def _refuse(self, job: Job) -> None:
        detail = "the node was deactivated before this part's turn came"
        self._give(job, None, self._failed(job, Verdict.UNDECIDED, Reason.STOPPED.value, detail))

    def _work(self, job: Job) -> None:
        begun_ns = time.monotonic_ns()
        image: Image | None = None
        seen_ns = begun_ns
        try:
            if job.age_ms is not None and job.age_ms > job.max_age_ms > 0:
                detail = f"max_age_ms: the image was {job.age_ms:.0f} ms old on arrival, allowed: {job.max_age_ms:g} ms"
                judged = self._failed(job, Verdict.UNDECIDED, "stale", detail)
            else:
                image = picture_of(job.message)
                seen_ns = time.monotonic_ns()
                judged = self._judged(job, image)
        except Exception as error:  # a message may hold anything, and whatever goes wrong is this part's result
            judged = self._failed(job, *judged_failure(error, with_deadline=job.deadline_ms > 0), image=image)
        done_ns = time.monotonic_ns()
        steps = {
            "queue": begun_ns - job.received_ns,
            "convert": seen_ns - begun_ns,
            "judge": done_ns - seen_ns,
            "total": done_ns - job.received_ns,
        }
        self._give(job, image, judged, {name: ns / 1e6 for name, ns in steps.items()})

    def _judged(self, job: Job, image: Image) -> Judged:
        left_ms = None
        if job.deadline_ms > 0:
            left_ms = job.deadline_ms - (time.monotonic_ns() - job.received_ns) / 1e6
            if left_ms <= 0:
                detail = f"deadline_ms: {job.deadline_ms:g} ms went by before this part's turn came"
                return self._failed(job, Verdict.UNDECIDED, Reason.DEADLINE.value, detail, image=image)
        judged = self._judge.inspect(image, job.product, left_ms)
        over = left_ms is not None and time.monotonic_ns() - job.received_ns > job.deadline_ms * 1e6
        if over and judged.result.is_ok:
            detail = f"deadline_ms: the answer came after {job.deadline_ms:g} ms"
            return self._failed(job, Verdict.UNDECIDED, Reason.DEADLINE.value, detail, image=image)
        return judged

    def _failed(
        self, job: Job, verdict: Verdict, reason: str, detail: str, image: NDArray[np.uint8] | None = None
    ) -> Judged:
        size = (0, 0) if image is None else (image.shape[1], image.shape[0])
        return Judged(failed(verdict, reason, detail, product=job.product, engine=self._judge.name, size=size))

    def _give(self, job: Job, image: Image | None, judged: Judged, node_ms: dict[str, float] | None = None) -> None:
        """Number and publish in one step: what is published is in order."""
        with self._giving:
            if not job.claim():
                return
            outcome = Outcome(
                sequence=next(self._numbers),
                session=self._session,
                trigger=job.trigger,
                stamp=job.stamp,
                frame_id=job.frame_id,
                result=judged.result,
                dropped=self._waiting.drops(),
                node_ms=node_ms or {"total": (time.monotonic_ns() - job.received_ns) / 1e6},
                server=judged.server,
            )
            try:
                self._publish(outcome, job, image)
            finally:
                if job.answer is not None:
                    job.answer(outcome)
