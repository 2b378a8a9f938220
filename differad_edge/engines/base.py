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

__all__ = ["Candidate", "Deadline", "Engine", "Evidence", "Prepared", "ReferenceView"]


@dataclass(frozen=True)
class ReferenceView:
    """One reference as an engine sees it: already cut to its region of interest.

    ``image``: HxWx3 uint8 BGR; ``valid``: HxW bool, False where differences are to be ignored, None for nowhere;
    ``sha256``: hex, of the stored reference.
    """

    image: Image
    valid: NDArray[np.bool_] | None
    sha256: str


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
    ``reason``: not None says that the comparison is incomplete and why; such evidence never leads to OK.
    """

    score: float
    candidates: tuple[Candidate, ...] = ()
    heatmap: NDArray[np.float32] | None = None
    reason: str | None = None


@runtime_checkable
class Prepared(Protocol):
    """What an engine keeps of a product's references."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays without Python objects: it is cached as .npz and read with allow_pickle=False."""
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
        """Do all the work that depends on the references alone. All of them have one shape."""
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
