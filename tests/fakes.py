"""Engines for tests: one that compares pixels, and one that does what it is told, also the worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.deadline import Deadline
from differad_edge.engines.base import Candidate, Evidence, ReferenceView
from differad_edge.engines.heatmap import HeatmapRule, candidates_of
from differad_edge.errors import EngineError, IncompatibleReferenceError
from differad_edge.images import Image

_RULE = HeatmapRule(floor=0.2, extent_share=0.3, bridge_cells=0)
_TOLERANCE, _FULL_SCALE = 25.0, 50.0  # grey levels


@dataclass(frozen=True)
class PixelPrepared:
    """Darkest and brightest grey that the references show within 5x5 px of every place."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    ignore: NDArray[np.bool_]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"low": self.low, "high": self.high, "ignore": self.ignore}


class PixelEngine:
    """Grey levels outside the range that the references show nearby. Exact boxes, no model, about a millisecond."""

    name = "pixel"
    default_threshold = 0.5

    def __init__(self, fingerprint: str = "1" * 64) -> None:
        self.fingerprint = fingerprint

    def prepare(self, references: Sequence[ReferenceView]) -> PixelPrepared:
        if len({view.image.shape for view in references}) != 1:
            raise IncompatibleReferenceError("references: got none or several sizes, allowed: one size")
        kernel = np.ones((5, 5), np.uint8)
        greys = [cv2.cvtColor(view.image, cv2.COLOR_BGR2GRAY).astype(np.float32) for view in references]
        ignore = np.zeros(greys[0].shape, bool)
        for view in references:
            _check_mask(view.valid, ignore.shape)
            ignore |= False if view.valid is None else ~view.valid
        low = np.minimum.reduce([np.asarray(cv2.erode(grey, kernel)) for grey in greys])
        high = np.maximum.reduce([np.asarray(cv2.dilate(grey, kernel)) for grey in greys])
        return PixelPrepared(low, high, ignore)

    def restore(self, arrays: dict[str, NDArray[Any]]) -> PixelPrepared:
        try:
            return PixelPrepared(arrays["low"], arrays["high"], arrays["ignore"])
        except KeyError as error:
            raise EngineError(f"not written by this engine: {error}") from error

    def compare(
        self,
        prepared: PixelPrepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        if target.shape[:2] != prepared.low.shape:
            raise EngineError(f"target: got shape {target.shape}, allowed: {prepared.low.shape}")
        _check_mask(valid, prepared.low.shape)
        if deadline is not None:
            deadline.check()
        grey = cv2.cvtColor(target, cv2.COLOR_BGR2GRAY).astype(np.float32)
        outside = np.maximum(prepared.low - grey, grey - prepared.high) - _TOLERANCE
        heat = np.clip(outside / _FULL_SCALE, 0, 1).astype(np.float32)
        heat[prepared.ignore if valid is None else prepared.ignore | ~valid] = 0
        score, candidates = candidates_of(heat, 1, _RULE)
        return Evidence(score, candidates, heat)


def _check_mask(mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> None:
    if mask is not None and (mask.shape != shape or mask.dtype != np.bool_):
        raise EngineError(f"valid: got {mask.dtype} of shape {mask.shape}, allowed: bool of shape {shape}")


class Prepared:
    """Nothing."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {}


Behaviour = Callable[[Image], Evidence]


class ScriptedEngine:
    """Answers what ``behaviour`` says; set it to another one between two parts."""

    name = "scripted"
    default_threshold = 0.5

    def __init__(self, behaviour: Behaviour | None = None, fingerprint: str = "2" * 64) -> None:
        self.behaviour: Behaviour = behaviour if behaviour is not None else nothing_found
        self.fingerprint = fingerprint
        self.calls = 0

    def prepare(self, references: Sequence[ReferenceView]) -> Prepared:
        return Prepared()

    def restore(self, arrays: dict[str, NDArray[Any]]) -> Prepared:
        return Prepared()

    def compare(
        self,
        prepared: Prepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        self.calls += 1
        return self.behaviour(target)


def nothing_found(target: Image) -> Evidence:
    """A good part."""
    return Evidence(0.0)


def answers(score: float, *candidates: Candidate, reason: str | None = None) -> Behaviour:
    """Always this evidence."""
    return lambda target: Evidence(score, candidates, reason=reason)


def raises(error: BaseException) -> Behaviour:
    """Always this exception."""

    def behaviour(target: Image) -> Evidence:
        raise error

    return behaviour
