"""What a single golden sample tells of parts that differ from it all over, or cannot be laid over it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.appearance.features import Described, Describer
from differad_edge.engines.appearance.learned import Learned, evidence_in, judge
from differad_edge.engines.appearance.limits import Limits
from differad_edge.engines.appearance.memory import SMOOTH_DEEP_CELLS, Maps, Memory
from differad_edge.engines.appearance.views import View, view_of
from differad_edge.engines.base import ENOUGH_GOOD_PARTS, Evidence
from differad_edge.images import Image
from differad_edge.results import Reason

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline

__all__ = ["Sample"]

Plane = NDArray[np.float32]

_MOVES = (
    (1 / 2, 1 / 2),
    (1 / 3, 1 / 4),
    (2 / 3, 1 / 4),
    (1 / 4, 2 / 3),
    (3 / 4, 1 / 3),
    (1 / 2, 0),
    (0, 1 / 2),
    (0.4, 0.6),
)
_TURNS = 8
# One part does not show how far others lie. These are wide on purpose, in units of what the part itself shows.
_UNLIKE_ITSELF, _UNLIKE_TURNED, _FINE_LIMIT = 1.3, 1.25, 2.5
_TEXTURE = 1.0  # nine tenths of its places have their like elsewhere
_MOST_UNLIKE = 0.25  # of the picture: a defect is somewhere, another product is everywhere
_PLACES_AT_ONCE = 1024

_CANNOT_TELL = f"and one sample cannot tell whether good parts do; register {ENOUGH_GOOD_PARTS} good parts"


@dataclass(frozen=True)
class Sample:
    """``placed``: what it looks like place by place, with limits from how unlike its own places are; ``texture``: it
    looks the same all over; ``turned``: (C, M) float32, its places in all directions, ``turned_limit``: how far a place
    may be from the nearest of them."""

    placed: Learned
    texture: bool
    turned: NDArray[np.float32]
    turned_limit: float

    @classmethod
    def of(cls, image: Image, describer: Describer) -> Sample:
        """``image``: HxWx3 uint8 BGR."""
        view = view_of(image, None, describer.multiple)
        assert view is not None
        part = describer.describe(view.image)
        away = Memory.of([_moved(part, *move) for move in _MOVES]).compare(part, describer)
        unlike = float(np.quantile(away.deep, 0.9))
        limits = Limits.even(away, deep=_UNLIKE_ITSELF * unlike, fine=_FINE_LIMIT)
        turns = [describer.describe(_turned(view.image, 360 / _TURNS * turn)).deep for turn in range(_TURNS)]
        # Every other place of each: between them they show all there is.
        turned = np.concatenate(
            [deep[:, turn % 2 :: 2, turn // 2 % 2 :: 2].reshape(len(deep), -1) for turn, deep in enumerate(turns)], 1
        )
        between = describer.describe(_turned(view.image, 180 / _TURNS)).deep
        limit = _UNLIKE_TURNED * float(_nearest(turned, between).max())
        memory = Memory.of([part])
        memory.lay_out(describer)
        return cls(Learned(None, memory, limits, (), None), unlike <= _TEXTURE, turned, limit)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays without Python objects."""
        return {
            "sample_turned": self.turned.astype(np.float16),
            "sample_facts": np.array([self.texture, self.turned_limit], np.float64),
            **{f"placed_{name}": array for name, array in self.placed.to_arrays().items()},
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Sample:
        """Undo `to_arrays`. Raises KeyError, ValueError or TypeError for anything else."""
        placed = {name.removeprefix("placed_"): array for name, array in arrays.items() if name.startswith("placed_")}
        texture, turned_limit = (float(v) for v in arrays["sample_facts"])
        learned, turned = Learned.from_arrays(placed), np.asarray(arrays["sample_turned"], np.float32)
        if turned.ndim != 2 or len(turned) != learned.memory.deep.shape[1]:
            raise ValueError(f"places of {turned.shape} beside {learned.memory.deep.shape}")
        return cls(learned, texture > 0, turned, turned_limit)

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""
        return self.placed.nbytes + self.turned.nbytes

    def judge_in_place(
        self, image: Image, describer: Describer, ignore: NDArray[np.bool_] | None, deadline: Deadline | None
    ) -> Evidence:
        """A part that lies over the sample and differs all over: a defect where it is unlike it, else a doubt."""
        view, part = self._described(image, describer, deadline)
        ratios = self.placed.limits.ratios(self.placed.memory.compare(part, describer, deadline))
        if self.texture:
            return evidence_in(view, ratios, ignore)
        turned = self._unlike_turned(part, deadline)
        # The one that is surer; together they would only blur where.
        deep = turned if turned.max() > ratios.deep.max() else ratios.deep
        evidence = evidence_in(view, Maps(deep, ratios.fine), ignore)
        return _doubted(evidence, "the part differs all over from the only golden sample")

    def judge_anywhere(
        self, image: Image, describer: Describer, ignore: NDArray[np.bool_] | None, deadline: Deadline | None
    ) -> Evidence:
        """A part that cannot be laid over the sample: a defect where it is unlike all of it, else a doubt.

        Where it is unlike nearly everywhere it is another product, or another view of it: misaligned.
        """
        if self.texture:
            return judge(self.placed, image, describer, ignore=ignore, deadline=deadline)
        view, part = self._described(image, describer, deadline)
        deep = self._unlike_turned(part, deadline)
        if float((deep >= 1).mean()) > _MOST_UNLIKE:
            return Evidence(0.0, reason=Reason.MISALIGNED.value, detail="the part resembles the golden sample nowhere")
        evidence = evidence_in(view, Maps(deep, np.zeros_like(deep)), ignore)
        return _doubted(evidence, "the part lies otherwise than the only golden sample")

    def _described(self, image: Image, describer: Describer, deadline: Deadline | None) -> tuple[View, Described]:
        view = view_of(image, None, describer.multiple)
        assert view is not None
        return view, describer.describe(view.image, deadline)

    def _unlike_turned(self, part: Described, deadline: Deadline | None) -> Plane:
        return np.asarray(_nearest(self.turned, part.deep, deadline) / np.float32(self.turned_limit), np.float32)


def _doubted(evidence: Evidence, what: str) -> Evidence:
    return replace(
        evidence,
        reason=Reason.ONE_REFERENCE.value,
        detail=f"{what}, {_CANNOT_TELL}",
        only_below_threshold=True,
    )


def _moved(part: Described, up: float, left: float) -> Described:
    rows, columns = part.deep.shape[1:]
    shift = (round(rows * up), round(columns * left))
    return Described(np.roll(part.deep, shift, (1, 2)), np.roll(part.fine, (2 * shift[0], 2 * shift[1]), (1, 2)))


def _turned(image: Image, degrees: float) -> Image:
    if degrees == 0:
        return image
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)


def _nearest(known: NDArray[np.float32], deep: NDArray[np.float32], deadline: Deadline | None = None) -> Plane:
    """(h, w): distance of each place of (C, h, w) to the nearest of the places ``known`` (C, M)."""
    places = deep.reshape(len(deep), -1).T
    lengths = np.einsum("cm,cm->m", known, known)
    squared = np.empty(len(places), np.float32)
    for start in range(0, len(places), _PLACES_AT_ONCE):
        if deadline is not None:
            deadline.check()
        some = places[start : start + _PLACES_AT_ONCE]
        squared[start : start + len(some)] = (lengths - 2 * (some @ known)).min(1) + np.einsum("pc,pc->p", some, some)
    distance = np.sqrt(np.maximum(squared, 0)).reshape(deep.shape[1:])
    return np.asarray(cv2.GaussianBlur(distance, (0, 0), SMOOTH_DEEP_CELLS), np.float32)
