"""How far good parts lie from each other, and a part's distance in units of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.appearance.memory import Maps

__all__ = ["Limits"]

Plane = NDArray[np.float32]

_CALM_QUANTILE = 0.9
_LEAST_ANSWER = 1e-3
_LEAST_CALM = 1 / 8  # of the usual: an even part must not be blown up without end
_EVEN_PARTS = 3.0  # how many parts' worth of belief that good parts vary alike at every place
_COPY = 0.25  # of the second largest distance: nearer than two different parts ever are
_LEAST_LIMIT = 0.1  # what noise reaches on parts without any structure
_FARTHEST = 1.5  # times as far as usual: what one good part may move the limit
_AROUND_DEEP, _AROUND_FINE = 4, 8  # cells, the same in px: what varies at a place varies nearby


@dataclass(frozen=True)
class Limits:
    """What good parts keep to. ``calm``: of fine answers, what nine tenths of a good part stay below.

    ``deep_spread`` (h, w), ``fine_spread`` (h', w'): how much good parts vary at each place, about 1 on average (the
    variation model of classical machine vision); ``deep``, ``fine``: the largest distance of a good part from the
    others, in units of the spread, but for one that lies far from all.
    """

    calm: float
    deep_spread: Plane
    fine_spread: Plane
    deep: float
    fine: float

    @classmethod
    def of(cls, left_out: Sequence[Maps]) -> tuple[Limits, tuple[float, ...]]:
        """From the maps of at least two good parts, each against the others: the limits, and the ratio of each part.

        A part's own map counts for its ratio and not for the spread that the ratio is measured in. A part that is there
        twice lies next to itself, says nothing of how far parts lie, and has the ratio 0.
        """
        copies = _copies_in(left_out)
        telling = [maps for maps, copy in zip(left_out, copies, strict=True) if not copy]
        calm = _calm_of(telling)
        deep = [maps.deep for maps in telling]
        fine = [_resized(_calmed(maps.fine, calm), telling[0].fine.shape) for maps in telling]
        deep_peaks, fine_peaks = _left_out_peaks(deep, _AROUND_DEEP), _left_out_peaks(fine, _AROUND_FINE)
        spreads = (_spread(deep, _AROUND_DEEP), _spread(fine, _AROUND_FINE))
        limits = cls(calm, *spreads, _largest(deep_peaks), _largest(fine_peaks))
        ratios = iter([max(d / limits.deep, f / limits.fine) for d, f in zip(deep_peaks, fine_peaks, strict=True)])
        return limits, tuple(0.0 if copy else next(ratios) for copy in copies)

    @classmethod
    def even(cls, maps: Maps, *, deep: float, fine: float) -> Limits:
        """The same limits at every place, for a single good part. ``maps``: of that part against itself, moved."""
        return cls(_calm_of([maps]), np.ones_like(maps.deep), np.ones_like(maps.fine), deep, fine)

    def ratios(self, maps: Maps) -> Maps:
        """Both maps in units of the limit: 1 is as far as the farthest good part."""
        deep = maps.deep / (self.deep_spread * np.float32(self.deep))
        fine = _calmed(maps.fine, self.calm) / _resized(self.fine_spread * np.float32(self.fine), maps.fine.shape)
        return Maps(deep, np.asarray(fine, np.float32))


def _left_out_peaks(planes: Sequence[Plane], around: int) -> list[float]:
    """The largest value of each plane in units of the spread of the others."""
    return [
        float((plane / _spread([*planes[:index], *planes[index + 1 :]] or [plane], around)).max())
        for index, plane in enumerate(planes)
    ]


def _largest(peaks: Sequence[float]) -> float:
    second, most = sorted([*peaks, 0.0])[-2:]
    # One that lies far from all others may be a bad part among the good ones: it does not set the limit alone.
    return max(_LEAST_LIMIT, min(most, max(second, _FARTHEST * float(np.median(peaks)))))


def _spread(planes: Sequence[Plane], around: int) -> Plane:
    """How far good parts lie around each place, drawn towards their median by how few parts there are."""
    even = max(float(np.median(planes)), 1e-6)
    widest = cv2.dilate(np.mean(planes, 0, dtype=np.float32), np.ones((2 * around + 1, 2 * around + 1), np.uint8))
    smooth = cv2.GaussianBlur(widest, (0, 0), around / 2)
    parts = len(planes)
    return np.asarray((smooth * parts / even + _EVEN_PARTS) / (parts + _EVEN_PARTS), np.float32)


def _copies_in(left_out: Sequence[Maps]) -> list[bool]:
    peaks = [float(maps.deep.max()) for maps in left_out]
    usual = sorted(peaks)[-2] or max(peaks)
    return [peak < _COPY * usual for peak in peaks]


def _calm_of(maps: Sequence[Maps]) -> float:
    # Not 0, where parts have no structure at all: it is what answers are measured in.
    return max(_LEAST_ANSWER, float(np.median([np.quantile(one.fine, _CALM_QUANTILE) for one in maps])))


def _calmed(fine: Plane, calm: float) -> Plane:
    """Filter answers as on a surface that is as rough as the good parts usually are: roughness is no defect."""
    rough = max(float(np.quantile(fine, _CALM_QUANTILE)), _LEAST_CALM * calm)
    return np.asarray(fine * (calm / rough), np.float32)


def _resized(plane: Plane, shape: tuple[int, ...]) -> Plane:
    if plane.shape == shape:
        return plane
    return np.asarray(cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
