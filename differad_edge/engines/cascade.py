"""The engine "cascade": the embedded engine decides the clear cases, a language model is asked for the doubtful ones.

And for words: a clear NG is put into words by the language model where the deadline leaves time for that.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.base import Candidate, Evidence, Learning, Prepared, ReferenceView
from differad_edge.engines.grounded import GroundedEngine
from differad_edge.engines.lite import LiteEngine, LitePrepared
from differad_edge.engines.vlm.student import StudentEngine
from differad_edge.errors import DeadlineExceeded, EngineError
from differad_edge.geometry import iou

if TYPE_CHECKING:
    from collections.abc import Callable

    from differad_edge.config import CascadeConfig
    from differad_edge.deadline import Deadline
    from differad_edge.images import Image
    from differad_edge.results import Box

__all__ = ["CascadeEngine", "CascadePrepared"]

_DECIDED = 0.01  # of the scores at either end: for what the embedded engine decides
_SAME_PLACE = 0.1  # IoU from which the model's words are about the place that the embedded engine found
_SPARE = 1.2  # of the slowest question so far, kept free before a clear NG is put into words
_SPARE_MS = 5.0
_FORGET = 0.99  # a slow question is forgotten in time: it may have been the first


@dataclass(frozen=True)
class CascadePrepared:
    """What either engine keeps of a product."""

    quick: LitePrepared
    thorough: Prepared

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Both, told apart by their names."""
        parts = {"quick": self.quick, "thorough": self.thorough}
        return {f"{name}.{key}": array for name, part in parts.items() for key, array in part.to_arrays().items()}


class CascadeEngine:
    """``quick``: looks at every part; ``thorough``: is asked where the score of ``quick`` lies within ``limits``, or
    where ``quick`` cannot tell. Its answer then stands, whatever ``quick`` saw.

    Scores of the two are not of one scale: those of ``thorough`` lie between those of parts that ``quick`` decides, so
    that a threshold fitted to doubtful parts does not pass a clear NG.

    ``describes``: a clear NG is put into words too. A student gets the box that ``quick`` found as a draft.
    """

    name = "cascade"
    default_threshold = 0.5

    def __init__(
        self,
        quick: LiteEngine,
        thorough: StudentEngine | GroundedEngine,
        limits: CascadeConfig,
        *,
        describes: bool,
    ) -> None:
        self._quick, self._thorough, self._limits = quick, thorough, limits
        self._describes = describes
        self._drafts = limits.draft and isinstance(thorough, StudentEngine)
        self._asked_ms: float | None = None  # the slowest question so far
        settings = {
            "engine": self.name,
            "parts": [quick.fingerprint, thorough.fingerprint],
            "doubtful": [limits.ok_below, limits.ng_from],
        }
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def prepare(self, references: Sequence[ReferenceView]) -> CascadePrepared:
        """Both engines prepare. Raises what they raise."""
        return CascadePrepared(self._quick.prepare(references), self._thorough.prepare(references))

    def restore(self, arrays: dict[str, NDArray[Any]]) -> CascadePrepared:
        """Undo ``CascadePrepared.to_arrays``. Raises EngineError for anything else."""

        def those_of(name: str) -> dict[str, NDArray[Any]]:
            start = f"{name}."
            return {key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)}

        return CascadePrepared(self._quick.restore(those_of("quick")), self._thorough.restore(those_of("thorough")))

    def learning(self, prepared: CascadePrepared) -> Learning:
        """What the embedded engine found out, and the memory of both."""
        found = self._quick.learning(prepared.quick)
        asked = self._thorough.learning(prepared.thorough)  # type: ignore[arg-type]  # given its own
        return replace(found, memory_bytes=found.memory_bytes + asked.memory_bytes)

    def needs_alignment(self, prepared: CascadePrepared, *, misfit: bool) -> bool:
        """As the embedded engine does."""
        return self._quick.needs_alignment(prepared.quick, misfit=misfit)

    def compare(
        self,
        prepared: CascadePrepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        """Compare one part; see :class:`differad_edge.engines.base.Engine`."""
        seen = self._quick.compare(prepared.quick, target, valid=valid, deadline=deadline)

        def ask(**draft: Box) -> Evidence:
            return self._thorough.compare(prepared.thorough, target, valid=valid, deadline=deadline, **draft)  # type: ignore[arg-type]

        return self._decided(seen, ask, deadline)

    def compare_as_it_lies(
        self, prepared: CascadePrepared, target: Image, *, deadline: Deadline | None = None
    ) -> Evidence:
        """Compare one part that was not aligned; see :class:`differad_edge.engines.base.ComparesAsItLies`."""
        seen = self._quick.compare_as_it_lies(prepared.quick, target, deadline=deadline)

        def ask(**draft: Box) -> Evidence:
            return self._thorough.compare_as_it_lies(prepared.thorough, target, deadline=deadline, **draft)  # type: ignore[arg-type]

        return self._decided(seen, ask, deadline)

    def _decided(self, seen: Evidence, ask: Callable[..., Evidence], deadline: Deadline | None) -> Evidence:
        limits = self._limits
        draft = {"draft": seen.candidates[0].box} if self._drafts and seen.candidates else {}
        complete = seen.reason is None or (seen.only_below_threshold and seen.score >= limits.ng_from)
        # Not "in between": a score that is no number is in doubt.
        if not complete or not (seen.score < limits.ok_below or seen.score >= limits.ng_from):
            said = self._timed(ask, draft)
            return replace(_scored(said, _between), heatmap=seen.heatmap)
        if seen.score < limits.ok_below:
            return _scored(seen, lambda score: score * _DECIDED)
        clear = _scored(seen, lambda score: 1 - (1 - score) * _DECIDED if score >= limits.ng_from else _between(score))
        if not self._describes or not seen.candidates or not self._leaves_time(deadline):
            return clear
        try:
            said = self._timed(ask, draft)
        except (EngineError, DeadlineExceeded):
            return clear  # the verdict stands without words
        return _with_words(clear, said)

    def _leaves_time(self, deadline: Deadline | None) -> bool:
        if deadline is None:
            return True
        if self._asked_ms is None:
            return False  # an NG in time is worth more than its words
        if deadline.remaining_ms > _SPARE * self._asked_ms + _SPARE_MS:
            return True
        self._asked_ms *= _FORGET
        return False

    def _timed(self, ask: Callable[..., Evidence], draft: dict[str, Box]) -> Evidence:
        began = time.perf_counter()
        try:
            return ask(**draft)
        finally:
            took_ms = (time.perf_counter() - began) * 1e3
            self._asked_ms = max(took_ms, (self._asked_ms or 0.0) * _FORGET)


def _between(score: float) -> float:
    return _DECIDED + (1 - 2 * _DECIDED) * score


def _scored(evidence: Evidence, scale: Callable[[float], float]) -> Evidence:
    candidates = tuple(replace(one, score=scale(one.score)) for one in evidence.candidates)
    return replace(evidence, score=scale(evidence.score), candidates=candidates)


def _with_words(seen: Evidence, said: Evidence) -> Evidence:
    """``seen`` with the words that were said about the same place."""
    words = next((one for one in said.candidates if one.description), None)
    if words is None:
        return seen

    def likeness(index: int) -> float:
        return iou(seen.candidates[index].box, words.box)

    best = max(range(len(seen.candidates)), key=likeness)
    if likeness(best) < _SAME_PLACE:
        return seen
    candidates: list[Candidate] = list(seen.candidates)
    candidates[best] = replace(candidates[best], description=words.description)
    return replace(seen, candidates=tuple(candidates))
