"""What the store hands out: references, calibrations and products, all frozen, with read-only arrays."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import CalibrationError
from differad_edge.images import Image

__all__ = ["Calibration", "Product", "Reference", "Roi", "good_parts_for", "references_digest"]

Roi = tuple[int, int, int, int]

_CLAIM_RATE = 0.01


def good_parts_for(false_reject_rate: float) -> int:
    """Fewest good parts whose scores can bound the false-reject rate by ``false_reject_rate`` (0-1, exclusive)."""
    # 1/(N+1) <= rate; the tiny slack keeps 1/0.01 - 1 at 99 and not at 100.
    return max(1, math.ceil(1.0 / false_reject_rate - 1.0 - 1e-9))


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """One golden sample as it is stored.

    id: name inside its product ("ref-001"). sha256: hex digest of the stored PNG file. image: HxWx3 uint8 BGR,
    lossless, read-only, never cropped. roi: (x1, y1, x2, y2) integer pixels of ``image``, x2 and y2 exclusive, or None
    for all of it. ignore: HxW bool, True = not compared, read-only, or None. source: where it came from, for people.
    """

    id: str
    sha256: str
    image: Image
    roi: Roi | None
    ignore: NDArray[np.bool_] | None
    source: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold that was fitted to known-good parts, and what may be claimed for it.

    threshold: score in [0, 1] at and above which a part is NG. n: number of good parts. false_reject_bound: upper
    bound on the share of good parts that are rejected (0-1), on average over calibrations. confidence: one sentence on
    this very calibration. scores: the n scores it was fitted to, in the order given. engine_fingerprint: the engine
    that gave the scores; with another engine the calibration means nothing.

    Raises CalibrationError when the fields contradict each other.
    """

    threshold: float
    n: int
    false_reject_bound: float
    confidence: str
    scores: tuple[float, ...]
    engine_fingerprint: str

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("false_reject_bound", self.false_reject_bound)):
            if not 0.0 <= value <= 1.0:
                raise CalibrationError(f"{name} is {value!r}; it must lie between 0 and 1")
        if self.n < 1 or self.n != len(self.scores):
            raise CalibrationError(f"n is {self.n} for {len(self.scores)} scores; both must agree and be at least 1")
        for index, score in enumerate(self.scores):
            if not 0.0 <= score <= 1.0:
                raise CalibrationError(f"scores[{index}] is {score!r}; a score lies between 0 and 1")
        if not self.engine_fingerprint:
            raise CalibrationError("engine_fingerprint is empty; a calibration belongs to one engine")

    def statement(self) -> str:
        """Return what this calibration promises, in a sentence or three, and how many good parts 1 % would take."""
        parts = "1 good part" if self.n == 1 else f"{self.n} good parts"
        text = (
            f"Threshold {self.threshold:.4f}, calibrated on {parts}: on average at most {self.false_reject_bound:.1%} "
            f"of good parts are rejected. {self.confidence}"
        )
        needed = good_parts_for(_CLAIM_RATE)
        if self.n < needed:
            text += f" {needed} good parts would bring the bound to {_CLAIM_RATE:.0%}."
        return text


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """One version of a registered product; ``created_utc`` (ISO 8601, UTC) is when this version was written."""

    id: str
    version: int
    references: tuple[Reference, ...]
    calibration: Calibration | None
    created_utc: str


def references_digest(product: Product) -> str:
    """Return the hex SHA-256 of everything an engine sees of a product: pixels, ROI and ignore masks, in order.

    The calibration and the version number are left out, so whatever is keyed by this digest outlives a calibration.
    """
    digest = hashlib.sha256()
    for reference in product.references:
        ignore = "none"
        if reference.ignore is not None:
            packed = np.packbits(reference.ignore).tobytes()
            ignore = f"{reference.ignore.shape} {hashlib.sha256(packed).hexdigest()}"
        digest.update(f"{reference.sha256} roi={reference.roi} ignore={ignore}\n".encode())
    return digest.hexdigest()
