"""Values in the data type that a PLC's node has."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from asyncua import ua
from journals import record

from differad_edge.outputs.opcua.fields import FIELDS, VERDICT_FLAGS, result_values, state_values
from differad_edge.outputs.opcua.plc_nodes import PlcNode, to_variant
from differad_edge.results import Verdict

V = ua.VariantType


def written(field: str, kind: ua.VariantType, value: Any, limit: int = 254) -> Any:
    found = to_variant(PlcNode(field, "i=1", ua.NodeId(1), kind), value, limit)
    assert found.VariantType is kind
    return found.Value


@pytest.mark.parametrize(
    ("field", "kind", "value", "expected"),
    [
        ("passed", V.Boolean, True, True),
        ("passed", V.Int16, True, 1),
        ("passed", V.Byte, False, 0),
        ("verdict_code", V.SByte, 4, 4),
        ("score", V.Float, 0.5, 0.5),
        ("score_per_mille", V.SByte, 910.0, 127),
        ("score_per_mille", V.Int16, 909.6, 910),
        ("box_x1_px", V.UInt16, -3.2, 0),
        ("box_x1_px", V.Int16, -3.2, -3),
        ("box_x1_px", V.Int16, 40_000.0, 32767),
        ("duration_ms", V.Byte, 1e9, 255),
        ("result_id", V.Int32, 2**31 - 1, 2**31 - 1),
        ("result_id", V.Int32, 2**31, 1),
        ("result_id", V.UInt32, 2**31, 2**31),
        ("result_id", V.UInt32, 2**32, 1),
        ("result_id", V.Int64, 2**40, 2**40),
        ("acknowledge", V.UInt32, 0, 0),
        ("heartbeat", V.Byte, 255, 255),
        ("heartbeat", V.Byte, 256, 1),
        ("heartbeat", V.SByte, 128, 1),
        ("part_id", V.String, "a" * 254, "a" * 254),
        ("part_id", V.String, "a" * 255, "a" * 253 + "~"),
        ("part_id", V.String, "\ud800", "\\ud800"),
        ("record", V.String, "{" + "a" * 300, "{" + "a" * 300),
        ("captured", V.String, "2026-05-04T10:00:07.000000Z", "2026-05-04T10:00:07.000000Z"),
        (
            "captured",
            V.DateTime,
            "2026-05-04T10:00:07.250000Z",
            datetime(2026, 5, 4, 10, 0, 7, 250_000, tzinfo=timezone.utc),
        ),
    ],
)
def test_a_value_in_its_type(field: str, kind: ua.VariantType, value: Any, expected: Any) -> None:
    assert written(field, kind, value) == expected


def test_a_code_is_never_made_to_fit() -> None:
    with pytest.raises(ValueError, match=r"verdict_code \(i=1\): 300 does not fit into Byte"):
        written("verdict_code", V.Byte, 300)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_at_most_one_verdict_and_passed_for_ok_alone(verdict: Verdict) -> None:
    said = result_values(record(1, verdict.value).to_dict())
    assert [name for name in VERDICT_FLAGS if said[name]] == [
        {"OK": "passed", "NG": "failed"}.get(verdict.value, "undecided")
    ]


def test_every_field_has_a_value() -> None:
    said = {*result_values(record(1, "OK").to_dict()), *state_values("Ready", 1), "result_ready", "acknowledge"}
    assert said == set(FIELDS)
