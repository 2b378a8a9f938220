"""The payload of Sparkplug B, as protobuf: only what an edge node without templates and data sets needs.

The fields and their numbers are those of the specification's sparkplug_b.proto. They stand here in code because no
package that carries them works beside paho-mqtt 2, and because generated code fits one version of protobuf.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from differad_edge.errors import MissingExtraError, OutputError

try:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import DecodeError
    from google.protobuf.message_factory import GetMessageClass
except ImportError as error:
    raise MissingExtraError("plc", "protobuf") from error

__all__ = ["DataType", "Metric", "Value", "decoded", "encoded", "now_ms"]

Value = bool | int | float | str | None


class DataType(IntEnum):
    """Those that are used here, by their numbers in the specification."""

    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13
    """Milliseconds since 1970, UTC."""


_FIELD_OF: Mapping[DataType, str] = {
    DataType.INT64: "long_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
    DataType.DATE_TIME: "long_value",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """``value`` None: null; ``stamp_ms``: when it was so; ``historical``: it is no current value any more."""

    name: str
    datatype: DataType
    value: Value
    stamp_ms: int
    historical: bool = False


def now_ms() -> int:
    """Wall time as payloads have it: milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def encoded(metrics: Iterable[Metric], *, stamp_ms: int | None = None, seq: int | None = None) -> bytes:
    """A payload, the same bytes for the same metrics."""
    payload = _Payload()
    if stamp_ms is not None:
        payload.timestamp = stamp_ms
    if seq is not None:
        payload.seq = seq
    for metric in metrics:
        found = payload.metrics.add(name=metric.name, timestamp=metric.stamp_ms, datatype=int(metric.datatype))
        if metric.historical:
            found.is_historical = True
        if metric.value is None:
            found.is_null = True
        elif _FIELD_OF[metric.datatype] == "long_value":
            found.long_value = int(metric.value) & 0xFFFF_FFFF_FFFF_FFFF  # the field is unsigned: two's complement
        else:
            setattr(found, _FIELD_OF[metric.datatype], metric.value)
    return bytes(payload.SerializeToString(deterministic=True))


def decoded(body: bytes) -> dict[str, Value]:
    """The metrics of a command by their names; of an unknown kind, or null: None. Raises OutputError."""
    payload = _Payload()
    try:
        payload.ParseFromString(body)
        return {metric.name: _value(metric) for metric in payload.metrics}
    except (DecodeError, ValueError) as error:  # ValueError: a text that is no UTF-8
        raise OutputError(f"sparkplug: no payload of Sparkplug B: {error}") from error


def _value(metric: Any) -> Value:
    field = metric.WhichOneof("value")
    if field is None or metric.is_null:
        return None
    found: Value = getattr(metric, field)
    return found


def _message_class() -> Any:
    """`Payload`, in a pool of its own: another package in this process may know the same names."""
    kinds, optional = FieldDescriptorProto, FieldDescriptorProto.LABEL_OPTIONAL
    file = FileDescriptorProto(name="sparkplug_b.proto", package="org.eclipse.tahu.protobuf", syntax="proto2")
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for name, number, kind in (
        ("name", 1, kinds.TYPE_STRING),
        ("alias", 2, kinds.TYPE_UINT64),
        ("timestamp", 3, kinds.TYPE_UINT64),
        ("datatype", 4, kinds.TYPE_UINT32),
        ("is_historical", 5, kinds.TYPE_BOOL),
        ("is_transient", 6, kinds.TYPE_BOOL),
        ("is_null", 7, kinds.TYPE_BOOL),
    ):
        metric.field.add(name=name, number=number, type=kind, label=optional)
    for name, number, kind in (
        ("int_value", 10, kinds.TYPE_UINT32),
        ("long_value", 11, kinds.TYPE_UINT64),
        ("float_value", 12, kinds.TYPE_FLOAT),
        ("double_value", 13, kinds.TYPE_DOUBLE),
        ("boolean_value", 14, kinds.TYPE_BOOL),
        ("string_value", 15, kinds.TYPE_STRING),
    ):
        metric.field.add(name=name, number=number, type=kind, label=optional, oneof_index=0)
    payload.field.add(name="timestamp", number=1, type=kinds.TYPE_UINT64, label=optional)
    payload.field.add(
        name="metrics",
        number=2,
        type=kinds.TYPE_MESSAGE,
        label=kinds.LABEL_REPEATED,
        type_name=".org.eclipse.tahu.protobuf.Payload.Metric",
    )
    payload.field.add(name="seq", number=3, type=kinds.TYPE_UINT64, label=optional)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("org.eclipse.tahu.protobuf.Payload"))


_Payload = _message_class()
