"""The record of one part: what stands in the journal and, as one frame of JSON, on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from differad_edge.errors import ResultError
from differad_edge.results import InspectionResult, Verdict

__all__ = ["RESULT_PREFIX", "ResultRecord", "SequenceRange", "to_json_bytes"]

SequenceRange = tuple[int, int]
"""First and last, both included."""

RESULT_PREFIX = b'{"type":"result",'
"""How every result begins on the wire: subscribe to it to get results and no heartbeats."""


def to_json_bytes(message: Mapping[str, Any]) -> bytes:
    """Strict, compact UTF-8 JSON. Raises what json.dumps raises, ValueError for NaN and infinity."""
    text = json.dumps(message, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes its JSON escape


_OWN_FIELDS = (
    "sequence",
    "session",
    "trigger_id",
    "trigger",
    "station",
    "part_id",
    "job_id",
    "camera",
    "frame_sequence",
    "captured_utc",
    "captured_ns",
    "image_fingerprint",
    "engine_sha256",
    "is_simulated",
    "journaled",
)


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """The one result of one accepted trigger, with everything that is needed to trace it.

    ``sequence``: counts the results of a journal from 1, over restarts, without a gap; ``session``: which run of the
    server; ``trigger_id``: unique within the session; ``trigger``: "free", "rate", "request" or "image" (the caller
    brought the image); ``camera``: the device's identity, None for a brought image; ``frame_sequence``: the camera's
    own count; ``captured_utc``: ISO 8601 with microseconds and Z, only a stamp; ``captured_ns``: the server machine's
    monotonic clock; ``image_fingerprint``: "xxh3-128:<hex>" over shape and pixels, None without a frame;
    ``journaled``: False when the journal could not be written (a full disk); ``dropped``: cause -> ranges of the
    camera's frame sequences that were dropped since this station's previous result.
    The part and its result: ``part_id``, ``job_id`` are the caller's, ``result`` the inspection's.
    """

    sequence: int
    session: str
    trigger_id: str
    trigger: str
    station: str
    result: InspectionResult
    captured_utc: str
    captured_ns: int
    engine_sha256: str
    part_id: str | None = None
    job_id: str | None = None
    camera: str | None = None
    frame_sequence: int | None = None
    image_fingerprint: str | None = None
    is_simulated: bool = False
    journaled: bool = True
    dropped: Mapping[str, tuple[SequenceRange, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "dropped", MappingProxyType({k: tuple(map(tuple, v)) for k, v in self.dropped.items()})
        )

    @property
    def verdict(self) -> Verdict:
        """The result's."""
        return self.result.verdict

    @property
    def product(self) -> str | None:
        """The result's."""
        return self.result.product

    @property
    def is_ok(self) -> bool:
        """True for OK only."""
        return self.result.is_ok

    def to_dict(self, kind: str = "result") -> dict[str, Any]:
        """Plain JSON types: the record beside all of `InspectionResult.to_dict`; ``kind``: "result" or "late"."""
        own = {name: getattr(self, name) for name in _OWN_FIELDS}
        dropped = {cause: [list(pair) for pair in ranges] for cause, ranges in self.dropped.items()}
        return {"type": kind, **own, "dropped": dropped, **self.result.to_dict()}

    def to_json(self, kind: str = "result") -> bytes:
        """to_dict() as strict, compact UTF-8 JSON; a result begins with RESULT_PREFIX."""
        return to_json_bytes(self.to_dict(kind))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ResultRecord:
        """Undo to_dict(). Raises ResultError for another schema version, and for missing or malformed fields."""
        rest = {k: v for k, v in data.items() if k not in _OWN_FIELDS and k not in ("type", "dropped")}
        result = InspectionResult.from_dict(rest)
        try:
            own = {name: data[name] for name in _OWN_FIELDS}
            return cls(result=result, dropped=data["dropped"], **own)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ResultError(f"record: cannot be read back: {type(error).__name__}: {error}") from error

    @classmethod
    def from_json(cls, text: bytes | str) -> ResultRecord:
        """Undo to_json(). Raises ResultError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ResultError(f"record: no valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise ResultError(f"record: got {type(data).__name__}, allowed: a JSON object")
        return cls.from_dict(data)
