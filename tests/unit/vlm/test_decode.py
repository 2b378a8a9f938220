"""The answer: jump-forward and drafts change nothing but the number of passes, and nothing goes on for ever."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from students import GRAMMAR, picture, question, student

from differad_edge.deadline import Deadline
from differad_edge.engines.vlm.decode import read_verdict, write_box, write_words
from differad_edge.engines.vlm.grammar import BoxWriter
from differad_edge.engines.vlm.runner import Floats
from differad_edge.engines.vlm.torch_runner import TorchRunner
from differad_edge.errors import DeadlineExceeded, EngineError
from differad_edge.grounding import GridBox

LEAD = GRAMMAR.verdicts[1:]


def asked(seed: int) -> tuple[TorchRunner, Floats]:
    """A random model that has read a random question."""
    runner = TorchRunner(student(seed), question(64, seed=seed))
    runner.load(runner.make_prefix("r", runner.encode(picture(seed, 64))))
    return runner, runner.read(runner.encode(picture(seed + 1000, 64)))[0]


def token_by_token(runner: Any, zero_box: bool) -> GridBox:
    """The plain way: every token, forced or not, in a pass of its own."""
    writer, at = BoxWriter(GRAMMAR, zero_box=zero_box), runner.layout.length
    read = 0
    while writer.choices:
        for token in [*LEAD, *writer.tokens][read:]:
            hidden = runner.advance([token], at + read)[0]
            read += 1
        logits = runner.logits(hidden)
        writer.take(max(writer.choices, key=lambda token: logits[token]))
    assert writer.box is not None
    return writer.box


def drafts(box: GridBox, draw: random.Random) -> Iterator[GridBox]:
    yield box
    yield tuple(min(1000, max(0, side + draw.randint(-4, 4))) for side in box)  # type: ignore[misc]
    yield 0, 0, 1000, 1000
    yield tuple(draw.randint(0, 1000) for _ in range(4))  # type: ignore[misc]


@pytest.mark.slow
def test_jumping_and_drafting_give_the_plain_answer() -> None:
    """200 models and inputs, drafts that are right, near, far and random."""
    plain_passes, drafted_passes = 0, 0
    for seed in range(200):
        runner, _ = asked(seed)
        zero_box = seed % 2 == 1
        options: dict[str, Any] = {"lead": LEAD, "at": runner.layout.length, "zero_box": zero_box}
        plain = write_box(runner, GRAMMAR, **options)
        assert plain.box == token_by_token(runner, zero_box)
        assert 0 < plain.probability <= 1
        plain_passes += plain.passes
        for number, draft in enumerate(drafts(plain.box, random.Random(seed))):
            drafted = write_box(runner, GRAMMAR, draft=draft, **options)
            assert drafted.box == plain.box
            assert drafted.probability == pytest.approx(plain.probability, abs=1e-5)
            assert drafted.passes <= plain.passes
            if number == 0:
                assert drafted.passes == 1
                drafted_passes += 1
    assert plain_passes > 5 * drafted_passes


def test_words_go_on_from_any_box() -> None:
    for seed in range(5):
        runner, _ = asked(seed)
        said = []
        for draft in (None, (0, 0, 1000, 1000), (5, 5, 6, 6)):
            box = write_box(runner, GRAMMAR, lead=LEAD, at=runner.layout.length, draft=draft)
            said.append(words(runner, tokens=box.unread, at=box.at))
        assert said[0] == said[1] == said[2]
        assert said[0].broken is None
        assert len(said[0].text.split()) == 6


def words(runner: Any, **options: Any) -> Any:
    given: dict[str, Any] = {
        "decode": lambda ids: " ".join(map(str, ids)) + ("</think>" if len(ids) > 5 else ""),
        "stop": frozenset(),
        "max_new_tokens": 20,
    }
    return write_words(runner, **given | options)


def test_words_without_an_end_are_broken_off() -> None:
    runner, _ = asked(0)
    start: dict[str, Any] = {"tokens": (43,), "at": runner.layout.length}
    endless = words(runner, decode=lambda ids: "x" * len(ids), **start)
    assert (endless.broken, endless.text) == ("endless", "x" * 20)
    full = words(runner, decode=lambda ids: "x" * len(ids), max_new_tokens=10_000, **start)
    assert full.broken == "endless"
    assert len(full.text) == runner.layout.capacity - runner.layout.length
    stopped = words(runner, stop=frozenset(range(1000)), **start)
    assert (stopped.broken, stopped.text) == ("endless", "")
    late = words(runner, deadline=Deadline.after_ms(1), **start)
    assert late.broken == "deadline"


def test_a_deadline_ends_a_box() -> None:
    runner, _ = asked(0)
    deadline = Deadline.after_ms(0.001)
    with pytest.raises(DeadlineExceeded):
        write_box(runner, GRAMMAR, lead=LEAD, at=runner.layout.length, deadline=deadline)


def test_the_verdict_is_that_of_the_two_tokens() -> None:
    runner, hidden = asked(3)
    logits = runner.logits(hidden).astype(np.float64)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    ok, ng = (shares[token] for token in GRAMMAR.verdicts)
    opinion = read_verdict(runner, GRAMMAR.verdicts, hidden)  # type: ignore[arg-type]
    assert opinion.ng == pytest.approx(ng / (ok + ng), rel=1e-6)
    assert opinion.either == pytest.approx(ok + ng, rel=1e-6)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    runner, hidden = asked(0)
    broken = np.full_like(hidden, np.nan)
    with pytest.raises(EngineError, match="not finite numbers"):
        read_verdict(runner, GRAMMAR.verdicts, broken)  # type: ignore[arg-type]
    runner.advance = lambda tokens, at: np.full((len(tokens), 64), np.inf, np.float32)  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="not finite numbers"):
        write_box(runner, GRAMMAR, lead=LEAD, at=runner.layout.length)
