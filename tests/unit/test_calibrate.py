"""Thresholds from good parts: never below the default, never a promise that the number of parts does not carry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import beta

from differad_edge.errors import CalibrationError
from differad_edge.references.calibrate import SATURATED_SCORE, SCORE_RESOLUTION, _rate_limit, fit_threshold
from differad_edge.references.records import Calibration, good_parts_for

FINGERPRINT = "ab" * 32

good_scores = st.lists(st.floats(0.0, 0.99), min_size=1, max_size=60)
thresholds = st.floats(0.01, 0.99)
rates = st.floats(0.001, 0.9)


def fit(scores: list[float], default: float = 0.5, rate: float = 0.01, accept_outliers: bool = True) -> Calibration:
    return fit_threshold(
        scores,
        default_threshold=default,
        engine_fingerprint=FINGERPRINT,
        false_reject_rate=rate,
        accept_outliers=accept_outliers,
    )


def bad(scores: list[float], threshold: float) -> int:
    return sum(score >= threshold for score in scores)


@given(good_scores, thresholds, rates)
def test_never_below_the_default_and_the_bound_is_kept_on_its_own_parts(
    scores: list[float], default: float, rate: float
) -> None:
    result = fit(scores, default, rate)
    assert default <= result.threshold < 1.0
    assert bad(scores, result.threshold) <= result.false_reject_bound * (len(scores) + 1) - 1 + 1e-9
    assert result.scores == tuple(scores)
    assert result.n == len(scores)
    assert result.engine_fingerprint == FINGERPRINT


@given(good_scores, thresholds)
def test_with_few_parts_all_of_them_pass_and_the_bound_says_so(scores: list[float], default: float) -> None:
    result = fit(scores, default)
    assert len(scores) < good_parts_for(0.01)
    assert bad(scores, result.threshold) == 0
    assert result.false_reject_bound == pytest.approx(1 / (len(scores) + 1))


@given(good_scores, thresholds, rates, st.data())
def test_a_higher_score_never_lowers_the_threshold(
    scores: list[float], default: float, rate: float, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(scores) - 1))
    raised = scores.copy()
    raised[index] = data.draw(st.floats(scores[index], 0.99))
    assert fit(raised, default, rate).threshold >= fit(scores, default, rate).threshold


@given(good_scores, thresholds, rates, rates)
def test_a_stricter_rate_never_lowers_the_threshold(
    scores: list[float], default: float, one: float, other: float
) -> None:
    strict, loose = sorted((one, other))
    assert fit(scores, default, strict).threshold >= fit(scores, default, loose).threshold
    assert fit(scores, default, strict).false_reject_bound <= fit(scores, default, loose).false_reject_bound


@given(good_scores, thresholds, thresholds)
def test_a_higher_default_never_lowers_the_threshold(scores: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert fit(scores, high).threshold >= fit(scores, low).threshold


@given(good_scores, rates, st.randoms(use_true_random=False))
def test_the_order_of_the_parts_does_not_matter(scores: list[float], rate: float, random: object) -> None:
    shuffled = scores.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fit(shuffled, rate=rate).threshold == fit(scores, rate=rate).threshold


@given(st.floats(0.0, 0.99))
def test_one_good_part(score: float) -> None:
    result = fit([score], accept_outliers=False)
    assert result.threshold == max(0.5, score + SCORE_RESOLUTION)
    assert result.false_reject_bound == 0.5
    assert "1 good part:" in result.statement()
    assert "99 good parts would bring the bound to 1%" in result.statement()


@given(st.integers(1, 40), st.floats(0.0, 0.99))
def test_constant_scores_pass(n: int, score: float) -> None:
    result = fit([score] * n, accept_outliers=False)
    assert bad([score] * n, result.threshold) == 0


@pytest.mark.parametrize(("n", "rate"), [(1, 0.01), (5, 0.01), (20, 0.1), (99, 0.01), (60, 0.05), (300, 0.01)])
@pytest.mark.parametrize("shape", ["uniform", "skewed", "ties"])
def test_conformal_bound_holds_in_simulation(n: int, rate: float, shape: str) -> None:
    """Over many calibrations the next good part is rejected no more often than stated (and not for a lax reason)."""
    random = np.random.default_rng(n)
    rounds = 500

    def draw(count: int) -> np.ndarray:
        if shape == "uniform":
            return random.uniform(0.1, 0.9, count)
        if shape == "skewed":
            return np.minimum(random.beta(0.5, 4.0, count), 0.99)
        return np.round(random.uniform(0.0, 0.9, count), 1)

    rejected = 0.0
    # A default near 0 leaves the decision to the conformal rank alone.
    for _ in range(rounds):
        result = fit(draw(n).tolist(), default=1e-9, rate=rate)
        rejected += float(np.mean(draw(20) >= result.threshold))
    share = rejected / rounds
    spread = 4.0 * math.sqrt(result.false_reject_bound / rounds)
    assert result.false_reject_bound == pytest.approx(max(1 / (n + 1), _floor_rank_bound(n, rate)))
    assert share <= result.false_reject_bound + spread
    if shape == "uniform":
        assert share >= result.false_reject_bound - spread, "the threshold is higher than the bound asks for"


def _floor_rank_bound(n: int, rate: float) -> float:
    return math.floor((n + 1) * rate + 1e-9) / (n + 1)


@pytest.mark.parametrize("n", [1, 2, 5, 20, 99, 100, 1000])
@pytest.mark.parametrize("rejected", [0, 1, 5])
def test_the_confidence_limit_is_the_beta_quantile(n: int, rejected: int) -> None:
    rank = n - rejected
    if rank >= 1:
        assert _rate_limit(n, rank) == pytest.approx(beta.ppf(0.95, rejected + 1, rank), rel=1e-6)


@pytest.mark.parametrize(("rate", "n"), [(0.01, 99), (0.05, 19), (0.5, 1), (0.001, 999), (0.9, 1)])
def test_good_parts_for(rate: float, n: int) -> None:
    assert good_parts_for(rate) == n
    assert 1 / (n + 1) <= rate + 1e-12


def test_99_parts_carry_one_percent_and_the_statement_asks_for_no_more() -> None:
    result = fit([i / 200 for i in range(99)], default=0.3)
    assert result.false_reject_bound == pytest.approx(0.01)
    assert result.threshold == pytest.approx(98 / 200 + SCORE_RESOLUTION)
    assert "at most 1.0% of good parts" in result.statement()
    assert "would bring" not in result.statement()


def test_numpy_scores_are_taken() -> None:
    result = fit(np.array([0.1, 0.25], dtype=np.float32))  # type: ignore[arg-type]
    assert all(type(score) is float for score in result.scores)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "scores is empty; at least 1 good part is needed, 99 for a 1 % bound"),
        ([0.1, math.nan], r"scores\[1\] is nan"),
        ([math.inf], r"scores\[0\] is inf"),
        ([-0.01], r"scores\[0\] is -0.01; a score is a number between 0 and 1"),
        ([0.1, 0.2, 1.01], r"scores\[2\] is 1.01"),
        (["high"], r"scores\[0\] is 'high'"),
        ([None], r"scores\[0\] is None"),
        ([1.0], r"good parts score up to 1.0000 \(rank 1 of 1\); no threshold below 1"),
        ([0.9995] * 5, "no threshold below 1 passes them"),
    ],
)
def test_refused_scores(scores: list[float], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit(scores, accept_outliers=False)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 2.0, math.nan, math.inf])
def test_refused_default_and_rate(value: float) -> None:
    with pytest.raises(CalibrationError, match=r"default_threshold is .* between 0 and 1, both excluded"):
        fit([0.1], default=value)
    with pytest.raises(CalibrationError, match=r"false_reject_rate is .* between 0 and 1, both excluded"):
        fit([0.1], rate=value)


@given(good_scores, thresholds)
def test_saturated_parts_are_refused_whatever_the_default(scores: list[float], default: float) -> None:
    with pytest.raises(CalibrationError, match="no threshold below 1"):
        fit([*scores, SATURATED_SCORE], default)


@pytest.mark.parametrize(
    ("scores", "named"),
    [
        ([0.05, 0.07, 0.9, 0.06], r"scores\[2\] = 0.9000 stands far above the other 3 good parts \(0.0500 to 0.0700\)"),
        ([0.0, 0.0, 0.0, 0.0, 1.0], r"scores\[4\] = 1.0000 .* other 4 good parts \(0.0000 to 0.0000\)"),  # no spread
        ([0.05, 0.95], r"scores\[1\] = 0.9500 .* other 1 good parts"),  # two parts
        ([0.1, 0.8, 0.12, 0.9, 0.11, 0.1], r"scores\[1\] = 0.8000, scores\[3\] = 0.9000 stand far above the other 4"),
        ([0.02] * 30 + [0.6], r"scores\[30\] = 0.6000"),  # just above the default
    ],
)
def test_a_bad_part_among_the_good_is_named(scores: list[float], named: str) -> None:
    with pytest.raises(CalibrationError, match=named):
        fit(scores, accept_outliers=False)
    if max(scores) < SATURATED_SCORE:
        assert fit(scores, accept_outliers=True).threshold > max(scores)


@pytest.mark.parametrize(
    "scores",
    [
        [0.9],  # one part: nothing to compare with
        [0.3, 0.6],  # two parts that differ as good parts may
        [0.0, 0.0, 0.0, 0.45],  # far out, but below the default: it changes nothing
        [0.3, 0.4, 0.5, 0.6, 0.7, 0.8],  # spread
        [0.8, 0.9],  # a reference that fits badly, evenly so
    ],
)
def test_an_ordinary_spread_is_accepted(scores: list[float]) -> None:
    assert fit(scores, accept_outliers=False).n == len(scores)


@pytest.mark.parametrize("n", [3, 10, 50, 200])
def test_good_parts_alone_are_rarely_taken_for_bad_ones(n: int) -> None:
    random = np.random.default_rng(n)
    draws = {
        # Of three parts spread this widely, two often lie close together by chance: then asking is right.
        "uniform": lambda: random.uniform(0.2, 0.8, n) if n > 3 else random.uniform(0.3, 0.6, n),
        "normal": lambda: np.clip(random.normal(0.4, 0.08, n), 0, 1),
        "skewed": lambda: np.clip(random.gamma(2.0, 0.06, n), 0, 0.99),
    }
    for name, draw in draws.items():
        alarms = 0
        for _ in range(200):
            try:
                fit(draw().tolist(), accept_outliers=False)
            except CalibrationError:
                alarms += 1
        assert alarms <= 6, name


@given(st.lists(st.floats(0.0, 0.2), min_size=2, max_size=40), st.floats(0.75, 1.0))
def test_one_certain_defect_is_always_found(scores: list[float], defect: float) -> None:
    spread = 1.4826 * float(np.median(np.abs(np.array(scores) - np.median(scores))))
    assume(float(np.median(scores)) + 10 * spread < 0.75)
    with pytest.raises(CalibrationError, match=rf"scores\[{len(scores)}\]"):
        fit([*scores, defect], accept_outliers=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": math.nan}, "threshold is nan"),
        ({"threshold": 1.5}, "threshold is 1.5; it must lie between 0 and 1"),
        ({"false_reject_bound": -0.1}, "false_reject_bound is -0.1"),
        ({"n": 3}, "n is 3 for 2 scores"),
        ({"n": 0, "scores": ()}, "n is 0 for 0 scores"),
        ({"scores": (0.1, math.nan)}, r"scores\[1\] is nan"),
        ({"engine_fingerprint": ""}, "engine_fingerprint is empty"),
    ],
)
def test_a_calibration_that_contradicts_itself_cannot_be_made(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {
        "threshold": 0.5,
        "n": 2,
        "false_reject_bound": 0.3,
        "confidence": "",
        "scores": (0.1, 0.2),
        "engine_fingerprint": FINGERPRINT,
    }
    with pytest.raises(CalibrationError, match=message):
        Calibration(**{**fields, **change})  # type: ignore[arg-type]
