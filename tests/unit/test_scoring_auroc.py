"""The AUROC of the image scores against counting pairs, and what a part without an answer does to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.results import Box, Verdict
from differad_edge.scoring import Outcome, one_box, summarise
from differad_edge.scoring.one_box import OneBoxTable

SILENT = (Verdict.UNDECIDED, Verdict.ERROR)


def image(bad: bool, score: float, verdict: Verdict = Verdict.OK, name: str = "p") -> Outcome:
    truth = (Box(10, 10, 20, 20),) if bad else ()
    return Outcome(name, truth, (), (), verdict, (100, 100), score=score)


def by_counting(outcomes: Sequence[Outcome]) -> float | None:
    """The definition: the share of (bad, good) pairs in order, ties one half, pairs with an unanswered image lost."""
    wins = []
    for bad, good in product((o for o in outcomes if o.truth), (o for o in outcomes if not o.truth)):
        if not (bad.answered and good.answered):
            wins.append(0.0)
        else:
            assert bad.score is not None
            assert good.score is not None
            wins.append(1.0 if bad.score > good.score else 0.5 if bad.score == good.score else 0.0)
    return sum(wins) / len(wins) if wins else None


# Few distinct scores, so that ties are common, also between products and between labels.
IMAGES = st.builds(
    image,
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.sampled_from([Verdict.OK, Verdict.OK, Verdict.NG, *SILENT]),
    st.sampled_from(["a", "b", "c"]),
)
SETS = st.lists(IMAGES, min_size=1, max_size=14)


@settings(max_examples=150, deadline=None)
@given(SETS)
def test_every_level_of_the_report_agrees_with_counting_pairs(outcomes: list[Outcome]) -> None:
    report = summarise(outcomes, margin_px=0, bootstrap=3)
    assert report["micro"]["auroc"] == pytest.approx(by_counting(outcomes))
    counted = {name: by_counting([o for o in outcomes if o.product == name]) for name in report["classes"]}
    assert {name: entry["auroc"] for name, entry in report["classes"].items()} == pytest.approx(counted)
    defined = [value for value in counted.values() if value is not None]
    assert report["macro"]["auroc"] == pytest.approx(np.mean(defined) if defined else None)
    for entry in (report["micro"], report["macro"], *report["classes"].values()):
        assert (entry["auroc"] is None) == (entry["auroc_ci"] is None)


@settings(max_examples=100, deadline=None)
@given(SETS, st.data())
def test_a_weight_is_as_many_copies_also_within_a_product(outcomes: list[Outcome], data: st.DataObject) -> None:
    copies = st.lists(st.integers(0, 3), min_size=len(outcomes), max_size=len(outcomes))
    weights = data.draw(st.lists(copies, min_size=1, max_size=3))
    chosen = [index for index, outcome in enumerate(outcomes) if outcome.product == outcomes[0].product]
    got = OneBoxTable(outcomes, 0.0).figures(np.array(weights, dtype=np.float64), np.array(chosen))["auroc"]
    for value, row in zip(got, weights, strict=True):
        expected = by_counting([outcomes[index] for index in chosen for _ in range(row[index])])
        assert value == pytest.approx(math.nan if expected is None else expected, nan_ok=True)


@pytest.mark.parametrize("bad", [True, False])
@pytest.mark.parametrize("verdict", SILENT)
@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_a_part_without_an_answer_loses_every_comparison(bad: bool, verdict: Verdict, score: float) -> None:
    answered = [image(True, 0.9), image(True, 0.9), image(False, 0.1), image(False, 0.1)]
    assert one_box(answered)["auroc"] == 1.0
    assert one_box([*answered, image(bad, score, verdict)])["auroc"] == pytest.approx(4 / 6)


@settings(max_examples=100, deadline=None)
@given(SETS, st.data())
def test_withholding_answers_gains_at_no_level(outcomes: list[Outcome], data: st.DataObject) -> None:
    withheld = [
        image(bool(o.truth), o.score or 0.0, data.draw(st.sampled_from([o.verdict, *SILENT])), o.product)
        for o in outcomes
    ]
    before, after = (summarise(each, margin_px=0, bootstrap=0) for each in (outcomes, withheld))
    for level in ("micro", "macro"):
        assert (after[level]["auroc"] or 0.0) <= (before[level]["auroc"] or 0.0) + 1e-12
        assert (after[level]["auroc"] is None) == (before[level]["auroc"] is None)  # nor does a class drop out


@pytest.mark.parametrize("bad", [True, False])
def test_a_product_of_one_label_has_none_and_the_macro_mean_leaves_it_out(bad: bool) -> None:
    both = [image(True, 0.6, name="both"), image(True, 0.2, name="both"), image(False, 0.4, name="both")]
    alone = [image(bad, 0.5, name="alone"), image(bad, 0.7, name="alone")]
    report = summarise([*both, *alone], margin_px=0)
    assert (report["classes"]["alone"]["auroc"], report["classes"]["alone"]["auroc_ci"]) == (None, None)
    assert report["macro"]["auroc"] == report["classes"]["both"]["auroc"] == 0.5
    assert report["macro"]["auroc_ci"] == report["classes"]["both"]["auroc_ci"]
    assert report["micro"]["auroc"] == pytest.approx(by_counting([*both, *alone]))  # there both labels are present


def test_macro_compares_within_products_and_micro_across_them() -> None:
    # Each product ranks its own parts without a fault, on a scale of its own.
    low = [image(True, 0.2, name="low"), image(False, 0.1, name="low")]
    high = [image(True, 0.9, name="high"), image(False, 0.8, name="high")]
    report = summarise([*low, *high], margin_px=0)
    assert (report["macro"]["auroc"], report["micro"]["auroc"]) == (1.0, 0.75)


def test_the_interval_is_that_of_hanley_and_mcneil() -> None:
    rng = np.random.default_rng(0)
    bad, good = rng.normal(1.0, 1.0, 90), rng.normal(0.0, 1.0, 140)
    outcomes = [image(True, float(s)) for s in bad] + [image(False, float(s)) for s in good]
    entry = summarise(outcomes, margin_px=0, bootstrap=4000)["micro"]
    wins = (bad[:, None] > good[None]).astype(np.float64)
    area = wins.mean()
    # Radiology 143 (1982), equation 1, with its Q1 and Q2 counted: two bad above one good, one bad above two good.
    q1, q2 = (wins.mean(axis=0) ** 2).mean(), (wins.mean(axis=1) ** 2).mean()
    variance = area * (1 - area) + (len(bad) - 1) * (q1 - area**2) + (len(good) - 1) * (q2 - area**2)
    half = 1.96 * math.sqrt(variance / (len(bad) * len(good)))
    assert entry["auroc"] == pytest.approx(area)
    assert entry["auroc_ci"] == [pytest.approx(area - half, abs=0.008), pytest.approx(area + half, abs=0.008)]
