"""What an engine is: it prepares references once and compares parts with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from differad_edge.deadline import Deadline
from differad_edge.images import Image
from differad_edge.results import Box

__all__ = [
    "AT_THE_LIMIT",
    "ENOUGH_GOOD_PARTS",
    "Candidate",
    "ComparesAsItLies",
    "Deadline",
    "Engine",
    "Evidence",
    "Learning",
    "Prepared",
    "ReferenceView",
    "needs_alignment",
]


ENOUGH_GOOD_PARTS = 10
"""Good parts from which products that vary are told from defects; more bring fewer false rejects."""

AT_THE_LIMIT = 0.5 + 1e-6
"""Score of the farthest good part, and what rounding adds."""
_WAYS = {
    "aligned": "which are alike and compared place by place",
    "appearance": "which are not the same picture and are compared by what each place looks like",
    "posed": "which lie in any direction and are turned upright, then compared by what each place looks like",
}


@dataclass(frozen=True)
class ReferenceView:
    """One reference as an engine sees it: already cut to its region of interest.

    ``image``: HxWx3 uint8 BGR; ``valid``: HxW bool, False where differences are to be ignored, None for nowhere;
    ``sha256``: hex, of the stored reference. ``as_it_lies``: the same reference before it was aligned to the first one,
    None where that is ``image``; ``aligned``: False where it could not be aligned, and ``image`` is as it lies.
    """

    image: Image
    valid: NDArray[np.bool_] | None
    sha256: str
    as_it_lies: Image | None = None
    aligned: bool = True


@dataclass(frozen=True)
class Candidate:
    """A place that may differ. ``box``: pixels of the compared image, in the reference's frame; ``score``: 0 to 1.

    ``mask``: bool of the box's integer extent (floor of x1, y1 to ceil of x2, y2), or None.
    """

    box: Box
    score: float
    mask: NDArray[np.bool_] | None = None
    description: str | None = None


@dataclass(frozen=True)
class Evidence:
    """All that an engine says about one part; it decides nothing.

    ``score``: 0 to 1 for the whole image, higher is worse. It is not checked here: a score that is not finite
    must reach the decision, which turns it into a result with a reason.
    ``candidates``: strongest first. ``heatmap``: HxW float32, 0 to 1, in the reference's frame, or None.
    ``reason``: not None says that the comparison is incomplete and why; such evidence never leads to OK. ``detail``:
    the same in a sentence, for people. ``only_below_threshold``: the reason holds for a part that is not NG by its
    score: what was seen is a defect, or nothing can be told.
    """

    score: float
    candidates: tuple[Candidate, ...] = ()
    heatmap: NDArray[np.float32] | None = None
    reason: str | None = None
    detail: str | None = None
    only_below_threshold: bool = False


@runtime_checkable
class Prepared(Protocol):
    """What an engine keeps of a product's references."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays without Python objects: it is cached as .npz and read with allow_pickle=False."""
        ...


@dataclass(frozen=True)
class Learning:
    """What an engine found out about a product from its good parts, at registration.

    ``way``: how parts are compared, as people call it: "aligned" (place by place with the golden sample), "appearance"
    (as they lie, with what good parts look like), "posed" (the same, in the part's own frame), "asked" (a language
    model is). ``good_parts``: how many were learned from. ``left_out_scores``: the score of each when it alone was left
    out, () for one part. ``false_reject_rate``: what to expect of good parts, 0 to 1; None where one part cannot tell.
    ``memory_bytes``: held for this product; ``compare_ms``: measured for one comparison with it, None where none was
    made.
    """

    way: str
    good_parts: int
    left_out_scores: tuple[float, ...]
    false_reject_rate: float | None
    memory_bytes: int
    compare_ms: float | None

    @property
    def doubtful(self) -> tuple[int, ...]:
        """Which good parts, counted from 1, would be rejected beside the others: they may be none."""
        # At the limit lies the worst of any good parts.
        return tuple(n for n, score in enumerate(self.left_out_scores, 1) if score > AT_THE_LIMIT)

    def statement(self) -> str:
        """In a sentence or two, for the line engineer."""
        if self.way == "asked":
            return "a language model is shown the first golden sample and the part; it learns nothing from good parts"
        if self.false_reject_rate is None:
            return (
                "one golden sample, compared place by place; it cannot tell how good parts differ from each other: "
                f"register {ENOUGH_GOOD_PARTS} good parts, and the engine finds out"
            )
        words = f"{self.good_parts} good parts, {_WAYS.get(self.way, self.way)}; expect about "
        words += f"{self.false_reject_rate:.0%} of good parts to be rejected at the default threshold (the more good "
        words += "parts, the fewer)"
        if self.good_parts < ENOUGH_GOOD_PARTS and self.way != "aligned":
            words += f"; {ENOUGH_GOOD_PARTS} good parts would settle it"
        if self.doubtful:
            words += f"; far from all others: good part {', '.join(map(str, self.doubtful))}, look whether it is good"
        return words


@runtime_checkable
class ComparesAsItLies(Protocol):
    """What an engine adds that can do without alignment, where good parts are not the same picture."""

    def learning(self, prepared: Any) -> Learning:
        """What was found out about the product."""
        ...

    def needs_alignment(self, prepared: Any, *, misfit: bool) -> bool:
        """Whether parts of this product must be aligned first.

        ``misfit``: the part at hand could not be; False then says that it may be compared as it lies all the same.
        """
        ...

    def compare_as_it_lies(
        self,
        prepared: Any,
        target: Image,
        *,
        deadline: Deadline | None = None,
    ) -> Evidence:
        """Compare one part, HxWx3 uint8 BGR of any size; candidates are in its own pixels. See `Engine.compare`."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Compares parts with prepared references. One instance is used by one thread at a time."""

    @property
    def name(self) -> str:
        """Short name, as in ``EdgeInspector(engine=name)``."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 hex over the weights and every setting that changes an output: the key of the prepared cache."""
        ...

    @property
    def default_threshold(self) -> float:
        """Score, 0 to 1, from which a part is NG as long as its product is not calibrated."""
        ...

    def prepare(self, references: Sequence[ReferenceView]) -> Prepared:
        """Do all the work that depends on the references alone; of one shape, unless it ComparesAsItLies."""
        ...

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Prepared:
        """Undo ``Prepared.to_arrays``. Raises EngineError for arrays that this engine did not write."""
        ...

    # ``prepared`` is Any so that an engine may name its own class here; it is only ever given its own.
    def compare(
        self,
        prepared: Any,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        """Compare one part, HxWx3 uint8 BGR, aligned to the reference's frame and of the reference's size.

        ``valid``: HxW bool, False where the target shows nothing of the part (outside its frame after alignment).
        Raises DeadlineExceeded when ``deadline`` passes before the comparison is complete.
        """
        ...


def needs_alignment(engine: Engine, prepared: object, *, misfit: bool) -> bool:
    """Whether parts of a product must be aligned for ``engine``; see :class:`ComparesAsItLies`."""
    return not isinstance(engine, ComparesAsItLies) or engine.needs_alignment(prepared, misfit=misfit)
