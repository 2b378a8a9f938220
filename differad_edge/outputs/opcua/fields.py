"""What can be written into the nodes of a PLC: the names under ``nodes``, and what each of them says of a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from differad_edge.outputs.base import ACCEPTING_STATES, Record
from differad_edge.outputs.codes import reason_code, state_code, verdict_code

__all__ = ["FIELDS", "VERDICT_FLAGS", "Kind", "record_json", "result_values", "state_values"]


class Kind(Enum):
    """What a field holds, and with it the data types that can hold it."""

    FLAG = "flag"
    CODE = "code"
    MEASURE = "measure"
    """A number that stays at the largest that its type can hold."""
    FRACTION = "fraction"
    NUMBER = "number"
    """Of a result: it must tell results apart, and wraps around after the largest of 31 bits or more."""
    COUNTER = "counter"
    """Wraps around."""
    TEXT = "text"
    DOCUMENT = "document"
    """A text that is nothing when it is cut."""
    TIME = "time"


VERDICT_FLAGS = ("passed", "failed", "undecided")
"""At most one of them is true."""

_RESULT = {
    **dict.fromkeys(VERDICT_FLAGS, Kind.FLAG),
    "verdict": Kind.TEXT,
    "verdict_code": Kind.CODE,
    "reason": Kind.TEXT,
    "reason_code": Kind.CODE,
    "score": Kind.FRACTION,
    "score_per_mille": Kind.MEASURE,
    "findings": Kind.MEASURE,
    "box_x1_px": Kind.MEASURE,
    "box_y1_px": Kind.MEASURE,
    "box_x2_px": Kind.MEASURE,
    "box_y2_px": Kind.MEASURE,
    "duration_ms": Kind.MEASURE,
    "result_id": Kind.NUMBER,
    "part_id": Kind.TEXT,
    "job_id": Kind.TEXT,
    "recipe_id": Kind.TEXT,
    "trigger_id": Kind.TEXT,
    "captured": Kind.TIME,
    "is_simulated": Kind.FLAG,
    "record": Kind.DOCUMENT,
}
_STATE = {"ready": Kind.FLAG, "state": Kind.TEXT, "state_code": Kind.CODE, "heartbeat": Kind.COUNTER}

FIELDS: Mapping[str, Kind] = {**_RESULT, **_STATE, "result_ready": Kind.FLAG, "acknowledge": Kind.NUMBER}
"""Everything that ``nodes`` may name."""


def result_values(record: Record) -> dict[str, Any]:
    """Field -> what it says of this result."""
    verdict, findings = record["verdict"], record["findings"]
    strongest = max(findings, key=lambda finding: finding["score"])["box"] if findings else (0, 0, 0, 0)
    return {
        "passed": verdict == "OK",
        "failed": verdict == "NG",
        "undecided": verdict not in ("OK", "NG"),
        "verdict": verdict,
        "verdict_code": verdict_code(verdict),
        "reason": record["reason"] or "",
        "reason_code": reason_code(record["reason"]),
        "score": record["score"],
        "score_per_mille": record["score"] * 1000,
        "findings": len(findings),
        **dict(zip(("box_x1_px", "box_y1_px", "box_x2_px", "box_y2_px"), strongest, strict=True)),
        "duration_ms": record["timings"]["total_ms"],
        "result_id": record["sequence"],
        "part_id": record["part_id"] or "",
        "job_id": record["job_id"] or "",
        "recipe_id": record["product"] or "",
        "trigger_id": record["trigger_id"],
        "captured": record["captured_utc"],
        "is_simulated": record["is_simulated"],
        "record": record_json(record),
    }


def state_values(state: str, heartbeat: int) -> dict[str, Any]:
    """Field -> what it says of the line."""
    return {
        "ready": state in ACCEPTING_STATES,
        "state": state,
        "state_code": state_code(state),
        "heartbeat": heartbeat,
    }


def record_json(record: Record) -> str:
    """The whole record in one text that UTF-8 can hold."""
    text = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
