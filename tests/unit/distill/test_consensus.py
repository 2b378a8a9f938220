"""Several answers become one label: by majority and medoid, or by the best reward, and faults are named."""

from __future__ import annotations

import pytest

from differad_edge.grounding import Answer
from distill.consensus import Rules, consensus_of
from training.data import ZERO_BOX

OK = Answer(None)
NEAR, NEAR2, FAR = Answer((100, 100, 200, 200)), Answer((105, 100, 205, 200)), Answer((700, 700, 900, 900))


def test_the_box_nearest_to_all_others_stands_for_them() -> None:
    found = consensus_of([FAR, NEAR, NEAR2, NEAR, OK], Rules())
    assert found.chosen == 1
    assert found.ng_share == pytest.approx(0.8)
    overlap = (0 + 95 / 105 + 1) / 3
    assert found.overlap == pytest.approx(overlap)
    assert found.confidence == pytest.approx(0.8 * overlap)


def test_good_parts_are_labelled_too() -> None:
    found = consensus_of([OK, OK, NEAR, OK], Rules())
    assert (found.chosen, found.ng_share, found.overlap, found.confidence) == (0, 0.25, 1.0, 0.75)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([None, None, None, OK], "unparsable: 3 of 4"),
        ([None], "unparsable: 1 of 1"),
        ([OK, NEAR], "split: 50%"),
        ([OK, OK, NEAR, NEAR, None], "split: 50%"),
        ([NEAR, FAR], "scattered: the boxes overlap by 0.00"),
    ],
)
def test_no_label_without_agreement(answers: list[Answer | None], why: str) -> None:
    found = consensus_of(answers, Rules())
    assert found.chosen is None
    assert found.why is not None
    assert found.why.startswith(why)


def test_a_minority_of_boxes_needs_the_majority() -> None:
    assert consensus_of([OK, OK, OK, NEAR, NEAR], Rules(least_majority=0.7)).chosen is None
    assert consensus_of([OK, OK, OK, NEAR, NEAR], Rules(least_majority=0.6)).chosen == 0


def test_with_a_truth_the_best_answer_is_taken_even_from_a_minority() -> None:
    found = consensus_of([FAR, FAR, OK, NEAR2], Rules(), truth=(100, 100, 200, 200))
    assert found.chosen == 3
    assert found.reward is not None
    assert found.reward > 0.9
    assert found.ng_share == 0.75
    good = consensus_of([FAR, OK, None], Rules(), truth=ZERO_BOX)
    assert (good.chosen, good.reward) == (1, 1.0)


def test_with_a_truth_a_wrong_answer_is_dropped() -> None:
    found = consensus_of([FAR, OK], Rules(), truth=(100, 100, 200, 200))
    assert found.chosen is None
    assert found.why is not None
    assert found.why.startswith("wrong: the best reward is 0.")
    assert consensus_of([NEAR], Rules(), truth=ZERO_BOX).chosen is None
