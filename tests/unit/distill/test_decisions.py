"""Decisions inside a box: told from any tokens in which a digit is one, and nothing where it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.engines.chat import Token
from differad_edge.engines.vlm.grammar import AnswerTokens
from differad_edge.grounding import format_answer
from distill.decisions import END, OUTCOMES, RANKS, decisions_of, ranked_of, student_decisions


def token(text: str, **others: float) -> Token:
    """A token that was certain but for ``others`` (n3 for "3", comma for ",")."""
    names = {"comma": ",", "close": ")"}
    rest = [(names.get(name, name.removeprefix("n")), share) for name, share in others.items()]
    own = 1.0 - sum(others.values())
    return Token(text, math.log(own), ((text, math.log(own)), *((name, math.log(share)) for name, share in rest)))


def written(text: str) -> list[Token]:
    """Each digit is a token, and so is all that stands between digits."""
    pieces: list[str] = []
    for character in text:
        if pieces and not character.isdigit() and not pieces[-1][-1].isdigit():
            pieces[-1] += character
        else:
            pieces.append(character)
    return [token(piece) for piece in pieces]


boxes = st.tuples(*[st.integers(0, 998)] * 2, *[st.integers(1, 1000)] * 2).map(
    lambda b: (min(b[0], b[2] - 1), min(b[1], b[3] - 1), b[2], b[3])
)


@given(boxes)
def test_every_digit_and_end_is_a_decision(box: tuple[int, int, int, int]) -> None:
    found = decisions_of(written(format_answer(box, "a chip")), box)
    assert found is not None
    expected = [outcome for number in box for outcome in (*map(int, str(number)), END)]
    assert found.shape == (len(expected), OUTCOMES)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert found.argmax(axis=1).tolist() == expected


def test_probabilities_are_those_of_the_outcomes() -> None:
    tokens = written("<think>a</think><answer>(12,3),(45,6)</answer>")
    tokens[2] = token("2", n7=0.2, comma=0.1, x=0.1)  # what is no outcome is left out
    found = decisions_of(tokens, (12, 3, 45, 6))
    assert found is not None
    np.testing.assert_allclose(found[1, [2, 7, END]], np.array([0.6, 0.2, 0.1]) / 0.9)


def test_a_zero_box_that_was_possible_is_no_digit_of_x1() -> None:
    tokens = written("<answer>(12,3),(45,6)</answer>")
    tokens[1] = token("1", n0=0.4)
    found = decisions_of(tokens, (12, 3, 45, 6))
    assert found is not None
    assert found[0, 0] == 0.0
    assert found[0, 1] == 1.0


@pytest.mark.parametrize(
    ("tokens", "box"),
    [
        ([], (1, 2, 3, 4)),
        (written("<answer>OK</answer>"), (1, 2, 3, 4)),
        (written("<answer>(1,2),(3,4)</answer>"), (1, 2, 3, 5)),  # another box
        (written("<answer>(007,2),(30,4)</answer>"), (7, 2, 30, 4)),
        (written("<answer>(1,2),(3,4)"), (1, 2, 3, 4)),
        ([Token("<answer>(1,2),(3,4)</answer>", 0.0, ())], (1, 2, 3, 4)),  # one token for all
        ([Token(one.text, 0.0, ()) for one in written("<answer>(1,2),(3,4)</answer>")], (1, 2, 3, 4)),  # none told
    ],
)
def test_what_cannot_be_told_is_not(tokens: list[Token], box: tuple[int, int, int, int]) -> None:
    assert decisions_of(tokens, box) is None


def test_digits_that_are_no_tokens_leave_sorted_probabilities() -> None:
    tokens = [
        token("<answer>("),
        token("120", n12=0.25),
        *(token(text) for text in (",", "4", "),(", "300", ",", "99")),
    ]
    tokens.append(token(")</answer>"))
    assert decisions_of(tokens, (120, 4, 300, 99)) is None
    ranked = ranked_of(tokens)
    assert ranked is not None
    assert ranked.shape == (7, RANKS)
    np.testing.assert_allclose(ranked[0, :3], [0.75, 0.25, 0.0])
    assert (np.diff(ranked, axis=1) <= 0).all()


GRAMMAR = AnswerTokens((1, 2), (3, 4), (5,), ((6, 60), (7,), (8,)), (9,), tuple(range(100, 110)))


@given(boxes)
def test_a_students_decisions_are_the_same_ones(box: tuple[int, int, int, int]) -> None:
    places, choices = student_decisions(GRAMMAR, box)
    tokens = GRAMMAR.box_tokens(box)
    expected = [outcome for number in box for outcome in (*map(int, str(number)), END)]
    assert [tokens[place] for place in places] == [row[outcome] for row, outcome in zip(choices, expected, strict=True)]
