"""Only complete, finite evidence below the threshold is OK."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.decide import decide
from differad_edge.engines.base import Candidate, Evidence
from differad_edge.results import Box, Verdict

SCORES = st.floats(0, 1)
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


def candidate(score: float) -> Candidate:
    return Candidate(Box(0, 0, 4, 4), score)


def evidence(scores: list[float], reason: str | None = None) -> Evidence:
    return Evidence(max(scores, default=0.0), tuple(candidate(s) for s in scores), reason=reason)


@given(st.lists(SCORES, max_size=8), SCORES)
def test_verdict_is_ng_exactly_when_a_candidate_reaches_the_threshold(scores: list[float], threshold: float) -> None:
    decision = decide(evidence(scores), threshold)
    expected = [s for s in sorted(scores, reverse=True) if s >= threshold]
    if expected:
        assert decision.verdict is Verdict.NG
        assert [c.score for c in decision.candidates] == expected
    elif threshold > 0:
        assert decision.verdict is Verdict.OK
        assert decision.candidates == ()


@given(st.lists(SCORES, max_size=4), SCORES, st.floats(0, 1))
def test_raising_the_threshold_never_turns_ok_into_ng(scores: list[float], low: float, more: float) -> None:
    high = min(1.0, low + more)
    if decide(evidence(scores), low).verdict is Verdict.OK:
        assert decide(evidence(scores), high).verdict is Verdict.OK


@given(st.lists(SCORES, max_size=4), SCORES)
def test_incomplete_evidence_is_never_ok_or_ng(scores: list[float], threshold: float) -> None:
    decision = decide(evidence(scores, reason="unparsable-answer"), threshold)
    assert decision.verdict is Verdict.UNDECIDED
    assert decision.reason == "unparsable-answer"


@given(ANY_FLOAT, st.lists(ANY_FLOAT, max_size=3), st.floats(0, 1))
def test_a_score_that_is_no_score_never_reads_as_ok(score: float, others: list[float], threshold: float) -> None:
    decision = decide(Evidence(score, tuple(candidate(s) for s in others)), threshold)
    if any(math.isnan(s) or not 0 <= s <= 1 for s in (score, *others)):
        assert decision.verdict is Verdict.ERROR
        assert decision.reason == "non-finite-score"
        assert "allowed" in (decision.detail or "")
    assert math.isfinite(decision.score)


def test_a_high_score_without_a_place_is_an_error_not_ok() -> None:
    decision = decide(Evidence(0.9), 0.5)
    assert decision.verdict is Verdict.ERROR
    assert decision.reason == "engine-failure"


@pytest.mark.parametrize("limit", [1, 3])
def test_findings_are_limited_to_the_strongest(limit: int) -> None:
    decision = decide(evidence([0.6, 0.9, 0.7, 0.8]), 0.5, max_findings=limit)
    assert [c.score for c in decision.candidates] == [0.9, 0.8, 0.7][:limit]


@given(SCORES, SCORES)
def test_a_reason_that_holds_below_the_threshold_leads_to_ng_or_undecided(score: float, threshold: float) -> None:
    doubted = replace(evidence([score], reason="one-reference"), only_below_threshold=True)
    verdict = decide(doubted, threshold).verdict
    assert verdict is (Verdict.NG if score >= threshold else Verdict.UNDECIDED)
