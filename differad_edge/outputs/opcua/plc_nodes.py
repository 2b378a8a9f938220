"""The nodes of a PLC: what they are on its server, and values in exactly the data type that each has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from differad_edge.errors import MissingExtraError, OutputError
from differad_edge.outputs.opcua.fields import FIELDS, Kind

try:
    from asyncua import ua
    from asyncua.client.client import Client
    from asyncua.common.ua_utils import data_type_to_variant_type
    from asyncua.ua.attribute_ids import AttributeIds
    from asyncua.ua.uaerrors import UaError
except ImportError as error:
    raise MissingExtraError("plc", "asyncua") from error

__all__ = ["PlcNode", "find_nodes", "to_variant", "value_of"]

_V = ua.VariantType
_INTEGERS: Mapping[ua.VariantType, tuple[int, int]] = {
    _V.SByte: (-(2**7), 2**7 - 1),
    _V.Byte: (0, 2**8 - 1),
    _V.Int16: (-(2**15), 2**15 - 1),
    _V.UInt16: (0, 2**16 - 1),
    _V.Int32: (-(2**31), 2**31 - 1),
    _V.UInt32: (0, 2**32 - 1),
    _V.Int64: (-(2**63), 2**63 - 1),
    _V.UInt64: (0, 2**64 - 1),
}
_REALS = (_V.Float, _V.Double)
_HOLDS: Mapping[Kind, tuple[ua.VariantType, ...]] = {
    Kind.FLAG: (_V.Boolean, *_INTEGERS),
    Kind.CODE: tuple(_INTEGERS),
    Kind.MEASURE: (*_INTEGERS, *_REALS),
    Kind.FRACTION: _REALS,
    Kind.NUMBER: (_V.Int32, _V.UInt32, _V.Int64, _V.UInt64),
    Kind.COUNTER: tuple(_INTEGERS),
    Kind.TEXT: (_V.String,),
    Kind.DOCUMENT: (_V.String,),
    Kind.TIME: (_V.DateTime, _V.String),
}
_ASKED = (
    AttributeIds.NodeClass,
    AttributeIds.DataType,
    AttributeIds.ValueRank,
    AttributeIds.UserAccessLevel,
)
_READABLE, _WRITABLE = 1 << 0, 1 << 1
_CUT = "~"


@dataclass(frozen=True, slots=True)
class PlcNode:
    """Where a field goes. ``written``: its id, as the settings have it."""

    field: str
    written: str
    id: ua.NodeId
    type: ua.VariantType

    def __str__(self) -> str:
        return f"{self.field} ({self.written})"


async def find_nodes(client: Client, written: Mapping[str, str]) -> dict[str, PlcNode]:
    """Field -> its node. Raises OutputError that names every field whose node is missing or cannot hold it."""
    ids = {field: ua.NodeId.from_string(node) for field, node in written.items()}
    wanted = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in ids.values() for attribute in _ASKED]
    answers = await client.uaclient.read(ua.ReadParameters(NodesToRead=wanted))
    found: dict[str, PlcNode] = {}
    wrong: list[str] = []
    for index, (field, node) in enumerate(ids.items()):
        mine = answers[index * len(_ASKED) : (index + 1) * len(_ASKED)]
        try:
            found[field] = PlcNode(field, written[field], node, await _type_of(client, field, mine))
        except ValueError as error:
            wrong.append(f"{field} ({written[field]}): {error}")
    if wrong:
        raise OutputError("; ".join(wrong))
    return found


async def _type_of(client: Client, field: str, answers: list[ua.DataValue]) -> ua.VariantType:
    """Raises ValueError with what is wrong with the node."""
    kind, data_type, rank, access = map(value_of, answers)
    if kind != ua.NodeClass.Variable:
        raise ValueError(f"it is {ua.NodeClass(kind).name}, allowed: a variable")
    if rank >= 0:
        raise ValueError("it is an array, allowed: a single value")
    if not access & _WRITABLE:
        raise ValueError("it may not be written")
    if field == "acknowledge" and not access & _READABLE:
        raise ValueError("it may not be read")
    try:  # PLCs have data types of their own, below the standard ones
        found = await data_type_to_variant_type(client.get_node(data_type))
    except (UaError, ValueError) as error:
        raise ValueError(f"its data type {data_type} cannot be found out: {error}") from error
    if found not in _HOLDS[FIELDS[field]]:
        allowed = ", ".join(one.name for one in _HOLDS[FIELDS[field]])
        raise ValueError(f"it is {found.name}, allowed for this field: {allowed}")
    return found


def value_of(answer: ua.DataValue) -> Any:
    """Raises ValueError for one that the PLC does not give."""
    status = answer.StatusCode
    if status is not None and not status.is_good():
        said = {"BadNodeIdUnknown": "there is no such node"}
        raise ValueError(said.get(status.name, f"it cannot be read: {status.name}"))
    return None if answer.Value is None else answer.Value.Value


def to_variant(node: PlcNode, value: Any, text_limit: int) -> ua.Variant:
    """``value`` as the node holds it, by the rules of docs/OUTPUTS.md. Raises ValueError and TypeError."""
    kind, target = FIELDS[node.field], node.type
    if target is _V.String:
        return ua.Variant(_text(str(value), None if kind is Kind.DOCUMENT else text_limit), target)
    if target is _V.DateTime:
        return ua.Variant(datetime.fromisoformat(str(value).replace("Z", "+00:00")), target)
    if target is _V.Boolean:
        return ua.Variant(bool(value), target)
    if target in _REALS:
        return ua.Variant(float(value), target)
    least, most = _INTEGERS[target]
    if kind in (Kind.NUMBER, Kind.COUNTER):
        return ua.Variant(0 if value == 0 else (value - 1) % most + 1, target)  # 0 says that there is none
    whole = round(value)
    if kind is Kind.MEASURE:
        whole = max(least, min(most, whole))
    if not least <= whole <= most:
        raise ValueError(f"{node}: {value!r} does not fit into {target.name}")
    return ua.Variant(whole, target)


def _text(value: str, limit: int | None) -> str:
    value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    if limit is None or len(value) <= limit:
        return value
    return value[: limit - 1] + _CUT
