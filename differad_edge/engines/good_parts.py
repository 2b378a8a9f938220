"""What the embedded engine found out about a product's good parts, and what follows for comparing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.config import LearningConfig
from differad_edge.engines.appearance.features import Describer
from differad_edge.engines.appearance.learned import Learned, judge, learn
from differad_edge.engines.appearance.sample import Sample
from differad_edge.engines.base import AT_THE_LIMIT, Evidence, Learning
from differad_edge.images import Image

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline

__all__ = ["Alike", "GoodParts", "Single", "Unlike", "good_parts_from"]

# A part has a defect; another part differs all over: in a large share of the picture, or at many places.
_ALL_OVER, _MOST_OF_IT, _SOME_PLACES, _MANY_PLACES = 0.1, 0.2, 4, 20


class Single:
    """One golden sample: parts are compared with it place by place, and where that says nothing, by what it shows."""

    def __init__(self, image: Image | None, sample: Sample | None, describer: Describer) -> None:
        self._image, self._sample, self._describer = image, sample, describer
        if sample is not None:
            sample.placed.memory.lay_out(describer)

    @property
    def sample(self) -> Sample:
        """What it shows; found out when it is first asked for, for most pairs never need it."""
        if self._sample is None:
            assert self._image is not None
            self._sample, self._image = Sample.of(self._image, self._describer), None
        return self._sample

    def may_be_another(self, evidence: Evidence, threshold: float) -> bool:
        """Whether the part differs from the sample all over: maybe no defect, but another good part."""
        if evidence.heatmap is None or evidence.score < threshold:
            return False
        places = sum(candidate.score >= threshold for candidate in evidence.candidates)
        share = float((evidence.heatmap >= threshold).mean())
        return share >= _MOST_OF_IT or places >= (_SOME_PLACES if share >= _ALL_OVER else _MANY_PLACES)

    def judge_in_place(self, image: Image, ignore: NDArray[np.bool_] | None, deadline: Deadline | None) -> Evidence:
        """Judge a part that differs all over; see `Sample`."""
        return self.sample.judge_in_place(image, self._describer, ignore, deadline)

    def judge_as_it_lies(self, image: Image, ignore: NDArray[np.bool_] | None, deadline: Deadline | None) -> Evidence:
        """Judge a part that cannot be laid over the sample; see `Sample`."""
        return self.sample.judge_anywhere(image, self._describer, ignore, deadline)

    def learning(self, difference_bytes: int) -> Learning:
        """``difference_bytes``: what is held for comparing place by place."""
        held = difference_bytes + (0 if self._sample is None else self._sample.nbytes)
        return Learning("aligned", 1, (), None, held, None)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays without Python objects."""
        return self.sample.to_arrays()


@dataclass(frozen=True)
class Alike:
    """Several good parts that are the same picture, but for small things: ``scores`` of each, left out, place by place.

    ``compare_ms``: the slowest of those comparisons.
    """

    scores: tuple[float, ...]
    compare_ms: float

    def learning(self, difference_bytes: int) -> Learning:
        """``difference_bytes``: what is held for comparing place by place."""
        # Each part was left out once: the next one is as likely as any of them to be the worst.
        rate = 1 / (len(self.scores) + 1)
        return Learning("aligned", len(self.scores), self.scores, rate, difference_bytes, self.compare_ms)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays without Python objects."""
        return {"alike_scores": np.array(self.scores, np.float64), "alike_ms": np.array(self.compare_ms)}


class Unlike:
    """Several good parts that are not the same picture: parts are compared with what good parts look like."""

    def __init__(self, learned: Learned, describer: Describer) -> None:
        self._learned, self._describer = learned, describer
        learned.memory.lay_out(describer)  # not in the time of the first part

    @classmethod
    def of(cls, images: Sequence[Image], describer: Describer, limits: LearningConfig) -> Unlike:
        """``images``: HxWx3 uint8 BGR, two or more."""
        return cls(learn(images, describer, limits), describer)

    def judge_as_it_lies(self, image: Image, ignore: NDArray[np.bool_] | None, deadline: Deadline | None) -> Evidence:
        """Judge a part as it lies; see `Learned`."""
        return judge(self._learned, image, self._describer, ignore=ignore, deadline=deadline)

    def learning(self, difference_bytes: int) -> Learning:
        """``difference_bytes``: what is held for comparing place by place, which is nothing here."""
        learned = self._learned
        way = "appearance" if learned.frame is None else "posed"
        # Two maps, each with a limit of its own, and what lies beyond it already.
        beyond = sum(score > AT_THE_LIMIT for score in learned.left_out)
        rate = min(1.0, (2 + beyond) / (len(learned.left_out) + 1))
        return Learning(
            way, len(learned.left_out), learned.left_out, rate, difference_bytes + learned.nbytes, learned.compare_ms
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays without Python objects."""
        return {f"unlike_{name}": array for name, array in self._learned.to_arrays().items()}


GoodParts = Single | Alike | Unlike


def good_parts_from(arrays: dict[str, NDArray[Any]], describer: Describer) -> GoodParts:
    """Undo `to_arrays` of any of them. Raises KeyError, ValueError or TypeError for anything else."""
    if "alike_scores" in arrays:
        return Alike(tuple(float(v) for v in arrays["alike_scores"]), float(arrays["alike_ms"]))
    unlike = {name.removeprefix("unlike_"): array for name, array in arrays.items() if name.startswith("unlike_")}
    if unlike:
        return Unlike(Learned.from_arrays(unlike), describer)
    return Single(None, Sample.from_arrays(arrays), describer)
