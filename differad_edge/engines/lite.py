"""The embedded engine: a difference network where good parts are one picture, their appearance where they are not.

Which of both is found out in `prepare`, from the good parts themselves. It runs on ONNX Runtime, on any CPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.config import LearningConfig
from differad_edge.engines.appearance.features import Describer
from differad_edge.engines.base import Evidence, Learning, ReferenceView
from differad_edge.engines.covering import covered
from differad_edge.engines.difference import (
    DifferenceNetwork,
    Features,
    Known,
    Ranges,
    Tile,
    known_from,
    ranges_of,
)
from differad_edge.engines.good_parts import Alike, GoodParts, Single, Unlike, good_parts_from
from differad_edge.engines.heatmap import HeatmapRule
from differad_edge.engines.lite_model import Detail, choose_providers, fingerprint_of, read_model
from differad_edge.errors import EngineError, IncompatibleReferenceError
from differad_edge.images import Image
from differad_edge.results import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from differad_edge.deadline import Deadline

__all__ = ["Detail", "LiteEngine", "LitePrepared", "Tile"]


@dataclass(frozen=True)
class LitePrepared:
    """What is known of a product.

    ``size``: (width, height) of the references in px. ``ranges``: what they show, by tile and scale, and ``known``: the
    same for the compare graph; both are empty where parts are compared as they lie. ``ignore``: HxW bool, True where no
    difference counts, or None. ``good``: what was found out about the good parts.
    """

    size: tuple[int, int]
    ranges: Ranges
    known: Known
    ignore: NDArray[np.bool_] | None
    good: GoodParts

    @property
    def difference_bytes(self) -> int:
        """Bytes held for comparing place by place."""
        kept = sum(array.nbytes for tile in self.ranges for array in tile)
        return kept + sum(array.nbytes for tile in self.known for array in tile)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Ranges of values as float16; the ranges nearby follow from them and are not kept."""
        arrays: dict[str, NDArray[Any]] = {"size": np.array(self.size, np.int32), **self.good.to_arrays()}
        if self.ignore is not None:
            arrays["ignore"] = self.ignore
        for tile, values in enumerate(self.ranges):
            arrays |= {f"tile{tile}_{index}": value for index, value in enumerate(values)}
        return arrays


class LiteEngine:
    """Compare parts with golden samples on ONNX Runtime.

    ``threads``: of one comparison, None for ONNX Runtime's choice. ``providers``: execution providers in order of
    preference, None for CUDA where this ONNX Runtime has it and the CPU otherwise. ``model_folder``: another folder
    with `lite.json` and its graphs than the one that is shipped. ``rule``, ``detail``, ``learning``: None for the
    defaults.

    Raises ModelIntegrityError when a model file is missing or differs from its SHA-256, EngineError when ONNX Runtime
    refuses to load it.
    """

    name = "lite"

    def __init__(
        self,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        model_folder: Path | None = None,
        rule: HeatmapRule | None = None,
        detail: Detail | None = None,
        learning: LearningConfig | None = None,
    ) -> None:
        import onnxruntime

        model = read_model(model_folder)
        self.rule = rule if rule is not None else HeatmapRule()
        self.detail = detail if detail is not None else Detail()
        self.default_threshold = model.default_threshold
        self.providers = choose_providers(onnxruntime, providers)
        self._limits = learning if learning is not None else LearningConfig()
        self._network = DifferenceNetwork(model, threads, self.providers, self.rule, self.detail)
        self._describer = Describer(threads, self.providers)
        self.fingerprint = fingerprint_of({**model.graphs, **self._describer.graphs}, self.rule, self.detail)

    def prepare(self, references: Sequence[ReferenceView]) -> LitePrepared:
        """Find out how parts of this product are best compared, and prepare for that.

        Where each of several references, left out, passes as good beside the others, place by place, that is how parts
        are compared: what any reference shows is no difference. Otherwise good parts are not the same picture, and
        parts are compared with what good parts look like.

        Raises IncompatibleReferenceError when there is no reference, EngineError for a mask of another size.
        """
        if not references:
            raise IncompatibleReferenceError("references: got none, allowed: at least one")
        first = references[0]
        shape = first.image.shape[:2]
        size = (shape[1], shape[0])
        _check_mask(first.valid, shape, "reference: valid")
        ignore = None if first.valid is None else ~first.valid
        if all(view.aligned and view.image.shape == first.image.shape for view in references):
            for view in references[1:]:
                _check_mask(view.valid, shape, "reference: valid")
                if view.valid is not None:
                    ignore = ~view.valid if ignore is None else ignore | ~view.valid
            encoded = [self._network.encode(view.image) for view in references]
            ranges = ranges_of(encoded)
            good: Single | Alike | None
            if len(references) == 1:
                good = Single(covered(first.image, ignore), None, self._describer)
            else:
                good = self._alike(references, encoded, ignore)
            if good is not None:
                return LitePrepared(size, ranges, known_from(ranges), ignore, good)
        images = [covered(view.image if view.as_it_lies is None else view.as_it_lies, ignore) for view in references]
        return LitePrepared(size, (), (), ignore, Unlike.of(images, self._describer, self._limits))

    def _alike(
        self, references: Sequence[ReferenceView], encoded: Sequence[list[Features]], ignore: NDArray[np.bool_] | None
    ) -> Alike | None:
        """Leave each reference out once; None where one would be rejected, for they are not the same picture."""
        scores, slowest_ms = [], 0.0
        for index, view in enumerate(references):
            others = known_from(ranges_of([features for place, features in enumerate(encoded) if place != index]))
            began = time.perf_counter()
            scores.append(self._network.compare(others, view.image, ignore, None).score)
            slowest_ms = max(slowest_ms, (time.perf_counter() - began) * 1e3)
        return Alike(tuple(scores), slowest_ms) if max(scores) < self.default_threshold else None

    def restore(self, arrays: dict[str, NDArray[Any]]) -> LitePrepared:
        """Undo ``LitePrepared.to_arrays``. Raises EngineError for anything else."""
        try:
            width, height = (int(v) for v in arrays["size"])
            good = good_parts_from(arrays, self._describer)
            count = 0 if isinstance(good, Unlike) else len(self._network.tiles_of(width, height))
            scales = 2 * self._network.scales
            ranges = tuple(tuple(arrays[f"tile{tile}_{index}"] for index in range(scales)) for tile in range(count))
            ignore = arrays.get("ignore")
            if ignore is not None and (ignore.shape != (height, width) or ignore.dtype != np.bool_):
                raise ValueError(f"ignore mask of {ignore.shape} {ignore.dtype}")
            return LitePrepared((width, height), ranges, known_from(ranges), ignore, good)
        except (KeyError, ValueError, TypeError) as error:
            raise EngineError(f"prepared features: not written by this engine: {error}") from error

    def compare(
        self,
        prepared: LitePrepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        """Compare one part; see :class:`differad_edge.engines.base.Engine`.

        ``target`` has the references' size. Past the deadline ONNX Runtime is stopped between two layers.
        """
        good = prepared.good
        if isinstance(good, Unlike):
            return self.compare_as_it_lies(prepared, target, deadline=deadline)
        size = (target.shape[1], target.shape[0])
        if size != prepared.size:
            raise EngineError(f"target: got {size[0]}x{size[1]} px, allowed: the references' {prepared.size} px")
        _check_mask(valid, target.shape[:2], "valid")
        ignore = prepared.ignore if valid is None else (~valid if prepared.ignore is None else prepared.ignore | ~valid)
        evidence = self._network.compare(prepared.known, target, ignore, deadline)
        if isinstance(good, Single) and good.may_be_another(evidence, self.default_threshold):
            return good.judge_in_place(covered(target, ignore), ignore, deadline)
        return evidence

    def learning(self, prepared: LitePrepared) -> Learning:
        """What was found out about the product; see :class:`differad_edge.engines.base.ComparesAsItLies`."""
        return prepared.good.learning(prepared.difference_bytes)

    def needs_alignment(self, prepared: LitePrepared, *, misfit: bool) -> bool:
        """False where good parts are not the same picture; and for a misfit where there is one, for it may be such."""
        return not (isinstance(prepared.good, Unlike) or (misfit and isinstance(prepared.good, Single)))

    def compare_as_it_lies(
        self, prepared: LitePrepared, target: Image, *, deadline: Deadline | None = None
    ) -> Evidence:
        """Compare one part with what good parts look like, whatever its place and size."""
        ignore = prepared.ignore
        if ignore is not None and ignore.shape != target.shape[:2]:
            wanted = "x".join(map(str, prepared.size))
            detail = f"the frame has {target.shape[1]}x{target.shape[0]} px, allowed with an ignore mask: {wanted} px"
            return Evidence(0.0, reason=Reason.MISALIGNED.value, detail=detail)
        if isinstance(prepared.good, Alike):
            raise EngineError("target: got a part as it lies, allowed: aligned, for the product's good parts are alike")
        return prepared.good.judge_as_it_lies(covered(target, ignore), ignore, deadline)


def _check_mask(mask: NDArray[np.bool_] | None, shape: tuple[int, ...], name: str) -> None:
    # Of another type, ~ would not mean "not"; of another size, broadcasting could silence the whole part.
    if mask is not None and (mask.shape != shape or mask.dtype != np.bool_):
        raise EngineError(f"{name}: got {mask.dtype} of shape {mask.shape}, allowed: bool of shape {shape}")
