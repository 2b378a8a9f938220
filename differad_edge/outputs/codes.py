"""Verdicts, reasons and states as numbers, for PLCs: the same ones in every output. docs/OUTPUTS.md shows them."""

from __future__ import annotations

from collections.abc import Mapping

from differad_edge.results import Reason

__all__ = ["OTHER", "REASON_CODES", "STATE_CODES", "VERDICT_CODES", "reason_code", "state_code", "verdict_code"]

STATE_CODES: Mapping[str, int] = {
    "Preoperational": 0,
    "Halted": 1,
    "Error": 2,
    "Initialized": 3,
    "Ready": 4,
    "SingleExecution": 5,
    "ContinuousExecution": 6,
}
VERDICT_CODES: Mapping[str, int] = {"OK": 1, "NG": 2, "UNDECIDED": 3, "ERROR": 4}  # 0: no result yet
REASON_CODES: Mapping[str, int] = {
    Reason.DEADLINE: 1,
    Reason.UNPARSABLE_ANSWER: 2,
    Reason.MISALIGNED: 3,
    Reason.ONE_REFERENCE: 4,
    Reason.BAD_FRAME: 5,
    Reason.ENGINE_FAILURE: 6,
    Reason.NONFINITE_SCORE: 7,
    Reason.UNVERIFIED_REFERENCE: 8,
    Reason.NO_FRAME: 9,
    Reason.SUPERSEDED: 10,
    Reason.STOPPED: 11,
}
OTHER = 99
"""A reason without a number: of a plugin's engine, say."""


def verdict_code(verdict: str) -> int:
    """The number of a verdict; of an unknown one, that of ERROR."""
    return VERDICT_CODES.get(verdict, VERDICT_CODES["ERROR"])


def reason_code(reason: str | None) -> int:
    """The number of a reason, 0 without one."""
    return 0 if reason is None else REASON_CODES.get(reason, OTHER)


def state_code(state: str) -> int:
    """The number of a station's state; of an unknown one, that of Error."""
    return STATE_CODES.get(state, STATE_CODES["Error"])
