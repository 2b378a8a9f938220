"""The path of one part: frame -> check -> align -> compare -> decide. No state, no store, no threads."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from differad_edge.config import InspectorConfig
from differad_edge.deadline import Deadline
from differad_edge.decide import Decision, decide
from differad_edge.describe import describe
from differad_edge.engines.base import Candidate, ComparesAsItLies, Engine, Evidence, needs_alignment
from differad_edge.errors import DeadlineExceeded, DifferadError
from differad_edge.geometry import clip_box
from differad_edge.image_quality import frame_fault, measure_quality
from differad_edge.images import Image
from differad_edge.ready import Ready, cut_matrix
from differad_edge.references.local_align import Displacement, to_target, warp_to_reference
from differad_edge.results import Alignment, Finding, InspectionResult, Reason, Timings, Verdict

__all__ = ["Answer", "Stopwatch", "inspect_frame", "unanswered"]

Answer = tuple[InspectionResult, tuple[Finding, ...]]
"""The result, and all candidates whatever the threshold; boxes in pixels of the target as given."""

_MOST_UNSEEN = 0.25  # of the compared area; the largest allowed shift hides less, a crop may hide half of the part
_WORTH_A_NOTE = 0.01
_MOST_STRETCHED = 1.05  # one side against the other: a camera set to another aspect shows another part


@dataclass
class Stopwatch:
    """Milliseconds of each stage on a monotonic clock."""

    began_s: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + (time.perf_counter() - began) * 1e3

    def read(self) -> Timings:
        # A copy: an abandoned comparison may still be writing when its caller reads.
        return Timings(dict(self.stages), (time.perf_counter() - self.began_s) * 1e3)


@dataclass(frozen=True)
class _Part:
    """One target in the reference's frame. ``image``: cut like the reference; ``valid``: HxW bool."""

    image: Image
    valid: NDArray[np.bool_] | None
    matrix: NDArray[np.float64]
    displacement: Displacement | None

    @property
    def unseen_share(self) -> float:
        """0 to 1: of the compared area, what the target does not show."""
        return 0.0 if self.valid is None else 1.0 - np.count_nonzero(self.valid) / self.valid.size

    @property
    def notes(self) -> tuple[str, ...]:
        if self.unseen_share < _WORTH_A_NOTE:
            return ()
        return (f"{self.unseen_share:.1%} of the reference lies outside the frame and was not compared",)


def unanswered(
    verdict: Verdict,
    reason: str,
    detail: str,
    *,
    ready: Ready | None,
    engine: Engine,
    size: tuple[int, int],
    watch: Stopwatch,
    product: str | None = None,
    alignment: Alignment | None = None,
) -> InspectionResult:
    """A result that is neither OK nor NG."""
    return InspectionResult(
        verdict=verdict,
        reason=reason,
        score=0.0,
        threshold=None,
        findings=(),
        timings=watch.read(),
        product=ready.product if ready is not None else product,
        reference_id=ready.reference_id if ready is not None else None,
        reference_sha256=ready.reference_sha256 if ready is not None else None,
        engine=engine.name,
        image_size=size,
        alignment=alignment,
        detail=detail,
    )


def inspect_frame(
    frame: Image, ready: Ready, engine: Engine, config: InspectorConfig, deadline: Deadline | None, watch: Stopwatch
) -> Answer:
    """Compare ``frame`` (HxWx3 uint8 BGR) with what is ready and decide.

    Raises DeadlineExceeded; everything else that goes wrong with this part is in the result.
    """
    size = (frame.shape[1], frame.shape[0])

    def cannot_tell(reason: Reason, detail: str, alignment: Alignment | None = None) -> Answer:
        refused = unanswered(
            Verdict.UNDECIDED,
            reason.value,
            detail,
            ready=ready,
            engine=engine,
            size=size,
            watch=watch,
            alignment=alignment,
        )
        return refused, ()

    alignment = None
    try:
        with watch.stage("check"):
            fault = frame_fault(measure_quality(frame), ready.quality)
        if fault is not None:
            return cannot_tell(Reason.BAD_FRAME, fault)
        part, misfit = None, None
        if needs_alignment(engine, ready.prepared, misfit=False):
            part, alignment, misfit = _aligned(frame, ready, config, watch)
            if misfit is not None and (
                _out_of_view(alignment, config, size) or needs_alignment(engine, ready.prepared, misfit=True)
            ):
                return cannot_tell(Reason.MISALIGNED, misfit, alignment)
        if deadline is not None:
            deadline.check()
        with watch.stage("compare"):
            if part is not None:
                evidence = engine.compare(ready.prepared, part.image, valid=part.valid, deadline=deadline)
            else:
                part = _as_it_lies(frame, ready)
                if part is None:
                    wanted = "x".join(map(str, ready.alignment.size))
                    detail = f"the frame has {size[0]}x{size[1]} px, allowed with a region of interest: {wanted} px"
                    return cannot_tell(Reason.MISALIGNED, misfit or detail, alignment)
                evidence = cast(ComparesAsItLies, engine).compare_as_it_lies(
                    ready.prepared, part.image, deadline=deadline
                )
                if misfit is not None and alignment is not None:
                    # A part that was turned farther than allowed may be NG, never OK; one that resembles nothing may
                    # be of a product whose parts never do.
                    turned = alignment.residual <= config.alignment.max_residual
                    judged = evidence.score >= _threshold(config, ready, engine)
                    if evidence.reason == Reason.MISALIGNED or (turned and not judged):
                        return cannot_tell(Reason.MISALIGNED, misfit, alignment)
                alignment = None
        return _answer(evidence, part, ready, engine, config, size, alignment, watch)
    except DeadlineExceeded:
        raise
    except Exception as error:  # whatever goes wrong, also in what an engine gives back: this part gets its one result
        code = error.code if isinstance(error, DifferadError) else type(error).__name__
        failed = unanswered(
            Verdict.ERROR,
            Reason.ENGINE_FAILURE.value,
            f"{code}: {error}",
            ready=ready,
            engine=engine,
            size=size,
            watch=watch,
            alignment=alignment,
        )
        return failed, ()


def _answer(
    evidence: Evidence,
    part: _Part,
    ready: Ready,
    engine: Engine,
    config: InspectorConfig,
    size: tuple[int, int],
    alignment: Alignment | None,
    watch: Stopwatch,
) -> Answer:
    with watch.stage("decide"):
        threshold = _threshold(config, ready, engine)
        decision = decide(evidence, threshold, max_findings=config.thresholds.max_findings)
        findings = tuple(
            finding
            for candidate in decision.candidates
            if (finding := _finding(candidate, part, ready, size, described=True)) is not None
        )
        if decision.verdict is Verdict.NG and not findings:
            # Every place lies where the target has no pixel; such evidence says nothing about the part.
            decision = Decision(
                Verdict.UNDECIDED, Reason.MISALIGNED.value, "what differs lies outside the frame", decision.score, ()
            )
    candidates = tuple(
        finding
        for candidate in evidence.candidates
        if math.isfinite(candidate.score)
        and 0 <= candidate.score <= 1
        and (finding := _finding(candidate, part, ready, size, described=False)) is not None
    )
    result = InspectionResult(
        verdict=decision.verdict,
        reason=decision.reason,
        score=decision.score,
        threshold=threshold,
        findings=findings,
        timings=watch.read(),
        product=ready.product,
        reference_id=ready.reference_id,
        reference_sha256=ready.reference_sha256,
        engine=engine.name,
        image_size=size,
        alignment=alignment,
        notes=part.notes,
        detail=decision.detail,
    )
    return result, candidates


def _threshold(config: InspectorConfig, ready: Ready, engine: Engine) -> float:
    if config.thresholds.score is not None:
        return config.thresholds.score
    return ready.threshold if ready.threshold is not None else engine.default_threshold


def _misfit(
    found: Alignment, config: InspectorConfig, reference_size: tuple[int, int], size: tuple[int, int]
) -> str | None:
    """Why the part lies too far from its place to be compared, or None."""
    limits = config.alignment
    reach = limits.shift_limit_px(*size)
    shift = math.hypot(*found.shift_px)
    low, high = limits.scale_range
    if shift > reach:
        return f"shifted by {shift:.1f} px, allowed: at most {reach:.1f} px"
    if abs(found.angle_deg) > limits.max_angle_deg:
        return f"turned by {found.angle_deg:.1f} degrees, allowed: at most {limits.max_angle_deg:g}"
    if found.residual > limits.max_residual:
        return (
            f"does not look like its reference: residual {found.residual:.2f} after alignment, "
            f"allowed: at most {limits.max_residual:.2f}"
        )
    along, across = np.linalg.svd(np.reshape(found.matrix, (2, 3))[:, :2], compute_uv=False)
    if not along <= _MOST_STRETCHED * across:
        return f"stretched: one side by {along / across:.2f} against the other, allowed: at most {_MOST_STRETCHED:g}"
    # A target of another size may be a crop, or the same view with more or fewer pixels.
    pixels = math.sqrt(size[0] * size[1] / (reference_size[0] * reference_size[1]))
    if not (low <= found.scale <= high or low <= found.scale / pixels <= high):
        return f"scaled by {found.scale:.3f}, allowed: {low:g} to {high:g}"
    return None


def _out_of_view(found: Alignment, config: InspectorConfig, size: tuple[int, int]) -> bool:
    """Whether the part resembles its reference and was shifted too far: what is seen in its place is no part of it."""
    reach = config.alignment.shift_limit_px(*size)
    return found.residual <= config.alignment.max_residual and math.hypot(*found.shift_px) > reach


def _aligned(
    frame: Image, ready: Ready, config: InspectorConfig, watch: Stopwatch
) -> tuple[_Part | None, Alignment, str | None]:
    """The part in the reference's frame and how it lay, or no part and why it cannot be brought there."""
    with watch.stage("align"):
        alignment = ready.alignment.estimate(frame, config.alignment)
        misfit = _misfit(alignment, config, ready.alignment.size, (frame.shape[1], frame.shape[0]))
    if misfit is not None:
        return None, alignment, misfit
    with watch.stage("warp"):
        part = _bring_to_reference(frame, ready, alignment, config)
    if part.unseen_share > _MOST_UNSEEN:
        unseen = f"{part.unseen_share:.0%} of the reference lies outside the frame"
        return None, alignment, f"{unseen}, allowed: at most {_MOST_UNSEEN:.0%}"
    return part, alignment, None


def _as_it_lies(frame: Image, ready: Ready) -> _Part | None:
    """The frame cut to the region of interest, or None where that region means nothing: in a frame of another size."""
    left, top = ready.origin_px
    height, width = ready.image.shape[:2]
    whole = ready.alignment.size == (width, height)
    if not whole and ready.alignment.size != (frame.shape[1], frame.shape[0]):
        return None
    image = frame if whole else np.ascontiguousarray(frame[top : top + height, left : left + width])
    return _Part(image, None, np.array([[1.0, 0.0, left], [0.0, 1.0, top]]), None)


def _bring_to_reference(frame: Image, ready: Ready, alignment: Alignment, config: InspectorConfig) -> _Part:
    matrix = cut_matrix(alignment.matrix, ready.origin_px)
    height, width = ready.image.shape[:2]
    displacement = None
    if ready.local is not None:
        displacement = ready.local.refine(frame, limit_px=config.alignment.local_shift_px, matrix=matrix)
    image, valid = warp_to_reference(frame, matrix, displacement, (width, height))
    return _Part(image, valid, matrix, displacement)


def _finding(
    candidate: Candidate, part: _Part, ready: Ready, size: tuple[int, int], *, described: bool
) -> Finding | None:
    """The candidate in pixels of the target as given, or None where reference or target have no pixel."""
    if clip_box(candidate.box, part.image.shape[1], part.image.shape[0]) is None:
        return None
    box = clip_box(to_target(candidate.box, part.matrix, part.displacement), *size)
    if box is None:
        return None
    text = candidate.description
    if described and text is None:
        text = describe(ready.image, part.image, candidate.box, candidate.mask)
    return Finding(box, candidate.score, text)
