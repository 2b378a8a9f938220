"""The student's answer as a grammar over tokens: what is forced, what is free, and what each free token may be.

::

    <answer> OK
    <answer> NG ( D , D ),( D , D )</answer> <think> ... </think>

The verdict is one token, a digit is one token, and all between them is forced: it is fed in one call ("jump-forward")
and costs no decision. A number ends where the model prefers the stop after it to another digit. Digits that cannot lead
to a box (x1 < x2, y1 < y2, all from 0 to 1000, no leading zero) are never offered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

from differad_edge.errors import ModelIntegrityError
from differad_edge.geometry import GRID
from differad_edge.grounding import GridBox, format_answer, format_student_answer
from differad_edge.results import Verdict

__all__ = ["AnswerTokens", "BoxWriter", "answer_tokens"]

_SAMPLES: tuple[GridBox, ...] = ((1, 22, 333, 1000), (45, 6, 780, 999), (0, 0, 1, 5))
"""Boxes with digits of every kind before and after every stop."""


@dataclass(frozen=True)
class AnswerTokens:
    """Token ids of the grammar's parts.

    ``opening``: of <answer>, up to the verdict or the first digit; ``verdicts``: OK and NG, none where no verdict
    stands before the box; ``box_open``: between NG and the first digit; ``stops``: after x1, y1 and x2; ``close``:
    after y2, up to the description where one follows; ``digits``: of 0 to 9.
    """

    opening: tuple[int, ...]
    verdicts: tuple[int, int] | tuple[()]
    box_open: tuple[int, ...]
    stops: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    close: tuple[int, ...]
    digits: tuple[int, ...]

    @property
    def choices(self) -> tuple[int, ...]:
        """The tokens between which an answer decides: the rows of the restricted output head."""
        return tuple(dict.fromkeys((*self.verdicts, *self.digits, *(stop[0] for stop in (*self.stops, self.close)))))

    @property
    def longest(self) -> int:
        """Tokens of the longest answer, from the verdict to the description."""
        return 1 + len(self.box_open) + 4 * len(str(GRID)) + sum(map(len, self.stops)) + len(self.close)

    def box_tokens(self, box: GridBox) -> list[int]:
        """The tokens from after NG to the description."""
        found = list(self.box_open)
        for value, stop in zip(box, (*self.stops, self.close), strict=True):
            found += [self.digits[int(digit)] for digit in str(value)]
            found += stop
        return found


class BoxWriter:
    """A box that grows token by token. ``tokens``: those taken so far, forced ones among them.

    ``zero_box``: whether (0,0),(0,0) is an answer too, as it is where no verdict stands before the box.
    """

    def __init__(self, grammar: AnswerTokens, *, zero_box: bool = False) -> None:
        self._grammar, self._zero_box = grammar, zero_box
        self._numbers: tuple[int, ...] = ()
        self._written = ""
        self.tokens: tuple[int, ...] = grammar.box_open

    @property
    def box(self) -> GridBox | None:
        """x1, y1, x2, y2 in 0-1000 steps; None while it is not complete."""
        if len(self._numbers) < 4:
            return None
        x1, y1, x2, y2 = self._numbers
        return x1, y1, x2, y2

    @property
    def choices(self) -> list[int]:
        """The tokens of which one comes next; none once the box is complete."""
        if self.box is not None:
            return []
        allowed = [self._grammar.digits[digit] for digit in range(10) if self._may_begin(f"{self._written}{digit}")]
        if self._written and self._may_be(int(self._written)):
            allowed.append(self._stop[0])
        return allowed

    def take(self, token: int) -> None:
        """Go on with ``token``, one of ``choices``, and with all that is forced after it."""
        if token in self._grammar.digits:
            self.tokens += (token,)
            self._written += str(self._grammar.digits.index(token))
        else:
            self.tokens += self._stop
            self._numbers += (int(self._written),)
            self._written = ""

    def guess(self, draft: GridBox) -> BoxWriter:
        """A copy, completed as near to ``draft`` as what is taken so far allows."""
        guess = copy(self)
        while guess.choices:
            digits, at = str(draft[len(guess._numbers)]), len(guess._written)
            token = self._grammar.digits[int(digits[at])] if at < len(digits) else guess._stop[0]
            guess.take(token if token in guess.choices else guess.choices[-1])
        return guess

    @property
    def _stop(self) -> tuple[int, ...]:
        return (*self._grammar.stops, self._grammar.close)[len(self._numbers)]

    @property
    def _bounds(self) -> tuple[int, int]:
        """x2 and y2 lie beyond x1 and y1."""
        done = len(self._numbers)
        return (0, GRID - 1) if done < 2 else (self._numbers[done - 2] + 1, GRID)

    @property
    def _may_be_zero(self) -> bool:
        """Whether this is the second half of a zero box, or may become it."""
        return self._zero_box and len(self._numbers) > 1 and not any(self._numbers)

    def _may_be(self, number: int) -> bool:
        least, most = self._bounds
        if self._may_be_zero:
            return number == 0 or (len(self._numbers) == 2 and least <= number <= most)
        return least <= number <= most

    def _may_begin(self, text: str) -> bool:
        """Whether a number that is allowed here begins with ``text``."""
        if text[0] == "0":
            return text == "0" and self._may_be(0)
        if self._may_be_zero and len(self._numbers) == 3:
            return False
        least, most = self._bounds
        low = high = int(text)
        while low <= most:
            if high >= least:
                return True
            low, high = low * 10, high * 10 + 9
        return False


def answer_tokens(encode: Callable[[str], list[int]], *, verdict_first: bool = True) -> AnswerTokens:
    """Find the grammar's tokens as a tokenizer writes them in place; ``encode``: a text to token ids.

    Without ``verdict_first``, of an answer in the paper's format: its opening goes on to the first digit.

    Raises ModelIntegrityError for a tokenizer in which the verdicts or the digits are not single tokens, or in which
    what stands between them depends on the numbers.
    """
    digits = tuple(_single(encode, str(digit)) for digit in range(10))
    around = {_around_numbers(encode(_answer(box, verdict_first=verdict_first)), digits, box) for box in _SAMPLES}
    if len(around) > 1:
        raise ModelIntegrityError("tokenizer: what stands between the numbers of a box depends on the numbers")
    head, first, second, third, close = around.pop()
    if not (first and second and third and close):
        raise ModelIntegrityError("tokenizer: nothing stands between the numbers of a box")
    box_open: tuple[int, ...] = ()
    verdicts: tuple[int, int] | tuple[()] = ()
    if verdict_first:
        verdicts = ok, ng = _single(encode, Verdict.OK.value), _single(encode, Verdict.NG.value)
        if ng not in head or encode(format_student_answer(None))[: head.index(ng) + 1] != [*head[: head.index(ng)], ok]:
            raise ModelIntegrityError("tokenizer: OK and NG are not told apart by one token after <answer>")
        head, box_open = head[: head.index(ng)], head[head.index(ng) + 1 :]
    return AnswerTokens(
        opening=head, verdicts=verdicts, box_open=box_open, stops=(first, second, third), close=close, digits=digits
    )


def _answer(box: GridBox, *, verdict_first: bool) -> str:
    """Up to where words follow, or nothing."""
    return (
        format_student_answer(box, "").removesuffix("</think>")
        if verdict_first
        else format_answer(box, "").partition("</think>")[2]
    )


def _single(encode: Callable[[str], list[int]], text: str) -> int:
    ids = encode(text)
    if len(ids) != 1:
        raise ModelIntegrityError(f"tokenizer: {text!r} is {len(ids)} tokens, allowed: one")
    return ids[0]


def _around_numbers(ids: Sequence[int], digits: Sequence[int], box: GridBox) -> tuple[tuple[int, ...], ...]:
    """The tokens before, between and after the four numbers."""
    around, at = [], 0
    for number in box:
        start = at
        while at < len(ids) and ids[at] not in digits:
            at += 1
        around.append(tuple(ids[start:at]))
        written = [digits[int(digit)] for digit in str(number)]
        if list(ids[at : at + len(written)]) != written:
            raise ModelIntegrityError("tokenizer: the digits of a box are not one token each")
        at += len(written)
    return (*around, tuple(ids[at:]))
