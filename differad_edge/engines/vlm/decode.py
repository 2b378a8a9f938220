"""Reading the student's answer off a runner: the verdict first, then a box, then words, each only where it is wanted.

The verdict costs nothing: it is the first token after the question, whose probabilities come with the question's own
pass. A box costs one pass for each digit that is free. A box drafted by another engine is checked in a single pass
(speculation, lossless up to rounding: that pass sums in another order): where the model would have written the same
digits they are taken over, from the first other one on it writes its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from differad_edge.engines.vlm.grammar import AnswerTokens, BoxWriter
from differad_edge.engines.vlm.runner import Floats, Runner
from differad_edge.errors import EngineError
from differad_edge.grounding import GridBox

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline

__all__ = ["Opinion", "Words", "WrittenBox", "read_verdict", "write_box", "write_words"]

_THOUGHT_CLOSE = "</think>"
_LATENESS_MS = 5.0  # left before a deadline for what comes after the words


@dataclass(frozen=True)
class Opinion:
    """What the model makes of a part. ``ng``: 0 to 1, of the two verdicts; ``either``: that it gives one at all."""

    ng: float
    either: float


@dataclass(frozen=True)
class WrittenBox:
    """``box``: x1, y1, x2, y2 in 0-1000 steps of the canvas; (0, 0, 0, 0) only where that is an answer.

    ``probability``: 0 to 1, the geometric mean over the tokens that were free. ``unread``: the tokens that the model
    has not read yet, forced ones up to the description, the first at index ``at``; ``passes``: how often it was asked.
    ``choices``: the tokens that were free; ``margins``: how far the logit of each lies above that of the second best.
    ``spoken``: 0 to 1, the probability that any of the allowed tokens comes first, where no verdict was asked for.
    """

    box: GridBox
    probability: float
    unread: tuple[int, ...]
    at: int
    passes: int
    choices: tuple[int, ...]
    margins: tuple[float, ...]
    spoken: float


@dataclass(frozen=True)
class Words:
    """``text``: up to </think>; ``broken``: why it did not come to that, or None; the rest as in WrittenBox."""

    text: str
    broken: Literal["deadline", "endless"] | None
    unread: tuple[int, ...]
    at: int


def read_verdict(runner: Runner, verdicts: tuple[int, int], hidden: Floats) -> Opinion:
    """The verdict in the last hidden state of the question; ``verdicts``: the tokens of OK and NG.

    Raises EngineError for logits that are no numbers.
    """
    logits = _finite(runner.logits(hidden))
    ok, ng = (float(logits[token]) for token in verdicts)
    # Of the two alone, from their difference: both may be too small for a ratio.
    return Opinion(1.0 / (1.0 + math.exp(min(700.0, ok - ng))), _share(logits, verdicts))


def _share(logits: Floats, tokens: Sequence[int]) -> float:
    """The probability of any of ``tokens``, of all that the model may say."""
    every = np.exp(logits.astype(np.float64) - logits.max())
    return min(1.0, float(every[list(tokens)].sum() / every.sum()))


def write_box(
    runner: Runner,
    grammar: AnswerTokens,
    *,
    lead: Sequence[int],
    at: int,
    zero_box: bool = False,
    draft: GridBox | None = None,
    deadline: Deadline | None = None,
) -> WrittenBox:
    """Write a box after ``lead``, tokens not read yet of which the first has the index ``at``.

    ``zero_box``: (0,0),(0,0) is an answer, and with it the verdict. Raises DeadlineExceeded, and EngineError for logits
    that are no numbers.
    """
    writer = BoxWriter(grammar, zero_box=zero_box)
    rows = {token: row for row, token in enumerate(grammar.choices)}
    read: list[int] = []
    states: list[Floats] = []  # after each token of ``read``
    total, passes, spoken = 0.0, 0, 1.0
    choices: list[int] = []
    margins: list[float] = []
    while allowed := writer.choices:
        if len(allowed) == 1:
            writer.take(allowed[0])
            continue
        written = [*lead, *writer.tokens]
        known = _shared(read, written)
        if known < len(written):
            if deadline is not None:
                deadline.check()
            ahead = written if draft is None else [*lead, *writer.guess(draft).tokens[: -len(grammar.close)]]
            read[known:], states[known:] = ahead[known:], runner.advance(ahead[known:], at + known)
            passes += 1
        if zero_box and not choices:
            # The grammar would make a zero box, which is OK, of whatever the model says instead.
            spoken = _share(_finite(runner.logits(states[len(written) - 1])), allowed)
        every = _finite(runner.logits(states[len(written) - 1], grammar.choices))
        logits = every[[rows[token] for token in allowed]].astype(np.float64)
        best = int(logits.argmax())
        total -= math.log(np.exp(logits - logits[best]).sum())
        choices.append(allowed[best])
        margins.append(float(logits[best] - np.delete(logits, best).max()))
        writer.take(allowed[best])
    assert writer.box is not None
    written = [*lead, *writer.tokens]
    known = _shared(read, written)
    return WrittenBox(
        box=writer.box,
        probability=math.exp(total / max(1, len(choices))),
        unread=tuple(written[known:]),
        at=at + known,
        passes=passes,
        choices=tuple(choices),
        margins=tuple(margins),
        spoken=spoken,
    )


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    both = min(len(one), len(other))
    return next((n for n in range(both) if one[n] != other[n]), both)


def write_words(
    runner: Runner,
    *,
    tokens: Sequence[int],
    at: int,
    decode: Callable[[Sequence[int]], str],
    stop: frozenset[int],
    max_new_tokens: int,
    deadline: Deadline | None = None,
) -> Words:
    """Write freely up to </think>, greedily, after ``tokens``, not read yet, the first at index ``at``.

    ``decode``: token ids to text; ``stop``: tokens that end any answer. Breaks off where the next token would come too
    late. Raises EngineError for logits that are no numbers.
    """
    said: list[int] = []
    ahead = list(tokens)
    slowest_ms = 0.0
    for _ in range(max_new_tokens):
        if at + len(ahead) > runner.layout.capacity:
            break
        if deadline is not None and deadline.remaining_ms < 2 * slowest_ms + _LATENESS_MS:
            return Words(decode(said), "deadline", tuple(ahead), at)
        began = time.perf_counter()
        token = int(_finite(runner.logits(runner.advance(ahead, at)[-1])).argmax())
        slowest_ms = max(slowest_ms, (time.perf_counter() - began) * 1e3)
        if token in stop:
            break
        at += len(ahead)
        said.append(token)
        ahead = [token]
        text, closed, _ = decode(said).partition(_THOUGHT_CLOSE)
        if closed:
            return Words(text.strip(), None, tuple(ahead), at)
    return Words(decode(said), "endless", tuple(ahead), at)


def _finite(logits: Floats) -> Floats:
    if not np.isfinite(logits).all():
        raise EngineError("the model's logits are not finite numbers: its weights or its precision are broken")
    return logits
