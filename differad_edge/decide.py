"""From evidence to a verdict. Only complete, finite evidence below the threshold is OK."""

from __future__ import annotations

import math
from dataclasses import dataclass

from differad_edge.engines.base import Candidate, Evidence
from differad_edge.results import Reason, Verdict

__all__ = ["Decision", "decide"]


@dataclass(frozen=True)
class Decision:
    """``candidates``: those that made the part NG, strongest first; ``score``: 0 to 1, of the image."""

    verdict: Verdict
    reason: str | None
    detail: str | None
    score: float
    candidates: tuple[Candidate, ...]


def decide(evidence: Evidence, threshold: float, *, max_findings: int = 32) -> Decision:
    """Apply ``threshold`` in [0, 1]: a candidate that reaches it is a finding, and one finding makes the part NG.

    Evidence that is incomplete is UNDECIDED with its own reason, also when it already shows a defect, unless the engine
    says otherwise: what was seen is kept in ``score``, but a verdict needs the whole part. A score that is not a number
    in [0, 1], or one that reaches the threshold without any place to point at, is ERROR: the engine contradicts itself.
    """
    scores = [evidence.score, *(candidate.score for candidate in evidence.candidates)]
    if not all(math.isfinite(score) and 0.0 <= score <= 1.0 for score in scores):
        wrong = next(score for score in scores if not (math.isfinite(score) and 0.0 <= score <= 1.0))
        detail = f"the engine gave the score {wrong!r}, allowed: a finite number from 0 to 1"
        return Decision(Verdict.ERROR, Reason.NONFINITE_SCORE.value, detail, 0.0, ())
    strongest = max(scores)
    if evidence.reason is not None and not (evidence.only_below_threshold and strongest >= threshold):
        detail = evidence.detail or "the comparison is not complete"
        return Decision(Verdict.UNDECIDED, evidence.reason, detail, strongest, ())
    found = sorted((c for c in evidence.candidates if c.score >= threshold), key=lambda c: -c.score)
    if found:
        return Decision(Verdict.NG, None, None, strongest, tuple(found[:max_findings]))
    if strongest >= threshold:
        detail = f"the engine gave the score {strongest:.3f} at a threshold of {threshold:.3f} and no box"
        return Decision(Verdict.ERROR, Reason.ENGINE_FAILURE.value, detail, strongest, ())
    return Decision(Verdict.OK, None, None, strongest, ())
