"""Every figure against an example worked by hand, and what must hold for any outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.results import Box, Finding, Verdict
from differad_edge.scoring import (
    DETECTION_FIGURES,
    ONE_BOX_FIGURES,
    Judgement,
    Outcome,
    detection,
    judge,
    one_box,
    summarise,
)
from differad_edge.scoring.detection import DetectionTable
from differad_edge.scoring.one_box import OneBoxTable

SIZE = (100, 100)
TRUE_BOX = Box(10, 10, 20, 20)
HALF = Box(10, 10, 20, 15)  # IoU 0.5 with TRUE_BOX
THREE_TENTHS = Box(10, 10, 20, 13)  # IoU 0.3 exactly
ELSEWHERE = Box(60, 60, 70, 70)


def finding(box: Box, score: float = 0.9) -> Finding:
    return Finding(box, score)


def answer(
    truth: Sequence[Box] = (),
    found: Sequence[Finding] = (),
    verdict: Verdict | None = None,
    *,
    candidates: Sequence[Finding] | None = None,
    product: str = "p",
    ignore: Sequence[Box] = (),
    score: float | None = None,
) -> Outcome:
    """An outcome whose verdict follows from its findings, and whose candidates are its findings, unless given."""
    return Outcome(
        product=product,
        truth=tuple(truth),
        findings=tuple(found),
        candidates=tuple(found if candidates is None else candidates),
        verdict=verdict or (Verdict.NG if found else Verdict.OK),
        size=SIZE,
        ignore=tuple(ignore),
        score=score,
    )


class TestJudge:
    @pytest.mark.parametrize(
        ("outcome", "expected"),
        [
            (answer([TRUE_BOX], [finding(HALF)]), Judgement("TP", 0.5)),
            (answer([TRUE_BOX], [finding(THREE_TENTHS)]), Judgement("TP", 0.3)),  # at the threshold
            (answer([TRUE_BOX], [finding(Box(10, 10, 20, 12.9))]), Judgement("FN", 0.29)),  # below it: once, as FN
            (answer([TRUE_BOX]), Judgement("FN", 0.0)),  # called OK
            (answer(), Judgement("TN", 1.0)),
            (answer([], [finding(ELSEWHERE)]), Judgement("FP", 0.0)),
            (answer([], [], Verdict.UNDECIDED), Judgement("NONE", 0.0)),  # neither TN nor FP
            (answer([], [], Verdict.ERROR), Judgement("NONE", 0.0)),
            (answer([TRUE_BOX], [finding(TRUE_BOX)], Verdict.UNDECIDED), Judgement("FN", 0.0)),  # though it saw it
            (answer([TRUE_BOX], [], Verdict.ERROR), Judgement("FN", 0.0)),
        ],
    )
    def test_each_kind(self, outcome: Outcome, expected: Judgement) -> None:
        judged = judge(outcome)
        assert judged.kind == expected.kind
        assert judged.iou == pytest.approx(expected.iou)

    def test_only_the_strongest_finding_counts_whatever_the_order(self) -> None:
        weak_right, strong_wrong = finding(TRUE_BOX, 0.6), finding(ELSEWHERE, 0.8)
        for found in ([weak_right, strong_wrong], [strong_wrong, weak_right]):
            assert judge(answer([TRUE_BOX], found)) == Judgement("FN", 0.0)

    def test_equal_scores_do_not_gain(self) -> None:
        for found in ([TRUE_BOX, ELSEWHERE], [ELSEWHERE, TRUE_BOX]):
            assert judge(answer([TRUE_BOX], [finding(box, 0.8) for box in found])).kind == "FN"

    def test_several_true_boxes_count_each_and_as_their_union(self) -> None:
        truth = [Box(10, 10, 20, 20), Box(30, 10, 40, 20)]
        assert judge(answer(truth, [finding(Box(30, 10, 40, 20))])).iou == 1.0  # one of them
        assert judge(answer(truth, [finding(Box(10, 10, 40, 20))])).iou == 1.0  # the box around both
        assert judge(answer(truth, [finding(Box(10, 10, 40, 15))])).iou == 0.5  # half of the box around both

    def test_a_finding_on_an_ignore_box_is_passed_over(self) -> None:
        on_ignored = finding(Box(60, 60, 66, 66), 0.95)
        assert judge(answer([], [on_ignored], ignore=[ELSEWHERE])) == Judgement("TN", 1.0)
        assert judge(answer([TRUE_BOX], [on_ignored, finding(HALF, 0.7)], ignore=[ELSEWHERE])) == Judgement("TP", 0.5)
        assert judge(answer([TRUE_BOX], [on_ignored], ignore=[ELSEWHERE])) == Judgement("FN", 0.0)

    def test_a_hit_is_not_lost_to_an_ignore_box_over_it(self) -> None:
        assert judge(answer([TRUE_BOX], [finding(TRUE_BOX)], ignore=[Box(0, 0, 50, 50)])).kind == "TP"

    def test_the_margin_grows_predictions_and_stops_at_the_edge(self) -> None:
        found = [finding(Box(12, 12, 18, 18))]  # IoU 0.36, with a margin of 2 px 1.0
        assert judge(answer([TRUE_BOX], found)).iou == pytest.approx(0.36)
        assert judge(answer([TRUE_BOX], found), margin_px=2).iou == 1.0
        corner = answer([Box(0, 0, 10, 10)], [finding(Box(0, 0, 8, 8))])
        assert judge(corner, margin_px=2).iou == 1.0  # nothing grows beyond the image

    def test_a_box_outside_the_image_is_a_false_alarm_and_no_crash(self) -> None:
        assert judge(answer([], [finding(Box(200, 200, 210, 210))]), margin_px=2).kind == "FP"


class TestOneBox:
    def test_all_figures_by_hand(self) -> None:
        outcomes = [
            answer([TRUE_BOX], [finding(TRUE_BOX, 0.9)]),  # TP, IoU 1
            answer([TRUE_BOX], [finding(HALF, 0.8)]),  # TP, IoU 0.5
            answer([TRUE_BOX], [finding(ELSEWHERE, 0.7)]),  # FN, IoU 0
            answer([TRUE_BOX], [], Verdict.UNDECIDED),  # FN, IoU 0
            answer([], [], score=0.1),  # TN
            answer([], [], score=0.2),  # TN
            answer([], [finding(ELSEWHERE, 0.75)]),  # FP
            answer([], [], Verdict.UNDECIDED),  # neither
        ]
        figures = one_box(outcomes)
        assert figures == {
            "f1": pytest.approx(2 * 2 / (2 * 2 + 1 + 2)),
            "acc": pytest.approx((2 + 2) / 8),
            "miou": pytest.approx((1 + 0.5 + 0 + 0 + 1 + 1 + 0 + 0) / 8),
            "miou_ano": pytest.approx(1.5 / 4),
            "tnr": pytest.approx(2 / 4),
            "recall": pytest.approx(2 / 4),
            "undecided_share": pytest.approx(2 / 8),
            # Of 16 (anomaly, normal) pairs those in order: 0.9 and 0.8 beat 0.1, 0.2 and 0.75, 0.7 beats 0.1 and 0.2.
            # The anomaly without an answer beats nothing, nothing beats the normal without one.
            "auroc": pytest.approx((3 + 3 + 2) / 16),
        }

    def test_auroc_counts_a_tie_one_half(self) -> None:
        assert one_box([answer([TRUE_BOX], [finding(HALF, 0.5)]), answer(score=0.5)])["auroc"] == 0.5

    def test_auroc_agrees_with_counting_pairs(self) -> None:
        rng = np.random.default_rng(1)
        scores = rng.integers(0, 8, 60) / 10
        bad = rng.random(60) < 0.5
        outcomes = [answer([TRUE_BOX] if b else [], [], score=float(s)) for s, b in zip(scores, bad, strict=True)]
        wins = [(s > t) + 0.5 * (s == t) for s in scores[bad] for t in scores[~bad]]
        assert one_box(outcomes)["auroc"] == pytest.approx(np.mean(wins))

    def test_without_a_score_the_strongest_candidate_ranks_the_image(self) -> None:
        weak = answer([TRUE_BOX], [], candidates=[finding(HALF, 0.2), finding(ELSEWHERE, 0.4)])
        assert one_box([weak, answer(score=0.3)])["auroc"] == 1.0
        assert one_box([weak, answer(score=0.5)])["auroc"] == 0.0

    def test_zero_of_zero_is_undefined_not_good(self) -> None:
        only_normal = one_box([answer(), answer()])
        assert [only_normal[name] for name in ("f1", "miou_ano", "recall", "auroc")] == [None] * 4
        assert only_normal["tnr"] == only_normal["acc"] == only_normal["miou"] == 1.0
        assert one_box([answer([TRUE_BOX], [finding(HALF)])])["tnr"] is None

    def test_an_engine_that_never_answers_scores_nothing(self) -> None:
        outcomes = [answer([TRUE_BOX], [], Verdict.UNDECIDED), answer([], [], Verdict.ERROR)]
        figures = one_box(outcomes)
        assert figures.pop("undecided_share") == 1.0
        assert set(figures.values()) == {0.0}


class TestDetection:
    def test_all_figures_by_hand(self) -> None:
        second = Box(40, 40, 50, 50)
        outcomes = [
            # one hit, one false alarm, one box missed
            answer([TRUE_BOX, second], [finding(HALF, 0.9), finding(ELSEWHERE, 0.6)]),
            answer([], [finding(ELSEWHERE, 0.5)]),  # one false alarm
            answer([TRUE_BOX], [finding(TRUE_BOX, 0.8)]),  # one hit
        ]
        # By score: hit 0.9, hit 0.8, false 0.6, false 0.5, of 3 true boxes: precision 1 up to recall 2/3, then nothing.
        assert detection(outcomes) == {
            "f": pytest.approx(2 * 2 / (2 * 2 + 2 + 1)),
            "precision": pytest.approx(2 / 4),
            "recall": pytest.approx(2 / 3),
            "ap": pytest.approx(2 / 3),
        }

    def test_average_precision_takes_the_envelope_at_every_recall(self) -> None:
        boxes = [Box(10 * i, 0, 10 * i + 8, 8) for i in range(4)]
        ranked = [
            finding(boxes[0], 0.9),  # hit: recall 1/4, precision 1
            finding(ELSEWHERE, 0.8),  # false
            finding(boxes[1], 0.7),  # hit: recall 2/4, precision 2/3
            finding(Box(80, 80, 90, 90), 0.6),  # false
            finding(boxes[2], 0.5),  # hit: recall 3/4, precision 3/5
        ]
        expected = (1 + 2 / 3 + 3 / 5) / 4
        assert detection([answer(boxes, [], candidates=ranked)])["ap"] == pytest.approx(expected)

    def test_a_later_better_precision_lifts_the_envelope(self) -> None:
        boxes = [Box(10 * i, 0, 10 * i + 8, 8) for i in range(3)]
        ranked = [finding(ELSEWHERE, 0.9), *(finding(box, 0.8 - i / 10) for i, box in enumerate(boxes))]
        # precisions at the hits 1/2, 2/3, 3/4: the envelope is 3/4 throughout
        assert detection([answer(boxes, [], candidates=ranked)])["ap"] == pytest.approx(3 / 4)

    def test_equal_scores_enter_together(self) -> None:
        tied = [finding(TRUE_BOX, 0.5), finding(ELSEWHERE, 0.5)]
        assert detection([answer([TRUE_BOX], [], candidates=tied)])["ap"] == pytest.approx(0.5)
        apart = [answer([TRUE_BOX], [finding(TRUE_BOX, 0.5)]), answer([], [finding(ELSEWHERE, 0.5)])]
        assert detection(apart)["ap"] == detection(apart[::-1])["ap"] == pytest.approx(0.5)

    def test_candidates_below_the_threshold_only_count_for_ap(self) -> None:
        figures = detection([answer([TRUE_BOX], [], candidates=[finding(TRUE_BOX, 0.2)])])
        assert figures == {"f": 0.0, "precision": None, "recall": 0.0, "ap": 1.0}

    def test_the_overlap_must_exceed_the_threshold(self) -> None:
        outcome = answer([Box(0, 0, 10, 10)], [finding(Box(0, 0, 10, 3.3))])  # IoU 0.33
        assert detection([outcome])["recall"] == 0.0
        assert detection([outcome], iou=0.32)["recall"] == 1.0

    def test_a_true_box_is_found_once(self) -> None:
        figures = detection([answer([TRUE_BOX], [finding(TRUE_BOX, 0.9), finding(HALF, 0.8)])])
        assert (figures["precision"], figures["recall"]) == (0.5, 1.0)

    def test_the_strongest_takes_first_and_takes_its_best(self) -> None:
        truth = [Box(0, 0, 10, 10), Box(0, 4, 10, 14)]
        wide = finding(Box(0, 3, 10, 13), 0.9)  # overlaps both, the second more
        assert detection([answer(truth, [wide, finding(truth[0], 0.8)])])["f"] == 1.0

    def test_predictions_on_ignore_boxes_do_not_count(self) -> None:
        outcome = answer([TRUE_BOX], [finding(TRUE_BOX, 0.9), finding(Box(62, 62, 68, 68), 0.95)], ignore=[ELSEWHERE])
        assert detection([outcome]) == {"f": 1.0, "precision": 1.0, "recall": 1.0, "ap": 1.0}
        assert detection([replace(outcome, ignore=())])["precision"] == 0.5

    def test_a_prediction_lies_on_an_ignore_box_by_half_of_itself(self) -> None:
        for box, precision in ((Box(65, 60, 75, 70), 1.0), (Box(66, 60, 76, 70), 0.5)):  # half on it; less, IoU 0.25
            outcome = answer([TRUE_BOX], [finding(TRUE_BOX), finding(box)], ignore=[Box(50, 50, 70, 80)])
            assert detection([outcome])["precision"] == precision

    @pytest.mark.parametrize("verdict", [Verdict.UNDECIDED, Verdict.ERROR])
    def test_without_an_answer_nothing_is_found(self, verdict: Verdict) -> None:
        figures = detection([answer([TRUE_BOX], [finding(TRUE_BOX)], verdict)])
        assert figures == {"f": 0.0, "precision": None, "recall": 0.0, "ap": 0.0}

    def test_without_true_boxes_only_precision_and_f_are_defined(self) -> None:
        assert detection([answer([], [finding(HALF)])]) == {"f": 0.0, "precision": 0.0, "recall": None, "ap": None}
        assert set(detection([answer()]).values()) == {None}


class TestSummarise:
    def outcomes(self) -> list[Outcome]:
        hit, miss = answer([TRUE_BOX], [finding(TRUE_BOX)], product="a"), answer([TRUE_BOX], product="b")
        return [
            hit,
            hit,
            replace(hit, truth=(), findings=(), candidates=(), verdict=Verdict.OK),
            miss,
            answer(product="b"),
        ]

    def test_micro_is_over_images_and_macro_over_products(self) -> None:
        report = summarise(self.outcomes(), margin_px=0)
        assert report["n"] == 5
        assert {name: entry["n"] for name, entry in report["classes"].items()} == {"a": 3, "b": 2}
        assert (report["classes"]["a"]["acc"], report["classes"]["b"]["acc"]) == (1.0, 0.5)
        assert report["micro"]["acc"] == pytest.approx(4 / 5)
        assert report["macro"]["acc"] == pytest.approx((1 + 0.5) / 2)
        assert report["micro"]["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
        assert report["macro"]["f1"] == pytest.approx((1 + 0) / 2)
        assert report["micro"]["counts"] == {"tp": 2, "fn": 1, "tn": 2, "fp": 0, "undecided": 0}
        assert report["detection"]["counts"] == {"tp": 2, "fp": 0, "fn": 1}

    def test_macro_leaves_out_products_without_the_figure(self) -> None:
        outcomes = [answer([TRUE_BOX], [finding(TRUE_BOX)], product="only-ng"), answer(product="both"),
                    answer([TRUE_BOX], product="both")]  # fmt: skip
        report = summarise(outcomes, margin_px=0)
        assert report["classes"]["only-ng"]["tnr"] is None
        assert report["classes"]["only-ng"]["tnr_ci"] is None
        assert report["macro"]["tnr"] == 1.0

    def test_every_figure_has_an_interval_around_it(self) -> None:
        report = summarise(self.outcomes(), margin_px=0)
        groups = [(report["micro"], ONE_BOX_FIGURES), (report["macro"], ONE_BOX_FIGURES)]
        groups += [(entry, ONE_BOX_FIGURES) for entry in report["classes"].values()]
        for group, names in [*groups, (report["detection"], DETECTION_FIGURES)]:
            for name in names:
                low, high = group[f"{name}_ci"]
                assert 0 <= low <= group[name] <= high <= 1

    def test_the_interval_of_a_share_is_that_of_the_binomial(self) -> None:
        hit, miss = answer([TRUE_BOX], [finding(TRUE_BOX)]), answer([TRUE_BOX])
        low, high = summarise([hit] * 80 + [miss] * 20, margin_px=0, bootstrap=4000)["micro"]["recall_ci"]
        half = 1.96 * math.sqrt(0.8 * 0.2 / 100)
        assert (low, high) == (pytest.approx(0.8 - half, abs=0.015), pytest.approx(0.8 + half, abs=0.015))

    def test_it_is_the_same_every_time_and_json(self) -> None:
        first, second = (json.dumps(summarise(self.outcomes(), margin_px=1), allow_nan=False) for _ in range(2))
        assert first == second

    def test_no_bootstrap_gives_no_intervals(self) -> None:
        report = summarise(self.outcomes(), margin_px=0, bootstrap=0)
        assert report["micro"]["acc"] == 0.8
        assert report["micro"]["acc_ci"] is None

    def test_many_candidates_are_resampled_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("differad_edge.scoring.summary._CHUNK_ELEMENTS", 37)
        report = summarise(self.outcomes(), margin_px=0, bootstrap=100)
        assert report["micro"]["acc_ci"] is not None

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            summarise([], margin_px=0)
        for margin_px in (-1, math.nan, math.inf):
            with pytest.raises(ValueError, match="margin_px"):
                summarise(self.outcomes(), margin_px=margin_px)

    def test_an_outcome_is_checked_at_birth(self) -> None:
        with pytest.raises(ValueError, match="score"):
            answer(score=math.nan)
        with pytest.raises(ValueError, match="size"):
            replace(answer(), size=(0, 5))


# Few distinct edges and scores, so that overlaps, ties and duplicates are common.
EDGES = st.integers(0, 9)
BOXES = st.builds(
    lambda x, y, w, h: Box(10 * x, 10 * y, 10 * (x + w), 10 * (y + h)),
    EDGES,
    EDGES,
    st.integers(1, 4),
    st.integers(1, 4),
)
FINDINGS = st.builds(Finding, BOXES, st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]))


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    candidates = draw(st.lists(FINDINGS, max_size=5))
    found = [candidate for candidate in candidates if candidate.score >= 0.5]
    verdict = draw(st.sampled_from([None, None, None, Verdict.UNDECIDED, Verdict.ERROR]))
    truth, ignore = draw(st.lists(BOXES, max_size=3)), draw(st.lists(BOXES, max_size=1))
    product = draw(st.sampled_from(["a", "b"]))
    return answer(truth, found, verdict, candidates=candidates, ignore=ignore, product=product)


SETS = st.lists(outcomes(), min_size=1, max_size=6)


def flat(report: dict[str, Any]) -> dict[str, float]:
    """Every defined figure of a report under its path."""
    figures = {}
    for group in ("micro", "macro", "detection", *(("classes", name) for name in report["classes"])):
        entry = report[group] if isinstance(group, str) else report[group[0]][group[1]]
        for name in (*ONE_BOX_FIGURES, *DETECTION_FIGURES):
            if entry.get(name) is not None:
                figures[f"{group}.{name}"] = entry[name]
    return figures


class TestInvariants:
    @settings(max_examples=40, deadline=None)
    @given(SETS, st.sampled_from([0.0, 3.0, 40.0]))
    def test_figures_are_bounded(self, given_: list[Outcome], margin_px: float) -> None:
        figures = flat(summarise(given_, margin_px=margin_px, bootstrap=5))
        assert all(0.0 <= value <= 1.0 for value in figures.values())

    @settings(max_examples=40, deadline=None)
    @given(SETS, st.randoms(use_true_random=False))
    def test_no_order_matters(self, given_: list[Outcome], random: Any) -> None:
        def shuffled(items: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(random.sample(items, len(items)))

        other = [
            replace(
                outcome,
                truth=shuffled(outcome.truth),
                findings=shuffled(outcome.findings),
                candidates=shuffled(outcome.candidates),
            )
            for outcome in shuffled(given_)
        ]
        before, after = (flat(summarise(each, margin_px=0, bootstrap=0)) for each in (given_, other))
        assert before == pytest.approx(after)

    @settings(max_examples=40, deadline=None)
    @given(SETS, st.data())
    def test_a_weight_of_an_image_is_as_many_copies_of_it(self, given_: list[Outcome], data: st.DataObject) -> None:
        # The bootstrap never builds a resampled set: it weights the images of the one that there is.
        copies = [data.draw(st.integers(0, 3)) for _ in given_]
        repeated = [outcome for outcome, times in zip(given_, copies, strict=True) for _ in range(times)]
        if not repeated:
            return
        weights = np.array([copies], dtype=np.float64)
        boxes = DetectionTable(given_, 0.0, 0.33).figures(weights)
        images = OneBoxTable(given_, 0.0).figures(weights, np.arange(len(given_)))
        for figures, expected in ((boxes, detection(repeated)), (images, one_box(repeated))):
            got = {name: None if np.isnan(values[0]) else values[0] for name, values in figures.items()}
            assert got == {name: None if value is None else pytest.approx(value) for name, value in expected.items()}

    @settings(max_examples=40, deadline=None)
    @given(SETS, st.data())
    def test_a_false_alarm_never_raises_f(self, given_: list[Outcome], data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(given_) - 1))
        old = given_[index]
        if not old.answered:
            return
        alarm = finding(Box(300, 300, 310, 310), data.draw(st.floats(0.5, 1)))  # away from every true and ignore box
        new = replace(old, findings=(*old.findings, alarm), candidates=(*old.candidates, alarm), verdict=Verdict.NG)
        changed = [*given_[:index], new, *given_[index + 1 :]]
        assert (detection(changed)["f"] or 0) <= (detection(given_)["f"] or 0)
        assert (one_box(changed)["f1"] or 0) <= (one_box(given_)["f1"] or 0)

    @settings(max_examples=40, deadline=None)
    @given(SETS)
    def test_perfect_answers_score_one(self, given_: list[Outcome]) -> None:
        def perfect(outcome: Outcome) -> Outcome:
            found = [finding(box, 0.9) for box in outcome.truth]
            return answer(outcome.truth, found, product=outcome.product)

        figures = flat(summarise([perfect(outcome) for outcome in given_], margin_px=0, bootstrap=0))
        assert {
            name: value for name, value in figures.items() if not name.endswith("undecided_share")
        } == pytest.approx({name: 1.0 for name in figures if not name.endswith("undecided_share")})

    @settings(max_examples=40, deadline=None)
    @given(SETS)
    def test_a_margin_of_zero_changes_nothing_and_one_is_growing_by_hand(self, given_: list[Outcome]) -> None:
        assert detection(given_, margin_px=0.0) == detection(given_)

        def grown(item: Finding) -> Finding:
            x1, y1, x2, y2 = item.box
            box = Box(max(0.0, x1 - 3), max(0.0, y1 - 3), min(100.0, x2 + 3), min(100.0, y2 + 3))
            return replace(item, box=box)

        by_hand = [
            replace(o, findings=tuple(map(grown, o.findings)), candidates=tuple(map(grown, o.candidates)))
            for o in given_
        ]
        for figures in (detection, one_box):
            assert figures(given_, margin_px=3.0) == figures(by_hand)

    @settings(max_examples=40, deadline=None)
    @given(SETS, st.data())
    def test_withholding_an_answer_never_raises_accuracy(self, given_: list[Outcome], data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(given_) - 1))
        withheld = replace(given_[index], verdict=Verdict.UNDECIDED)
        changed = [*given_[:index], withheld, *given_[index + 1 :]]
        for name in ("acc", "miou", "tnr", "recall", "auroc"):
            assert (one_box(changed)[name] or 0) <= (one_box(given_)[name] or 0) + 1e-12
