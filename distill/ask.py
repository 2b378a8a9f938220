"""A student's answers in batches, under the engine's grammar: how training measures it.

transformers' own forward and cache, with the grammar as a logits processor; of the engine only the question's constants
and the grammar are used. That `EdgeInspector` gives the same answers is what a test holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from differad_edge.engines.vlm.grammar import AnswerTokens, BoxWriter
from differad_edge.engines.vlm.student import LEAST_VERDICT
from differad_edge.errors import TrainingError
from differad_edge.grounding import GridBox, format_student_answer, student_messages
from differad_edge.results import Verdict
from differad_edge.scoring import Outcome
from training.data import CanvasSource, Example, Source
from training.evaluate import outcome_of

if TYPE_CHECKING:
    from differad_edge.engines.vlm.load import LoadedStudent
    from differad_edge.engines.vlm.questions import Question

__all__ = ["StudentAnswer", "ask_student", "evaluate_student"]


@dataclass(frozen=True, slots=True)
class StudentAnswer:
    """``box``: on the 0-1000 grid of the canvas, for NG. ``ng``: 0 to 1, between the two verdicts.

    UNDECIDED where the model gives neither verdict, as the engine has it.
    """

    verdict: Verdict
    box: GridBox | None
    ng: float

    @property
    def text(self) -> str:
        """The answer as text, without the words; nothing for UNDECIDED."""
        return "" if self.verdict is Verdict.UNDECIDED else format_student_answer(self.box)


def ask_student(student: LoadedStudent, examples: Sequence[Example]) -> list[StudentAnswer]:
    """Answers to examples that lie on the student's canvas (`CanvasSource`), in one batch.

    Raises TrainingError where the processor writes another question than the engine asks.
    """
    import torch
    from PIL import Image
    from transformers import LogitsProcessorList

    question, processor = student.question, student.processor
    # The question of the engine goes on to the verdict: what the grammar opens with is not asked for.
    text = processor.apply_chat_template(student_messages(), add_generation_prompt=True) + "<answer>"
    inputs = processor(
        images=[[Image.fromarray(one.reference), Image.fromarray(one.target)] for one in examples],
        text=[text] * len(examples),
        return_tensors="pt",
    ).to(student.weights.device)
    wanted = question.layout.token_ids(question.image_token)
    if inputs["input_ids"][0].tolist() != wanted:
        got = inputs["input_ids"].shape[1]
        raise TrainingError(f"question: the processor writes {got} tokens, other than the engine's {len(wanted)}")
    guide = _Guide(question, processor.tokenizer.eos_token_id)
    with torch.inference_mode():
        ids = student.weights.generate(
            **inputs,
            max_new_tokens=question.grammar.longest + 1,
            do_sample=False,
            logits_processor=LogitsProcessorList([guide]),
        )
    return [
        _read(row, question.grammar, logits)
        for row, logits in zip(ids[:, len(wanted) :].tolist(), guide.verdicts, strict=True)
    ]


def evaluate_student(
    student: LoadedStudent, source: Source, *, batch: int = 64, progress: Callable[[int, int], None] | None = None
) -> list[Outcome]:
    """Ask about every example of ``source``; outcomes in units of the 0-1000 grid of the canvas."""
    seen = CanvasSource(source, student.question.layout.size)
    outcomes: list[Outcome] = []
    student.weights.eval()
    for start in range(0, len(seen), batch):
        examples = [seen[index] for index in range(start, min(start + batch, len(seen)))]
        answers = ask_student(student, examples)
        outcomes += [outcome_of(answer.text, one, "pair") for answer, one in zip(answers, examples, strict=True)]
        if progress is not None:
            progress(len(outcomes), len(seen))
    return outcomes


class _Guide:
    """A logits processor that leaves only what the grammar allows; ``verdicts``: what the model thought of those."""

    def __init__(self, question: Question, end: int) -> None:
        self._grammar, self._length, self._end = question.grammar, question.layout.length, end
        self.verdicts: list[tuple[float, float]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if not self.verdicts:
            verdicts = list(self._grammar.verdicts)
            both, every = scores[:, verdicts].double(), scores.double().logsumexp(-1)
            either = (both.logsumexp(-1) - every).exp()
            ng = (both[:, 1] - both[:, 0]).sigmoid()
            self.verdicts = list(zip(ng.tolist(), either.tolist(), strict=True))
        masked = scores.new_full(scores.shape, -math.inf)
        for row, written in enumerate(input_ids[:, self._length :].tolist()):
            allowed = _allowed(written, self._grammar) or [self._end]
            masked[row, allowed] = scores[row, allowed]
        return masked


def _writer(rest: Sequence[int], grammar: AnswerTokens) -> BoxWriter:
    """The box as far as ``rest``, the tokens after NG, has come."""
    writer = BoxWriter(grammar)
    while writer.choices and len(rest) > len(writer.tokens):
        writer.take(rest[len(writer.tokens)])
    return writer


def _verdicts(grammar: AnswerTokens) -> tuple[int, int]:
    assert grammar.verdicts  # a student's grammar has them
    return grammar.verdicts


def _allowed(written: Sequence[int], grammar: AnswerTokens) -> list[int]:
    """What may come next; none where the answer is complete."""
    if not written:
        return list(grammar.verdicts)
    ok, _ = _verdicts(grammar)
    if written[0] == ok:
        return []
    rest = written[1:]
    writer = _writer(rest, grammar)
    return writer.choices if len(rest) >= len(writer.tokens) else [writer.tokens[len(rest)]]


def _read(written: Sequence[int], grammar: AnswerTokens, verdict: tuple[float, float]) -> StudentAnswer:
    ng, either = verdict
    if either < LEAST_VERDICT:
        return StudentAnswer(Verdict.UNDECIDED, None, ng)
    if ng < 0.5:
        return StudentAnswer(Verdict.OK, None, ng)
    return StudentAnswer(Verdict.NG, _writer(written[1:], grammar).box, ng)
