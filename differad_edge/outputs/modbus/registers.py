"""What stands at which address; docs/OUTPUTS.md shows the same table.

Addresses count from 0, as they travel. Numbers of 32 bits take two registers, the high word first, and wrap around.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag

from differad_edge.outputs.base import Record
from differad_edge.outputs.codes import OTHER, REASON_CODES, STATE_CODES, VERDICT_CODES, reason_code, verdict_code

__all__ = [
    "ERROR_CODES",
    "INPUTS",
    "REASON_CODES",
    "STATE_CODES",
    "VERDICT_CODES",
    "Command",
    "Holding",
    "Input",
    "Status",
    "result_registers",
    "split32",
]


class Status(IntFlag):
    """Discrete inputs 0 to 8, and the same bits in the input register 0.

    PASS and FAIL are never both set; with neither there is no verdict, whatever else is set.
    """

    READY = 1 << 0
    BUSY = 1 << 1
    ACCEPTED = 1 << 2
    RESULT_READY = 1 << 3
    PASS = 1 << 4
    FAIL = 1 << 5
    UNDECIDED = 1 << 6
    TRIGGER_ERROR = 1 << 7
    STATION_ERROR = 1 << 8


class Command(IntFlag):
    """Coils 0 to 3, or the same bits in the holding register 0; either of them counts. Rising edges act."""

    TRIGGER = 1 << 0
    ACKNOWLEDGE = 1 << 1
    RESET = 1 << 2
    HALT = 1 << 3


class Holding(IntEnum):
    """Holding registers, which a PLC writes."""

    COMMAND = 0
    TRIGGER_NUMBER = 1


class Input(IntEnum):
    """Input registers, which a PLC reads; one read of all of them is one moment."""

    STATUS = 0
    STATE = 1
    ERROR_CODE = 2
    HEARTBEAT = 3
    SEQUENCE = 4  # 32 bits
    TRIGGER_NUMBER = 6
    VERDICT = 7
    REASON = 8
    SCORE_PER_MILLE = 9
    FINDINGS = 10
    BOX_X1_PX = 11
    BOX_Y1_PX = 12
    BOX_X2_PX = 13
    BOX_Y2_PX = 14
    DURATION_MS = 15
    RESULTS = 16  # 32 bits, as all that follow
    PASSED = 18
    FAILED = 20
    UNDECIDED = 22
    REFUSED_TRIGGERS = 24


INPUTS = 26
"""How many input registers there are."""

ERROR_CODES: Mapping[str, int] = {
    "not-ready": 1,
    "busy": 2,
    "no-camera": 3,
    "stopping": 4,
    "result-waiting": 5,
}  # of a trigger that was refused; 0: none was, 99: for another reason


def split32(value: int) -> tuple[int, int]:
    """High and low word."""
    return value >> 16 & 0xFFFF, value & 0xFFFF


def error_code(code: str) -> int:
    """The number of a refusal's code."""
    return ERROR_CODES.get(code, OTHER)


def result_registers(record: Record, trigger_number: int) -> dict[int, int]:
    """Address -> value of what one result says."""
    high, low = split32(record["sequence"])
    findings = record["findings"]
    strongest = max(findings, key=lambda finding: finding["score"])["box"] if findings else (0, 0, 0, 0)
    return {
        Input.SEQUENCE: high,
        Input.SEQUENCE + 1: low,
        Input.TRIGGER_NUMBER: trigger_number,
        Input.VERDICT: verdict_code(record["verdict"]),
        Input.REASON: reason_code(record["reason"]),
        Input.SCORE_PER_MILLE: _word(record["score"] * 1000),
        Input.FINDINGS: _word(len(findings)),
        **{Input.BOX_X1_PX + index: _word(edge) for index, edge in enumerate(strongest)},
        Input.DURATION_MS: _word(record["timings"]["total_ms"]),
    }


def _word(value: float) -> int:
    return max(0, min(0xFFFF, round(value)))
