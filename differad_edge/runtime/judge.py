"""From a job to its answer: asks the engine within the time that is left, or says why nobody was asked."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from differad_edge.errors import CorruptReferenceError, DifferadError, ImageError
from differad_edge.images import Image
from differad_edge.results import InspectionResult, Reason, Timings, Verdict
from differad_edge.runtime.job import Fault, Job
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.serving import Generation, Serving

__all__ = ["PartJudge", "PartResult"]

_log = logging.getLogger(__name__)

_RETURNS_EARLY_NS = 10_000_000  # an inspector answers a little before the deadline, so that the result is out on time

PartResult = tuple[InspectionResult, Generation | None]
"""A result, and the generation that gave it or would have."""


def _ms(duration_ns: int) -> float:
    """A device's stamps may be a little off; a duration is never negative."""
    return max(0.0, duration_ns / 1e6)


class PartJudge:
    """Judges parts with the generation in use. What goes wrong is in the result; nothing raises.

    ``stuck_after_ms``: how long an engine may work on a part that has no deadline.
    """

    def __init__(self, serving: Serving, outlet: Outlet, *, stuck_after_ms: float) -> None:
        self._serving = serving
        self._outlet = outlet
        self._stuck_after_ms = stuck_after_ms

    def judge(self, job: Job) -> PartResult:
        """The result of a job that has its frame or its fault."""
        began_ns = time.monotonic_ns()
        fault = job.fault or job.expired(began_ns)
        generation = self._serving.current
        if fault is None and generation is None:
            fault = Fault(Reason.ENGINE_FAILURE, "no engine has passed its smoke pairs", Verdict.ERROR)
        if fault is not None or generation is None or job.frame is None:
            return self.unanswered(job, fault or Fault(Reason.NO_FRAME, "the part has no frame"))
        remaining_ms = self._stuck_after_ms
        if job.deadline_ns is not None:
            remaining_ms = min(remaining_ms, (job.deadline_ns - began_ns) / 1e6)
        result = self._compare(job, job.frame.image, generation, remaining_ms)
        stages = {"queue": _ms(began_ns - job.since_ns), **result.timings.stages}
        stages["since_capture"] = _ms(time.monotonic_ns() - job.frame.captured_ns)
        return replace(result, timings=Timings(stages, result.timings.total_ms)), generation

    def unanswered(self, job: Job, fault: Fault) -> PartResult:
        """The result of a job that no engine is asked about."""
        generation = self._serving.current
        waited_ms = _ms(time.monotonic_ns() - job.since_ns)
        shape = (0, 0) if job.frame is None else job.frame.image.shape
        used = None if generation is None else generation.products.get(job.product)
        result = InspectionResult(
            verdict=fault.verdict,
            reason=fault.reason.value,
            score=0.0,
            threshold=None,
            findings=(),
            timings=Timings({"queue": waited_ms}, waited_ms),
            product=job.product,
            reference_id=None if used is None else used.reference_id,
            reference_sha256=None if used is None else used.reference_sha256,
            engine="" if generation is None else generation.engine.name,
            image_size=(shape[1], shape[0]),
            detail=fault.detail,
        )
        return result, generation

    def _compare(self, job: Job, image: Image, generation: Generation, budget_ms: float) -> InspectionResult:
        sha256 = generation.engine.fingerprint

        def late(result: InspectionResult) -> None:
            self._outlet.late(job, result, sha256)

        try:
            result = generation.inspector.inspect(image, job.product, budget_ms, on_late=late)
            if result.reason != Reason.DEADLINE.value or job.overdue(time.monotonic_ns() + _RETURNS_EARLY_NS):
                return result
            detail = f"the engine has worked on this part for over {self._stuck_after_ms:g} ms"
            fault = Fault(Reason.ENGINE_FAILURE, detail, Verdict.ERROR)
        except ImageError as error:
            fault = Fault(Reason.BAD_FRAME, f"{error.code}: {error}")
        except CorruptReferenceError as error:
            fault = Fault(Reason.UNVERIFIED_REFERENCE, f"{error.code}: {error}", Verdict.ERROR)
        except DifferadError as error:
            fault = Fault(Reason.ENGINE_FAILURE, f"{error.code}: {error}", Verdict.ERROR)
        except Exception as error:  # whatever an engine's plugin does, the part gets its one result
            _log.exception("station %s: engine %s", job.station, generation.engine.name)
            fault = Fault(Reason.ENGINE_FAILURE, f"{type(error).__name__}: {error}", Verdict.ERROR)
        return self.unanswered(job, fault)[0]
