"""The decisions inside a box, the same for every tokenizer: the next digit, or the end of the number.

A box in words is a row of decisions. ``(120,45),(300,99)`` is 1, 2, 0, end, 4, 5, end, ... and each has 11 outcomes,
the ten digits and the end. Teacher and student have other vocabularies, special tokens and tokens between the numbers;
their distributions over these outcomes can be compared all the same, where a digit is one token. In Qwen's vocabularies
it is (ids below 151657 are the same in Qwen2 and Qwen3). Where it is not, what is left to compare is how peaked the
distributions are: sorted probabilities, as in universal logit distillation (Boizard et al., arXiv 2402.12030), which
TRL's GOLD uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.chat import Token
from differad_edge.grounding import GridBox

if TYPE_CHECKING:
    from differad_edge.engines.vlm.grammar import AnswerTokens

__all__ = ["END", "OUTCOMES", "RANKS", "decisions_of", "ranked_of", "student_decisions"]

Floats = NDArray[np.float64]

END = 10
"""The outcome after the ten digits: the number ends."""
OUTCOMES = 11
RANKS = 20
"""Most probable tokens in a place that are kept for sorted probabilities: what a vLLM server tells at most."""
LEAST_MASS = 0.5  # of a teacher's distribution that must lie on the outcomes; less means that digits are no tokens

_NUMBER = re.compile(r"\d+", re.ASCII)


def decisions_of(tokens: Sequence[Token], box: GridBox) -> Floats | None:
    """(decisions, 11) float64, rows that sum to 1: what the writer of ``tokens`` thought of each place in ``box``.

    ``tokens``: of a whole answer, with the most probable ones of each place. None where a digit is not one token there,
    where the places have no probabilities, or where the numbers are not written as they are here (007).

    The teacher could have written the zero box where x1 begins; a student has decided that before. So a zero there
    counts only where the box begins with it.
    """
    found = _numbers(tokens)
    if found is None or [text for _, text in found] != [str(number) for number in box]:
        return None
    starts = dict(zip(_starts(tokens), tokens, strict=True))
    rows = []
    for start, text in found:
        for place in range(len(text) + 1):
            token = starts.get(start + place)
            row = None if token is None else _outcomes(token)
            if row is None:
                return None
            rows.append(row)
    decisions = np.array(rows)
    if box[0] > 0 and str(box[0])[0] != "0":
        decisions[0, 0] = 0.0
    return np.asarray(decisions / decisions.sum(axis=1, keepdims=True), np.float64)


def ranked_of(tokens: Sequence[Token]) -> Floats | None:
    """(places, RANKS) float64: the probabilities of the most probable tokens in each place of the box, sorted.

    None where there is no box, or a place has no probabilities.
    """
    found = _numbers(tokens)
    if found is None:
        return None
    first, last = found[0][0], found[3][0] + len(found[3][1])
    rows = []
    for start, token in zip(_starts(tokens), tokens, strict=True):
        if start + len(token.text) > first and start < last:
            if not token.top:
                return None
            sure = sorted((math.exp(logprob) for _, logprob in token.top), reverse=True)[:RANKS]
            rows.append(sure + [0.0] * (RANKS - len(sure)))
    return np.array(rows, np.float64) if rows else None


def student_decisions(grammar: AnswerTokens, box: GridBox) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the same decisions fall in a student's answer, and between which tokens.

    (decisions,) places, counted from the first token after NG, and (decisions, 11) token ids.
    """
    places, choices = [], []
    at = len(grammar.box_open)
    for number, stop in zip(box, (*grammar.stops, grammar.close), strict=True):
        digits = str(number)
        for place in range(len(digits) + 1):
            places.append(at + place)
            choices.append([*grammar.digits, stop[0]])
        at += len(digits) + len(stop)
    return np.array(places, np.int64), np.array(choices, np.int64)


def _starts(tokens: Sequence[Token]) -> list[int]:
    lengths = [len(token.text) for token in tokens]
    return [sum(lengths[:n]) for n in range(len(lengths))]


def _numbers(tokens: Sequence[Token]) -> list[tuple[int, str]] | None:
    """Start and text of the four numbers of the first answer's box."""
    text = "".join(token.text for token in tokens)
    start = text.find("<answer>")
    end = text.find("</answer>", start)
    if start < 0 or end < 0:
        return None
    found = [(match.start(), match[0]) for match in _NUMBER.finditer(text, start, end)][:4]
    return found if len(found) == 4 else None


def _outcomes(token: Token) -> list[float] | None:
    """The distribution over the outcomes in one place; None where too little lies on them."""
    row = [0.0] * OUTCOMES
    for text, logprob in token.top:
        if len(text) == 1 and text in "0123456789":
            row[int(text)] += math.exp(logprob)
        elif text[:1] in (",", ")", "]"):
            row[END] += math.exp(logprob)
    return row if sum(row) >= LEAST_MASS else None
