"""The engine "vlm" for a student: its reference was read at registration, its verdict comes first.

For each part: one vision encode and one pass over the tail of the question, whose last logits are the verdict; for NG a
box under the grammar, then words as far as the deadline leaves time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.base import Candidate, Evidence, Learning, ReferenceView
from differad_edge.engines.covering import covered
from differad_edge.engines.grounded import LEAST_PROBABILITY
from differad_edge.engines.vlm.box_head import BoxHead
from differad_edge.engines.vlm.canvas import Placement, draw_on_canvas
from differad_edge.engines.vlm.decode import Words, read_verdict, write_box, write_words
from differad_edge.engines.vlm.questions import Question
from differad_edge.engines.vlm.runner import Floats, Runner
from differad_edge.engines.vlm.shelf import Shelf
from differad_edge.errors import DeadlineExceeded, EngineError, IncompatibleReferenceError
from differad_edge.geometry import clip_box
from differad_edge.grounding import PROMPT_VERSION, GridBox
from differad_edge.results import Reason

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline
    from differad_edge.images import Image
    from differad_edge.results import Box

__all__ = ["StudentEngine", "StudentPrepared", "StudentReference"]

LEAST_VERDICT = 0.5
"""Probability of either verdict, or of any box, below which the model does not speak the language of the answer."""
BOX_SHARE = 0.1
"""Of a score above one half that depends on the box: a large defect without sharp edges must not score low."""
BOX_FROM = 0.1
"""Probability of NG from which a box is written, for thresholds that are lower than the default."""


@dataclass(frozen=True)
class StudentReference:
    """One golden sample.

    ``key``: of its picture; ``arrays``: what the runner keeps of it; ``look``: its vision features.
    """

    key: str
    arrays: dict[str, NDArray[Any]]
    look: NDArray[np.float16]


@dataclass(frozen=True)
class StudentPrepared:
    """``ignore``: HxW bool, where differences do not count, or None."""

    references: tuple[StudentReference, ...]
    ignore: NDArray[np.bool_] | None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, by the number of the reference."""
        arrays: dict[str, NDArray[Any]] = {} if self.ignore is None else {"ignore": self.ignore}
        for number, one in enumerate(self.references):
            arrays |= {f"{number}.kept.{name}": array for name, array in one.arrays.items()}
            arrays |= {f"{number}.look": one.look, f"{number}.key": np.frombuffer(bytes.fromhex(one.key), np.uint8)}
        return arrays

    @property
    def bytes(self) -> int:
        """Held in the memory of the host."""
        return sum(array.nbytes for array in self.to_arrays().values())


class StudentEngine:
    """Asks a student through a runner. ``identity``: of weights and precision, a part of the fingerprint.

    ``to_text``: token ids to text; ``describes``: whether NG parts are put into words; ``box_head``: whose queries the
    runner reads with the question, so that a box need not be written digit by digit; it changes no answer.

    The score of a part is the probability of NG between the two verdicts. A box tells a little more: what reaches one
    half is ranked by how certain its digits are, within BOX_SHARE of what the verdict gives it.
    """

    name = "vlm"
    default_threshold = 0.5

    def __init__(
        self,
        runner: Runner,
        question: Question,
        *,
        identity: str,
        to_text: Callable[[Sequence[int]], str],
        max_new_tokens: int,
        describes: bool = True,
        references_bytes: float = math.inf,
        box_head: BoxHead | None = None,
    ) -> None:
        self._runner, self._question = runner, question
        self._to_text, self._max_new_tokens = to_text, max_new_tokens
        self._describes, self._box_head = describes, box_head
        self._shelf = Shelf(references_bytes)
        layout, size = question.layout, question.layout.size
        settings = {
            "engine": self.name,
            "model": identity,
            "prompt": [question.order, PROMPT_VERSION, layout.before, layout.between, layout.after],
            "answer": list(question.grammar.choices),
            "size": [size.width_px, size.height_px, size.fit],
            "tokens": max_new_tokens,
        }
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def prepare(self, references: Sequence[ReferenceView]) -> StudentPrepared:
        """Read every reference once. Raises IncompatibleReferenceError when there is none."""
        if not references:
            raise IncompatibleReferenceError("references: got none, allowed: at least one")
        ignore = None if references[0].valid is None else ~references[0].valid
        return StudentPrepared(tuple(self._read(view, ignore) for view in references), ignore)

    def restore(self, arrays: dict[str, NDArray[Any]]) -> StudentPrepared:
        """Undo ``StudentPrepared.to_arrays``. Raises EngineError for anything else."""
        found: list[StudentReference] = []
        while f"{len(found)}.look" in arrays:
            start, kept_at = f"{len(found)}.", f"{len(found)}.kept."
            kept = {name.removeprefix(kept_at): array for name, array in arrays.items() if name.startswith(kept_at)}
            key = arrays.get(f"{start}key")
            if key is None or key.shape != (hashlib.sha256().digest_size,) or key.dtype != np.uint8:
                raise EngineError("prepared reference: not written by this engine")
            reference = StudentReference(key.tobytes().hex(), kept, arrays[f"{start}look"])
            self._runner.check_prefix(kept)
            found.append(reference)
        if not found:
            raise EngineError("prepared reference: not written by this engine")
        return StudentPrepared(tuple(found), arrays.get("ignore"))

    def learning(self, prepared: StudentPrepared) -> Learning:
        """Nothing is learned from good parts but which of them a part is most like."""
        return Learning("asked", len(prepared.references), (), None, prepared.bytes, None)

    def needs_alignment(self, prepared: StudentPrepared, *, misfit: bool) -> bool:
        """Never: the model was trained on pairs as they lie."""
        return False

    def compare(
        self,
        prepared: StudentPrepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
        draft: Box | None = None,
    ) -> Evidence:
        """Compare one part; see :class:`differad_edge.engines.base.Engine`, and `compare_as_it_lies` for ``draft``."""
        ignore = None if valid is None else ~valid
        return self.compare_as_it_lies(prepared, covered(target, ignore), deadline=deadline, draft=draft)

    def compare_as_it_lies(
        self,
        prepared: StudentPrepared,
        target: Image,
        *,
        deadline: Deadline | None = None,
        draft: Box | None = None,
    ) -> Evidence:
        """Ask about one part.

        An ignore mask is painted over in both images; it counts for targets of the reference's size alone. ``draft``: a
        box in pixels of the target that may be right; the answer is the same without it, up to rounding, and comes
        later. A box head's own goes before it: that one sees what this model sees.
        """
        ignore = prepared.ignore
        if ignore is not None and ignore.shape != target.shape[:2]:
            detail = f"the frame has {target.shape[1]}x{target.shape[0]} px, allowed with an ignore mask: "
            detail += f"{ignore.shape[1]}x{ignore.shape[0]} px"
            return Evidence(0.0, reason=Reason.MISALIGNED.value, detail=detail)
        canvas, placement = draw_on_canvas(covered(target, ignore), self._question.layout.size)
        features = self._runner.encode(canvas)
        reference = self._nearest(prepared, features)
        self._runner.load(self._shelf.get(reference.key, lambda: self._restored(reference)))
        if deadline is not None:
            deadline.check()
        hidden = self._runner.read(features)
        if deadline is not None:
            deadline.check()
        if self._question.order == "trained":
            return self._thought_first(placement, deadline)
        drafted = None if draft is None else clip_box(draft, target.shape[1], target.shape[0])
        return self._answer(hidden, placement, None if drafted is None else placement.grid_box(drafted), deadline)

    def _answer(
        self, hidden: Floats, placement: Placement, draft: GridBox | None, deadline: Deadline | None
    ) -> Evidence:
        """The answer of a student, which gives its verdict first."""
        question = self._question
        verdicts = question.grammar.verdicts
        assert verdicts  # a student's grammar has them
        opinion = read_verdict(self._runner, verdicts, hidden[0])
        if opinion.either < LEAST_VERDICT:
            detail = f"the model answers OK or NG with a probability of {opinion.either:.3g} only"
            return Evidence(0.0, reason=Reason.UNPARSABLE_ANSWER.value, detail=f"{detail}: it is no trained student")
        if opinion.ng < BOX_FROM:
            return Evidence(opinion.ng)
        if self._box_head is not None:
            draft = self._box_head.box(hidden[1:])
        written = write_box(
            self._runner,
            question.grammar,
            lead=verdicts[1:],
            at=question.layout.length,
            draft=draft,
            deadline=deadline,
        )
        if deadline is not None:
            deadline.check()
        certain = 1.0 - BOX_SHARE * (1.0 - written.probability)
        score = opinion.ng if opinion.ng < 0.5 else 0.5 + (opinion.ng - 0.5) * certain
        words = None
        if self._describes and opinion.ng >= self.default_threshold:
            words = self._words(written.unread, written.at, deadline)
        return _grounded(placement, written.box, score, words.text if words is not None and not words.broken else "")

    def _thought_first(self, placement: Placement, deadline: Deadline | None) -> Evidence:
        """The answer of a teacher, which thinks before it gives a box or the zero box."""
        question = self._question
        thought = self._words(question.think_open, question.layout.length, deadline)
        if thought.broken == "deadline":
            raise DeadlineExceeded("the model was still thinking when its time was up")
        if thought.broken is not None:
            detail = f"no end of the thought within {self._max_new_tokens} tokens: {thought.text[-80:]!r}"
            return Evidence(0.0, reason=Reason.UNPARSABLE_ANSWER.value, detail=detail)
        lead = (*thought.unread, *question.grammar.opening)
        written = write_box(self._runner, question.grammar, lead=lead, at=thought.at, zero_box=True, deadline=deadline)
        if deadline is not None:
            deadline.check()
        if written.spoken < LEAST_VERDICT:
            detail = f"the model begins a box with a probability of {written.spoken:.3g} only"
            return Evidence(0.0, reason=Reason.UNPARSABLE_ANSWER.value, detail=detail)
        sure = max(LEAST_PROBABILITY, written.probability)
        if not any(written.box):
            return Evidence(0.5 - sure / 2)
        return _grounded(placement, written.box, 0.5 + sure / 2, thought.text)

    def _words(self, tokens: Sequence[int], at: int, deadline: Deadline | None) -> Words:
        return write_words(
            self._runner,
            tokens=tokens,
            at=at,
            decode=self._to_text,
            stop=self._question.stop,
            max_new_tokens=self._max_new_tokens,
            deadline=deadline,
        )

    def _read(self, view: ReferenceView, ignore: NDArray[np.bool_] | None) -> StudentReference:
        image = view.image if view.as_it_lies is None else view.as_it_lies
        canvas, _ = draw_on_canvas(covered(image, ignore), self._question.layout.size)
        features = self._runner.encode(canvas)
        prefix = self._runner.make_prefix(_key(canvas), features)
        self._shelf.get(prefix.key, lambda: prefix)
        look = self._runner.pooled(features).astype(np.float16)
        return StudentReference(prefix.key, self._runner.save_prefix(prefix), look)

    def _restored(self, reference: StudentReference) -> Any:
        return self._runner.restore_prefix(reference.key, reference.arrays)

    def _nearest(self, prepared: StudentPrepared, features: Any) -> StudentReference:
        """The reference whose vision features are most like the part's, place by place."""
        if len(prepared.references) == 1:
            return prepared.references[0]
        part = _directions(self._runner.pooled(features))
        likeness = [float((_directions(one.look.astype(np.float32)) * part).sum()) for one in prepared.references]
        return prepared.references[int(np.argmax(likeness))]


def _grounded(placement: Placement, grid: GridBox, score: float, words: str) -> Evidence:
    box = placement.box_px(grid)
    if box is None:
        detail = f"the model's box {grid} lies beside the picture"
        return Evidence(score, reason=Reason.UNPARSABLE_ANSWER.value, detail=detail)
    return Evidence(score, (Candidate(box, score, description=words or None),))


def _directions(look: Floats) -> Floats:
    length = np.linalg.norm(look, axis=1, keepdims=True)
    return np.asarray(look / np.maximum(length, 1e-6), np.float32)


def _key(canvas: Image) -> str:
    return hashlib.sha256(canvas.tobytes()).hexdigest()
