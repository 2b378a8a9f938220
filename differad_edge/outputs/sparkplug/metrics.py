"""What the metrics of the edge node and of its devices say: names, data types, and the values out of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from differad_edge.outputs.base import ACCEPTING_STATES, Record
from differad_edge.outputs.sparkplug.payload import DataType, Metric, Value

__all__ = ["REBIRTH", "Device", "captured_ms", "node_metrics"]

REBIRTH = "Node Control/Rebirth"
"""The command that every edge node takes: publish the births again."""

_RESULT: Mapping[str, tuple[DataType, Callable[[Record], Value]]] = {
    "Sequence": (DataType.INT64, lambda record: record["sequence"]),
    "Passed": (DataType.BOOLEAN, lambda record: record["verdict"] == "OK"),
    "Failed": (DataType.BOOLEAN, lambda record: record["verdict"] == "NG"),
    "Verdict": (DataType.STRING, lambda record: record["verdict"]),
    "Reason": (DataType.STRING, lambda record: record["reason"] or ""),
    "Score": (DataType.DOUBLE, lambda record: float(record["score"])),
    "Findings": (DataType.INT64, lambda record: len(record["findings"])),
    "Part ID": (DataType.STRING, lambda record: _text(record["part_id"])),
    "Job ID": (DataType.STRING, lambda record: _text(record["job_id"])),
    "Product": (DataType.STRING, lambda record: _text(record["product"])),
    "Trigger ID": (DataType.STRING, lambda record: _text(record["trigger_id"])),
    "Capture Time": (DataType.DATE_TIME, lambda record: captured_ms(record)),
    "Is Simulated": (DataType.BOOLEAN, lambda record: record["is_simulated"]),
    "Record": (
        DataType.STRING,
        lambda record: _text(json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))),
    ),
}
_COUNTERS = ("Results", "Passed", "Failed", "Undecided")


def captured_ms(record: Record) -> int:
    """When the part was seen: milliseconds since 1970, UTC."""
    return round(datetime.fromisoformat(str(record["captured_utc"]).replace("Z", "+00:00")).timestamp() * 1000)


def node_metrics(pulse: Mapping[str, Any], stamp_ms: int) -> list[Metric]:
    """What may change about the line as a whole."""
    alarms = ", ".join(str(alarm["code"]) for alarm in pulse.get("alarms", ()))
    return [
        Metric("State", DataType.STRING, str(pulse.get("state", "Preoperational")), stamp_ms),
        Metric("Ready", DataType.BOOLEAN, bool(pulse.get("ready", False)), stamp_ms),
        Metric("Alarms", DataType.STRING, alarms, stamp_ms),
    ]


class Device:
    """One station: its state, and the newest of its results that was published."""

    def __init__(self) -> None:
        self._state = "Preoperational"
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._newest: Record | None = None

    def birth(self, stamp_ms: int) -> list[Metric]:
        """Everything that will ever be said about it; what is not known yet is null."""
        result = self._result(self._newest, stamp_ms if self._newest is None else captured_ms(self._newest))
        return [*self._states(stamp_ms), *result, *self._counters(stamp_ms)]

    def changed(self, state: str, stamp_ms: int) -> list[Metric]:
        """Take in what the station is doing: what is new about it."""
        if state == self._state:
            return []
        self._state = state
        return self._states(stamp_ms)

    def told(self, record: Record, stamp_ms: int, *, historical: bool) -> list[Metric]:
        """Take in a result: what is to be published of it."""
        counters: list[Metric] = []
        if self._newest is None or record["sequence"] > self._newest["sequence"]:  # one that comes again is not counted
            self._newest = record
            for name in ("Results", {"OK": "Passed", "NG": "Failed"}.get(record["verdict"], "Undecided")):
                self._counts[name] += 1
            counters = self._counters(stamp_ms)
        return [*self._result(record, captured_ms(record), historical), *counters]

    def _states(self, stamp_ms: int) -> list[Metric]:
        return [
            Metric("State", DataType.STRING, self._state, stamp_ms),
            Metric("Ready", DataType.BOOLEAN, self._state in ACCEPTING_STATES, stamp_ms),
        ]

    def _counters(self, stamp_ms: int) -> list[Metric]:
        return [Metric(f"Counters/{name}", DataType.INT64, count, stamp_ms) for name, count in self._counts.items()]

    @staticmethod
    def _result(record: Record | None, stamp_ms: int, historical: bool = False) -> list[Metric]:
        return [
            Metric(f"Result/{name}", kind, None if record is None else of(record), stamp_ms, historical)
            for name, (kind, of) in _RESULT.items()
        ]


def _text(value: object) -> str:
    """As UTF-8 can say it: a lone surrogate becomes its escape."""
    return "" if value is None else str(value).encode("utf-8", "backslashreplace").decode("utf-8")
