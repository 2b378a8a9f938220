"""What an inspection answers: verdict, boxes, timings, and the record that is written about a part."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from differad_edge.errors import BoxError, ImageFormatError, ImageSizeError, ResultError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

__all__ = [
    "SCHEMA_VERSION",
    "Alignment",
    "Box",
    "Finding",
    "InspectionResult",
    "Reason",
    "Timings",
    "Verdict",
]

SCHEMA_VERSION = 1
"""Version of InspectionResult.to_dict(). It rises when a field changes its meaning or goes away."""

_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_STAGE = re.compile(r"[a-z][a-z0-9_]*")


class Verdict(str, Enum):
    """What is said about one part. Only OK lets a part pass."""

    OK = "OK"
    NG = "NG"
    UNDECIDED = "UNDECIDED"
    ERROR = "ERROR"

    def __str__(self) -> str:
        return self.value


class Reason(str, Enum):
    """Stable codes for why a verdict is UNDECIDED or ERROR. Engines of plugins may add codes of their own."""

    DEADLINE = "deadline"
    UNPARSABLE_ANSWER = "unparsable-answer"
    MISALIGNED = "misaligned"
    ONE_REFERENCE = "one-reference"
    BAD_FRAME = "bad-frame"
    ENGINE_FAILURE = "engine-failure"
    NONFINITE_SCORE = "non-finite-score"
    UNVERIFIED_REFERENCE = "unverified-reference"
    NO_FRAME = "no-frame"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"

    def __str__(self) -> str:
        return self.value


class _BoxFields(NamedTuple):
    x1: float
    y1: float
    x2: float
    y2: float


class Box(_BoxFields):
    """An axis-aligned box in pixels: x1, y1 inclusive edges, x2, y2 exclusive edges, origin at the top left corner.

    ``Box(0, 0, 1, 1)`` covers exactly the first pixel. Raises BoxError unless all four are finite, x2 > x1, y2 > y1.
    """

    __slots__ = ()

    def __new__(cls, x1: float, y1: float, x2: float, y2: float) -> Self:
        try:
            edges = (float(x1), float(y1), float(x2), float(y2))
        except (TypeError, ValueError) as error:
            raise BoxError(f"box: got ({x1!r}, {y1!r}, {x2!r}, {y2!r}), allowed: four numbers") from error
        if not all(map(math.isfinite, edges)):
            raise BoxError(f"box: got {edges}, allowed: four finite numbers")
        if not (edges[2] > edges[0] and edges[3] > edges[1]):
            raise BoxError(f"box: got (x1, y1, x2, y2) = {edges}, allowed: x2 > x1 and y2 > y1")
        return super().__new__(cls, *edges)

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]  # typeshed binds it to the bare tuple
        # The inherited _make, and _replace which calls it, would go round the checks above.
        return cls(*iterable)

    @property
    def width(self) -> float:
        """x2 - x1, in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """y2 - y1, in pixels."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Width times height, in square pixels."""
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle, in pixels."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2


def _unit(name: str, value: float) -> float:
    """``value`` as a float in [0, 1], or ResultError."""
    if isinstance(value, bool) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise ResultError(f"{name}: got {value!r}, allowed: a finite number from 0 to 1")
    return float(value)


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that differs. ``box``: pixels of the target as given; ``score``: 0 to 1, higher is worse."""

    box: Box
    score: float
    description: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", _unit("finding.score", self.score))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: box as [x1, y1, x2, y2]."""
        return {"box": list(self.box), "score": self.score, "description": self.description}


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each stage took, in milliseconds on a monotonic clock.

    ``stages`` maps a stage's name to its time, in the order they ran; ``timings.align_ms`` reads one.
    ``total_ms`` is the whole inspection and includes what lies between the stages.
    """

    stages: Mapping[str, float]
    total_ms: float

    def __post_init__(self) -> None:
        stages = {name: float(ms) for name, ms in self.stages.items()}
        for name, ms in [*stages.items(), ("total", float(self.total_ms))]:
            if not math.isfinite(ms) or ms < 0:
                raise ResultError(f"timings.{name}_ms: got {ms!r}, allowed: a finite number >= 0")
        for name in stages:
            if name == "total" or not _STAGE.fullmatch(name):
                raise ResultError(f"timings: got a stage {name!r}, allowed: lower_snake_case and not 'total'")
        object.__setattr__(self, "stages", MappingProxyType(stages))
        object.__setattr__(self, "total_ms", float(self.total_ms))

    def __getattr__(self, name: str) -> float:
        # Guarded so that copy and pickle, which probe half-built objects, get a plain AttributeError.
        if name.endswith("_ms") and not name.startswith("_"):
            stage = name[: -len("_ms")]
            if stage in self.stages:
                return self.stages[stage]
        raise AttributeError(f"{type(self).__name__} has no {name!r}; stages: {', '.join(self.stages) or 'none'}")

    def __hash__(self) -> int:
        return hash((tuple(self.stages.items()), self.total_ms))

    def __reduce__(self) -> tuple[type[Timings], tuple[dict[str, float], float]]:
        # A mapping proxy can be neither pickled nor deep-copied.
        return type(self), (dict(self.stages), self.total_ms)

    def to_dict(self) -> dict[str, float]:
        """``{"<stage>_ms": ..., "total_ms": ...}`` in milliseconds."""
        return {**{f"{name}_ms": ms for name, ms in self.stages.items()}, "total_ms": self.total_ms}

    @classmethod
    def from_dict(cls, data: Mapping[str, float]) -> Timings:
        """Undo to_dict(). Raises ResultError for a key without "_ms" or a missing total."""
        for key in data:
            if not key.endswith("_ms"):
                raise ResultError(f"timings: got the key {key!r}, allowed: names that end in '_ms'")
        if "total_ms" not in data:
            raise ResultError("timings: total_ms is missing")
        stages = {key[: -len("_ms")]: ms for key, ms in data.items() if key != "total_ms"}
        return cls(stages, data["total_ms"])


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the target lies against its reference.

    ``shift_px``: (dx, dy), where the reference's centre lies in the target, minus the target's centre;
    ``angle_deg``: counter-clockwise as seen; ``scale``: target over reference;
    ``residual``: 0 (perfect) to 1, what still differs after the alignment;
    ``matrix``: the 2x3 affine, row by row, that takes reference pixels to target pixels.
    """

    shift_px: tuple[float, float]
    angle_deg: float
    scale: float
    residual: float
    matrix: tuple[float, float, float, float, float, float]

    def __post_init__(self) -> None:
        shift = tuple(float(value) for value in self.shift_px)
        matrix = tuple(float(value) for value in self.matrix)
        if len(shift) != 2 or len(matrix) != 6:
            raise ResultError(f"alignment: got {len(shift)} shifts and {len(matrix)} matrix values, allowed: 2 and 6")
        if not all(map(math.isfinite, (*shift, *matrix, self.angle_deg, self.scale))):
            raise ResultError(f"alignment: got {self!r}, allowed: finite numbers")
        object.__setattr__(self, "shift_px", shift)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "angle_deg", float(self.angle_deg))
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "residual", _unit("alignment.residual", self.residual))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "shift_px": list(self.shift_px),
            "angle_deg": self.angle_deg,
            "scale": self.scale,
            "residual": self.residual,
            "matrix": list(self.matrix),
        }


@dataclass(frozen=True, slots=True)
class InspectionResult:
    """The answer about one part. It cannot be built so that it contradicts itself (ResultError).

    OK has no reason and no findings; NG has at least one finding and no reason; UNDECIDED and ERROR have a reason.
    ``score``: 0 to 1, higher is worse; ``threshold``: the score from which a part is NG;
    ``findings``: strongest first; ``image_size``: (width, height) of the target in pixels, (0, 0) when it is unknown;
    ``detail``: the reason as a sentence; ``notes``: remarks that did not decide the verdict.
    """

    verdict: Verdict
    reason: str | None
    score: float
    threshold: float | None
    findings: tuple[Finding, ...]
    timings: Timings
    product: str | None
    reference_id: str | None
    reference_sha256: str | None
    engine: str
    image_size: tuple[int, int]
    alignment: Alignment | None = None
    notes: tuple[str, ...] = ()
    detail: str | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        put = object.__setattr__
        try:
            put(self, "verdict", Verdict(self.verdict))
        except ValueError as error:
            allowed = ", ".join(Verdict)
            raise ResultError(f"verdict: got {self.verdict!r}, allowed: {allowed}") from error
        put(self, "score", _unit("score", self.score))
        if self.threshold is not None:
            put(self, "threshold", _unit("threshold", self.threshold))
        put(self, "findings", tuple(self.findings))
        put(self, "notes", tuple(self.notes))
        width, height = self.image_size
        put(self, "image_size", (int(width), int(height)))
        self._check_reason()
        if self.verdict is Verdict.OK and self.findings:
            raise ResultError(f"findings: got {len(self.findings)} with the verdict OK, allowed: none")
        if self.verdict is Verdict.NG and not self.findings:
            raise ResultError("findings: got none with the verdict NG, allowed: at least one")
        scores = [finding.score for finding in self.findings]
        if scores != sorted(scores, reverse=True):
            raise ResultError(f"findings: got the scores {scores}, allowed: strongest first")
        if self.schema_version != SCHEMA_VERSION:
            raise ResultError(f"schema_version: got {self.schema_version!r}, allowed: {SCHEMA_VERSION}")

    def _check_reason(self) -> None:
        decided = self.verdict in (Verdict.OK, Verdict.NG)
        if self.reason is None:
            if not decided:
                raise ResultError(f"reason: got None with the verdict {self.verdict}, allowed: a code")
            return
        if decided:
            raise ResultError(f"reason: got {str(self.reason)!r} with the verdict {self.verdict}, allowed: None")
        reason = str(self.reason)
        if not _CODE.fullmatch(reason):
            raise ResultError(f"reason: got {reason!r}, allowed: a kebab-case code such as 'deadline'")
        object.__setattr__(self, "reason", reason)

    @property
    def box(self) -> Box | None:
        """The strongest box, in pixels of the target, or None."""
        return self.findings[0].box if self.findings else None

    @property
    def is_ok(self) -> bool:
        """True for OK only: UNDECIDED and ERROR never let a part pass."""
        return self.verdict is Verdict.OK

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the format of journals, wires and ``--json``."""
        return {
            "schema_version": self.schema_version,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "detail": self.detail,
            "score": self.score,
            "threshold": self.threshold,
            "findings": [finding.to_dict() for finding in self.findings],
            "timings": self.timings.to_dict(),
            "product": self.product,
            "reference_id": self.reference_id,
            "reference_sha256": self.reference_sha256,
            "engine": self.engine,
            "image_size": list(self.image_size),
            "alignment": None if self.alignment is None else self.alignment.to_dict(),
            "notes": list(self.notes),
        }

    def to_json(self, indent: int | None = None) -> str:
        """to_dict() as strict JSON (no NaN, no Infinity)."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InspectionResult:
        """Undo to_dict(). Raises ResultError for another schema version, and for missing or malformed fields."""
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ResultError(f"schema_version: got {version!r}, allowed: {SCHEMA_VERSION}")
        fields = dict(data)
        try:
            fields["findings"] = tuple(
                Finding(Box(*item["box"]), item["score"], item["description"]) for item in data["findings"]
            )
            fields["timings"] = Timings.from_dict(data["timings"])
            fields["alignment"] = None if data["alignment"] is None else Alignment(**data["alignment"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError, BoxError) as error:
            raise ResultError(f"result: cannot be read back: {type(error).__name__}: {error}") from error

    def draw(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """The target with its boxes, as a new HxWx3 uint8 BGR array; ``image`` is not changed.

        ``image``: the target that was inspected, HxWx3 uint8 BGR or HxW uint8 grey.
        Raises ImageSizeError when it has another size, ImageFormatError for another dtype or shape.
        """
        from differad_edge.drawing import draw_labelled_boxes

        shape: tuple[int, ...] = getattr(image, "shape", ())
        if len(shape) < 2:
            raise ImageFormatError(f"image to draw on: got {type(image).__name__}, allowed: the inspected array, HxWx3")
        size = (shape[1], shape[0])
        if self.image_size != (0, 0) and size != self.image_size:
            raise ImageSizeError(f"image to draw on: got (width, height) {size}, allowed: {self.image_size}")
        caption = f"{self.verdict} {self.score:.2f}" if self.reason is None else f"{self.verdict}: {self.reason}"
        labels = [f"{f.score:.2f} {f.description or ''}".rstrip() for f in self.findings]
        colours = {Verdict.OK: (80, 200, 80), Verdict.NG: (60, 60, 255)}
        colour = colours.get(self.verdict, (0, 190, 255))
        boxes = [finding.box for finding in self.findings]
        return draw_labelled_boxes(image, boxes, labels, caption=caption, colour=colour)
