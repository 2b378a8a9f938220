"""What good parts look like at each place, and how far a part is from all of them.

Two maps, each with its own idea of "far":

- deep: the distance of a place's features to the nearest ones that any good part shows nearby (a memory of patch
  features after PatchCore, Roth et al. 2022, held to its place);
- fine: how much more a line or spot filter answers than on any good part nearby, or anywhere on a usual good part (the
  variation model of classical machine vision, on filter answers in place of grey levels).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.appearance.features import Described, Describer

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline

__all__ = ["SMOOTH_DEEP_CELLS", "Maps", "Memory", "leave_one_out"]

Plane = NDArray[np.float32]
Planes = NDArray[np.float32]

_NEARBY_FINE = 3  # fine cells that good parts shift and grow
_USUAL_QUANTILE = 0.9995  # of a good part's answers: the strongest that is no freak
_SILENT = 0.004  # an answer of the filters below this is noise on an even surface
SMOOTH_DEEP_CELLS = 1.0
"""Standard deviation of the smoothing of distances: one odd cell is noise."""
_SMOOTH_FINE_CELLS = 0.7


@dataclass(frozen=True)
class Maps:
    """``deep``: (h, w) float32 distances; ``fine``: (h', w') float32, 1 where a good part's strongest answer lies."""

    deep: Plane
    fine: Plane


@dataclass
class Memory:
    """``deep``: (N, C, h, w) float32 of N good parts; ``limit``: (F, 2h, 2w) float32, what each filter may answer."""

    deep: NDArray[np.float32]
    limit: NDArray[np.float32]
    _index: NDArray[np.float32] | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, good: Sequence[Described]) -> Memory:
        """Parts of other sizes are stretched over the first one."""
        return cls(_stacked(good), _limit([Tolerated.of(part) for part in good]))

    @property
    def nbytes(self) -> int:
        """Bytes held, with the layout in which good parts are looked through."""
        return self.deep.nbytes + self.limit.nbytes + (0 if self._index is None else self._index.nbytes)

    def lay_out(self, describer: Describer) -> NDArray[np.float32]:
        """The layout in which good parts are looked through; made once."""
        if self._index is None:
            self._index = describer.index(self.deep)
        return self._index

    def compare(self, part: Described, describer: Describer, deadline: Deadline | None = None) -> Maps:
        """How far ``part`` is from the good parts at each place.

        A part of another size is stretched over them; its filter answers stay as they are, for they would be flattened.
        """
        nearest = describer.nearest(self.lay_out(describer), _resized(part.deep, self.deep.shape[2:]), deadline)
        deep = cv2.GaussianBlur(nearest, (0, 0), SMOOTH_DEEP_CELLS)
        limit = _resized(self.limit, part.fine.shape[1:])
        fine = cv2.GaussianBlur((part.fine / limit).max(0), (0, 0), _SMOOTH_FINE_CELLS)
        return Maps(np.asarray(deep, np.float32), np.asarray(fine, np.float32))


@dataclass(frozen=True)
class Tolerated:
    """What one good part allows the others: ``usual`` (F,) anywhere, ``nearby`` (F, 2h, 2w) at each place."""

    usual: NDArray[np.float32]
    nearby: Planes

    @classmethod
    def of(cls, part: Described) -> Tolerated:
        """``nearby``: the strongest answer of each filter within _NEARBY_FINE cells."""
        kernel = np.ones((2 * _NEARBY_FINE + 1, 2 * _NEARBY_FINE + 1), np.uint8)
        usual = np.quantile(part.fine.reshape(len(part.fine), -1), _USUAL_QUANTILE, 1).astype(np.float32)
        return cls(usual, np.stack([np.asarray(cv2.dilate(plane, kernel), np.float32) for plane in part.fine]))


def leave_one_out(good: Sequence[Described]) -> Iterator[Memory]:
    """For each good part the memory of the others; at least two."""
    allowed, deep = [Tolerated.of(part) for part in good], _stacked(good)
    for index in range(len(good)):
        yield Memory(np.delete(deep, index, 0), _limit(allowed[:index] + allowed[index + 1 :]))


def _stacked(good: Sequence[Described]) -> NDArray[np.float32]:
    stacked = np.stack([_resized(part.deep, good[0].deep.shape[1:]) for part in good])
    # As it is kept: a score must not change by what was read back.
    return stacked.astype(np.float16).astype(np.float32)


def _limit(allowed: Sequence[Tolerated]) -> Planes:
    """What is strong somewhere on most good parts is no find elsewhere, what is strong on one of them is none there."""
    usual = np.median([part.usual for part in allowed], 0) + _SILENT
    shape = allowed[0].nearby.shape[1:]
    limit = np.maximum.reduce([_resized(part.nearby, shape) for part in allowed])
    return np.maximum(limit, usual[:, None, None]).astype(np.float32)


def _resized(planes: Planes, size: tuple[int, ...]) -> Planes:
    """(C, h, w) to (C, *size)."""
    if planes.shape[1:] == size:
        return planes
    return np.stack([np.asarray(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)) for plane in planes])
