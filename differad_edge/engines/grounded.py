"""Engines that ask a language model where a part differs from its golden sample, and read its answer.

Reference and target are shown as they lie, in their own sizes (the protocol of the paper). What asks is a subclass: a
model in this process, or a server.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.base import Candidate, Evidence, Learning, ReferenceView
from differad_edge.engines.covering import covered
from differad_edge.errors import AnswerError, EngineError, IncompatibleReferenceError
from differad_edge.grounding import BASELINE_PROMPT, EVALUATION_PROMPT, PROMPT_VERSION, STUDENT_PROMPT, parse_answer
from differad_edge.results import Reason

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline
    from differad_edge.images import Image

__all__ = [
    "LEAST_PROBABILITY",
    "PROMPTS",
    "GroundedEngine",
    "GroundedPrepared",
    "PromptName",
    "Said",
    "answer_probability",
]

PromptName = Literal["student", "trained", "general"]
PROMPTS: dict[PromptName, str] = {
    "student": STUDENT_PROMPT,
    "trained": EVALUATION_PROMPT,
    "general": BASELINE_PROMPT,
}
"""For a student, for a model trained in the paper's format, and for any other, which must be told it in full."""

LEAST_PROBABILITY = 1e-6  # keeps an OK of no probability below the threshold, on its side of it


@dataclass(frozen=True)
class Said:
    """A model's answer. ``probability``: of what stands in its answer tags, 0 to 1; None where it is not known."""

    text: str
    probability: float | None = None


@dataclass(frozen=True)
class GroundedPrepared:
    """The first golden sample, HxWx3 uint8 BGR, and where differences do not count: HxW bool, or None."""

    reference: Image
    ignore: NDArray[np.bool_] | None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Both, as they are."""
        return {"reference": self.reference} | ({} if self.ignore is None else {"ignore": self.ignore})


class GroundedEngine(ABC):
    """Asks about each part; see the module.

    ``model``: what identifies the weights, a part of the fingerprint. ``prompt``: None for "trained".

    Scores: 0.5 + p/2 for a box and 0.5 - p/2 for none, with p the probability of the answer (1 where it is not known).
    """

    name = "grounded"
    default_threshold = 0.5

    def __init__(self, *, model: str, prompt: PromptName | None, max_new_tokens: int) -> None:
        prompt = "trained" if prompt is None else prompt
        self.prompt = PROMPTS[prompt]
        self.text_first = prompt == "student"
        self.max_new_tokens = max_new_tokens
        settings = {"engine": self.name, "model": model, "prompt": [prompt, PROMPT_VERSION], "tokens": max_new_tokens}
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @abstractmethod
    def ask(self, reference: Image, target: Image, deadline: Deadline | None) -> Said:
        """The model's answer to ``self.prompt`` about two HxWx3 uint8 BGR images.

        Raises DeadlineExceeded, and EngineError where no answer came.
        """

    def prepare(self, references: Sequence[ReferenceView]) -> GroundedPrepared:
        """Keep the first reference: one is asked about. Raises IncompatibleReferenceError when there is none."""
        if not references:
            raise IncompatibleReferenceError("references: got none, allowed: at least one")
        first = references[0]
        ignore = None if first.valid is None else ~first.valid
        image = first.image if first.as_it_lies is None else first.as_it_lies
        return GroundedPrepared(covered(image, ignore), ignore)

    def restore(self, arrays: dict[str, NDArray[Any]]) -> GroundedPrepared:
        """Undo ``GroundedPrepared.to_arrays``. Raises EngineError for anything else."""
        reference, ignore = arrays.get("reference"), arrays.get("ignore")
        if reference is None or reference.dtype != np.uint8 or reference.ndim != 3 or reference.shape[2] != 3:
            raise EngineError("prepared reference: not written by this engine")
        if ignore is not None and (ignore.dtype != np.bool_ or ignore.shape != reference.shape[:2]):
            raise EngineError(f"prepared reference: ignore mask of {ignore.shape} {ignore.dtype}")
        return GroundedPrepared(reference, ignore)

    def learning(self, prepared: GroundedPrepared) -> Learning:
        """Nothing is learned from good parts."""
        return Learning("asked", 1, (), None, prepared.reference.nbytes, None)

    def needs_alignment(self, prepared: GroundedPrepared, *, misfit: bool) -> bool:
        """Never: the model was trained on pairs as they lie."""
        return False

    def compare(
        self,
        prepared: GroundedPrepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        """Compare one part; see :class:`differad_edge.engines.base.Engine`."""
        ignore = None if valid is None else ~valid
        return self.compare_as_it_lies(prepared, covered(target, ignore), deadline=deadline)

    def compare_as_it_lies(
        self, prepared: GroundedPrepared, target: Image, *, deadline: Deadline | None = None
    ) -> Evidence:
        """Ask, and read the answer. One that cannot be parsed is evidence of nothing, with the reason.

        An ignore mask is painted over in both images; it counts for targets of the reference's size alone.
        """
        ignore = prepared.ignore
        if ignore is not None and ignore.shape != target.shape[:2]:
            detail = f"the frame has {target.shape[1]}x{target.shape[0]} px, allowed with an ignore mask: "
            detail += f"{ignore.shape[1]}x{ignore.shape[0]} px"
            return Evidence(0.0, reason=Reason.MISALIGNED.value, detail=detail)
        said = self.ask(prepared.reference, covered(target, ignore), deadline)
        if deadline is not None:
            deadline.check()
        return evidence_of(said, target.shape[1], target.shape[0])


def evidence_of(said: Said, width: int, height: int) -> Evidence:
    """The evidence in an answer about a target of ``width`` x ``height`` px."""
    try:
        answer = parse_answer(said.text)
    except AnswerError as error:
        return Evidence(0.0, reason=Reason.UNPARSABLE_ANSWER.value, detail=f"{error.reason}: {error}")
    sure = 1.0 if said.probability is None else min(1.0, max(LEAST_PROBABILITY, said.probability))
    box = answer.box_px(width, height)
    if box is None:
        return Evidence(0.5 - sure / 2)
    score = 0.5 + sure / 2
    return Evidence(score, (Candidate(box, score, description=answer.thought or None),))


def answer_probability(pieces: Iterable[tuple[str, float]]) -> float | None:
    """The geometric mean of the probabilities of the tokens inside the first <answer> tags.

    ``pieces``: each token's text and natural log-probability, in order. None where no token lies between the tags, or
    a log-probability is not a number from minus infinity to 0.
    """
    listed = list(pieces)
    text = "".join(piece for piece, _ in listed)
    start, end = text.find("<answer>"), text.find("</answer>")
    if start < 0 or end <= start + len("<answer>"):
        return None
    start += len("<answer>")
    inside, at = [], 0
    for piece, value in listed:
        if at < end and at + len(piece) > start:
            inside.append(value)
        at += len(piece)
    if not inside or any(math.isnan(value) or value > 1e-6 for value in inside):
        return None
    return min(1.0, math.exp(sum(inside) / len(inside)))
