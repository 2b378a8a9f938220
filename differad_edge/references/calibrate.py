"""A threshold from N good parts, with a bound on false rejects that holds whatever the scores' distribution.

Split conformal prediction: when N good parts and the next one are exchangeable, the next one's score exceeds the k-th
smallest of the N with probability at most 1 - k / (N + 1). That bound is an average over calibrations; for this very
calibration the rate follows a beta distribution, of which the 95 % point is reported as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from differad_edge.errors import CalibrationError
from differad_edge.references.records import Calibration, good_parts_for

__all__ = ["SATURATED_SCORE", "SCORE_RESOLUTION", "fit_threshold"]

SCORE_RESOLUTION = 1e-6
"""How far above a good part's score the threshold lies: the same part scores this much differently on other threads."""

SATURATED_SCORE = 0.999
"""A score at or above this says "certainly bad"; a threshold above it would pass every bad part too."""

_CONFIDENCE = 0.95

# An outlier lies this many robust standard deviations above the median of the others, and at least this gap: scores of
# good parts are often nearly constant, where any spread is many deviations.
_OUTLIER_DEVIATIONS = 10.0
_OUTLIER_MIN_GAP = 0.3
_DEVIATION_PER_MAD = 1.4826


def fit_threshold(
    scores: Sequence[float],
    *,
    default_threshold: float,
    engine_fingerprint: str,
    false_reject_rate: float = 0.01,
    accept_outliers: bool = False,
) -> Calibration:
    """Return the calibration of N >= 1 good parts; a part is NG when its score reaches the threshold.

    scores: anomaly scores in [0, 1] of known-good parts, none of them a reference. default_threshold: the engine's own
    (0-1, exclusive); calibrating never goes below it, so good parts alone never turn everything NG. false_reject_rate:
    the wanted share of rejected good parts (0-1, exclusive). With fewer parts than it takes, the threshold lies above
    all of them and ``false_reject_bound`` says the 1/(N+1) that they allow. accept_outliers: take a score far above the
    others for a good part after all.

    Raises CalibrationError: no scores, a score that is not in [0, 1], a part that is probably not good, scores so high
    that no threshold below 1 passes good parts.
    """
    checked = _checked(scores)
    _check_open_interval("default_threshold", default_threshold)
    _check_open_interval("false_reject_rate", false_reject_rate)
    if not accept_outliers:
        _refuse_outlier(checked, default_threshold)
    n = len(checked)
    # The slack keeps a product such as 300 * 0.99 from being rounded up by one rank.
    rank = max(1, math.ceil((n + 1) * (1.0 - false_reject_rate) - 1e-9))
    rank = min(rank, n)
    score = sorted(checked)[rank - 1]
    if score >= SATURATED_SCORE:
        raise CalibrationError(
            f"good parts score up to {score:.4f} (rank {rank} of {n}); no threshold below 1 passes them and finds a "
            "defect. Check that the reference shows the same product, pose and light, or set an ROI or an ignore mask"
        )
    return Calibration(
        threshold=max(float(default_threshold), score + SCORE_RESOLUTION),
        n=n,
        false_reject_bound=(n + 1 - rank) / (n + 1),
        confidence=f"With {_CONFIDENCE:.0%} confidence this one rejects at most {_rate_limit(n, rank):.1%} of them.",
        scores=tuple(checked),
        engine_fingerprint=engine_fingerprint,
    )


def _checked(scores: Sequence[float]) -> list[float]:
    if len(scores) == 0:
        needed = good_parts_for(0.01)
        raise CalibrationError(f"scores is empty; at least 1 good part is needed, {needed} for a 1 % bound")
    checked: list[float] = []
    for index, score in enumerate(scores):
        try:
            value = float(score)
        except (TypeError, ValueError) as exc:
            raise CalibrationError(f"scores[{index}] is {score!r}; a score is a number between 0 and 1") from exc
        if not 0.0 <= value <= 1.0:  # NaN included
            raise CalibrationError(f"scores[{index}] is {value!r}; a score is a number between 0 and 1")
        checked.append(value)
    return checked


def _check_open_interval(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise CalibrationError(f"{name} is {value!r}; it must lie between 0 and 1, both excluded")


def _refuse_outlier(scores: list[float], default_threshold: float) -> None:
    """Raise when the highest score stands apart from the others and would raise the threshold."""
    if len(scores) < 2:
        return
    index = max(range(len(scores)), key=scores.__getitem__)
    # Median and MAD of the others hold as long as most of the parts are good, however bad the rest is.
    others = scores[:index] + scores[index + 1 :]
    centre = median(others)
    deviation = _DEVIATION_PER_MAD * median(abs(score - centre) for score in others)
    limit = centre + max(_OUTLIER_MIN_GAP, _OUTLIER_DEVIATIONS * deviation)
    if scores[index] < default_threshold or scores[index] <= limit:
        return
    suspects = [i for i, score in enumerate(scores) if score > limit and score >= default_threshold]
    rest = [score for i, score in enumerate(scores) if i not in suspects]
    named = ", ".join(f"scores[{i}] = {scores[i]:.4f}" for i in suspects)
    raise CalibrationError(
        f"{named} {'stands' if len(suspects) == 1 else 'stand'} far above the other {len(rest)} good parts "
        f"({min(rest):.4f} to {max(rest):.4f}): probably not a good part. Look at it; leave it out, or pass "
        "accept_outliers=True if it is good"
    )


def _rate_limit(n: int, rank: int) -> float:
    """Return the false-reject rate that is not exceeded with 95 % confidence above the ``rank``-th of ``n`` scores."""
    # The rate is Beta(n - rank + 1, rank); its distribution function is a binomial tail, which needs no scipy.
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if _binomial_at_most(n - rank, n, middle) > 1.0 - _CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _binomial_at_most(count: int, n: int, rate: float) -> float:
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 1.0 if count >= n else 0.0
    total = 0.0
    for i in range(count + 1):
        log_choose = math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
        total += math.exp(log_choose + i * math.log(rate) + (n - i) * math.log1p(-rate))
    return min(total, 1.0)
