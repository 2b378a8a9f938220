"""What was learned of a product from its good parts, and how its parts are judged by that."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.config import LearningConfig
from differad_edge.engines.appearance.features import WORK_AREA_PX, Describer
from differad_edge.engines.appearance.limits import Limits
from differad_edge.engines.appearance.memory import Maps, Memory, leave_one_out
from differad_edge.engines.appearance.pose import PoseFrame, find_outline, frame_of
from differad_edge.engines.appearance.regions import Growth, candidates_in, score_of, without_echoes
from differad_edge.engines.appearance.views import View, view_of
from differad_edge.engines.base import Evidence
from differad_edge.images import Image
from differad_edge.results import Reason

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline

__all__ = ["Learned", "evidence_in", "judge", "learn"]

_FEWEST_KEPT = 2  # whatever is allowed
# The boxes of both maps fit on parts of many kinds; a crack's filter answers have gaps.
_DEEP_GROWTH = Growth(least=0.78, share=0.65, bridge_cells=0)
_FINE_GROWTH = Growth(least=0.6, share=0.3, bridge_cells=2)

_UNLIKE = "unlike the good parts: {:.2f} times as far as any of them from the others"
_MARKED = "a line or spot {:.2f} times as strong as on any good part"


@dataclass(frozen=True)
class Learned:
    """``frame``: the parts' own frame, None where they are compared as they lie.

    ``left_out``: per good part, its score against the others; empty for one part. ``compare_ms``: measured of
    one comparison; None for one part.
    """

    frame: PoseFrame | None
    memory: Memory
    limits: Limits
    left_out: tuple[float, ...]
    compare_ms: float | None

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""
        return self.memory.nbytes

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays without Python objects."""
        frame, limits = self.frame, self.limits
        return {
            "deep": self.memory.deep.astype(np.float16),
            "limit": self.memory.limit,
            "deep_spread": limits.deep_spread,
            "fine_spread": limits.fine_spread,
            "limits": np.array([limits.calm, limits.deep, limits.fine], np.float64),
            "compare_ms": np.array(np.nan if self.compare_ms is None else self.compare_ms),
            "left_out": np.array(self.left_out, np.float64),
            "frame": np.array([] if frame is None else [*frame.lengthwise, *frame.crosswise, frame.zoom], np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Learned:
        """Undo `to_arrays`. Raises KeyError, ValueError or TypeError for anything else."""
        names = ("deep", "limit", "deep_spread", "fine_spread")
        deep, limit, deep_spread, fine_spread = (np.asarray(arrays[name], np.float32) for name in names)
        places = deep.shape[2:]
        if deep.ndim != 4 or limit.ndim != 3 or deep_spread.shape != places or fine_spread.shape != limit.shape[1:]:
            raise ValueError(f"memory of {deep.shape}, {limit.shape}, {deep_spread.shape}, {fine_spread.shape}")
        if not deep.size or not np.isfinite(deep).all():
            raise ValueError("memory without parts, or with values that are no numbers")
        # A limit that is not positive and finite would silence a map: parts would pass unseen.
        for name in ("limit", "deep_spread", "fine_spread", "limits"):
            if not (np.isfinite(arrays[name]).all() and (np.asarray(arrays[name]) > 0).all()):
                raise ValueError(f"{name}: not positive and finite everywhere")
        calm, deep_most, fine_most = (float(v) for v in arrays["limits"])
        frame = None
        if arrays["frame"].size:
            x1, x2, y1, y2, zoom = (float(v) for v in arrays["frame"])
            frame = PoseFrame((x1, x2), (y1, y2), zoom)
        compare_ms = float(arrays["compare_ms"])
        return cls(
            frame,
            Memory(deep, limit),
            Limits(calm, deep_spread, fine_spread, deep_most, fine_most),
            tuple(float(v) for v in arrays["left_out"]),
            None if math.isnan(compare_ms) else compare_ms,
        )


def learn(images: Sequence[Image], describer: Describer, allowed: LearningConfig) -> Learned:
    """Learn from two or more good parts, HxWx3 uint8 BGR each, of any sizes.

    Of more parts than are ``allowed`` those that differ most from each other are learned from. Every one is left out
    once and compared with the others: the largest distance found is the limit.
    """
    frame = frame_of([find_outline(image) for image in images], WORK_AREA_PX)
    views = [view_of(image, frame, describer.multiple) for image in images]
    described = [describer.describe(view.image) for view in views if view is not None]
    memory = Memory.of(described)
    memory.lay_out(describer)
    fitting = int(allowed.max_memory_mib * 2**20 / (memory.nbytes / len(described)))
    kept = _most_different(memory, max(_FEWEST_KEPT, min(allowed.max_good_parts, fitting)))
    if len(kept) < len(described):
        described = [described[index] for index in kept]
        memory = Memory.of(described)
    left_out = zip(leave_one_out(described), described, strict=True)
    limits, ratios = Limits.of([others.compare(part, describer) for others, part in left_out])
    learned = Learned(frame, memory, limits, tuple(score_of(ratio) for ratio in ratios), None)
    return replace(learned, compare_ms=_time_ms(learned, images[0], describer))


def judge(
    learned: Learned,
    image: Image,
    describer: Describer,
    *,
    ignore: NDArray[np.bool_] | None,
    deadline: Deadline | None,
) -> Evidence:
    """Compare one part, HxWx3 uint8 BGR of any size, as it lies. ``ignore``: HxW bool, True where nothing counts.

    A part of which no pose can be found, where the good parts have one, is incomplete evidence.
    """
    view = view_of(image, learned.frame, describer.multiple)
    if view is None:
        detail = "no part stands out from its background as on the good parts"
        return Evidence(0.0, reason=Reason.MISALIGNED.value, detail=detail)
    maps = learned.memory.compare(describer.describe(view.image, deadline), describer, deadline)
    return evidence_in(view, learned.limits.ratios(maps), ignore)


def evidence_in(view: View, ratios: Maps, ignore: NDArray[np.bool_] | None) -> Evidence:
    """What both maps, in units of the limit, say of the picture. ``ignore``: HxW bool of the picture, or None."""
    deep, fine = view.in_picture(ratios.deep), view.in_picture(ratios.fine)
    if ignore is not None:
        seen = cv2.resize(ignore.astype(np.float32), view.grid[::-1], interpolation=cv2.INTER_AREA) == 0
        deep, fine = deep * seen, fine * seen
    found = candidates_in(deep, view.size, _DEEP_GROWTH, _UNLIKE)
    found += candidates_in(fine, view.size, _FINE_GROWTH, _MARKED)
    ratio = np.maximum(deep, fine)
    return Evidence(score_of(float(ratio.max())), without_echoes(found), ratio / (1 + ratio))


def _time_ms(learned: Learned, image: Image, describer: Describer) -> float:
    judge(learned, image, describer, ignore=None, deadline=None)  # lays the memory out
    began = time.perf_counter()
    judge(learned, image, describer, ignore=None, deadline=None)
    return (time.perf_counter() - began) * 1e3


def _most_different(memory: Memory, most: int) -> list[int]:
    """At most ``most`` parts in their order, each farthest from those before it (greedy k-centre)."""
    if len(memory.deep) <= most:
        return list(range(len(memory.deep)))
    chosen, apart = [0], np.full(len(memory.deep), np.inf)
    while len(chosen) < most:
        apart = np.minimum(apart, np.square(memory.deep - memory.deep[chosen[-1]]).mean((1, 2, 3)))
        chosen.append(int(apart.argmax()))
    return sorted(chosen)
