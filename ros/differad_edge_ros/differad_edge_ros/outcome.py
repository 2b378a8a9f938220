"""What is said about one accepted image: the result, where the image came from, and what was lost before it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from differad_edge import InspectionResult, Timings, Verdict

__all__ = ["LOST_ON_THE_WAY", "QUEUE_FULL", "Drop", "Outcome", "Stamp", "failed"]

Stamp = tuple[int, int]
"""Seconds and nanoseconds, as the header of a message holds them."""

QUEUE_FULL = "queue-full"
LOST_ON_THE_WAY = "lost-on-the-way"
"""The middleware told of images that never arrived; their stamps are not known."""


@dataclass(frozen=True, slots=True)
class Drop:
    """``count`` images that were not accepted since the previous result, and the stamps of the first and the last."""

    cause: str
    count: int
    first_stamp: Stamp | None = None
    last_stamp: Stamp | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; stamps as [seconds, nanoseconds]."""
        return {
            "cause": self.cause,
            "count": self.count,
            "first_stamp": None if self.first_stamp is None else list(self.first_stamp),
            "last_stamp": None if self.last_stamp is None else list(self.last_stamp),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one outcome of one accepted image.

    ``sequence``: counts from 1 since the node started, without a gap; ``session``: which start of the node;
    ``trigger``: "topic" or "request"; ``stamp``, ``frame_id``: the image's header; ``dropped``: what was lost since the
    previous outcome; ``node_ms``: "queue", "convert", "judge" in milliseconds, and "total" from the image's arrival to
    the result being ready; ``server``: the server's sequence and session, where a server inspected.
    """

    sequence: int
    session: str
    trigger: str
    stamp: Stamp
    frame_id: str
    result: InspectionResult
    dropped: tuple[Drop, ...] = ()
    node_ms: Mapping[str, float] = field(default_factory=dict)
    server: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, beside all of `InspectionResult.to_dict`."""
        return {
            "type": "result",
            "sequence": self.sequence,
            "session": self.session,
            "trigger": self.trigger,
            "stamp": list(self.stamp),
            "frame_id": self.frame_id,
            "dropped": [drop.to_dict() for drop in self.dropped],
            "node_ms": {name: round(ms, 3) for name, ms in self.node_ms.items()},
            "server": None if self.server is None else dict(self.server),
            **self.result.to_dict(),
        }

    def to_json(self) -> str:
        """to_dict() as strict, compact JSON."""
        return json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def failed(
    verdict: Verdict, reason: str, detail: str, *, product: str, engine: str, size: tuple[int, int] = (0, 0)
) -> InspectionResult:
    """A result that is neither OK nor NG; ``size``: (width, height) in pixels, where the image could be read."""
    return InspectionResult(
        verdict=verdict,
        reason=reason,
        score=0.0,
        threshold=None,
        findings=(),
        timings=Timings({}, 0.0),
        product=product or None,
        reference_id=None,
        reference_sha256=None,
        engine=engine,
        image_size=size,
        detail=detail,
    )
