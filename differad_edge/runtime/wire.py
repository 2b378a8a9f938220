"""What goes over the wire: one JSON object a message on the result stream, header and buffers in requests.

Result stream (PUB): every message is one frame of UTF-8 JSON with ``type`` and ``schema_version``.
    result     `ResultRecord.to_json`; begins with RESULT_PREFIX, so that a subscriber may ask for results alone
    late       the same of a comparison that ended after its deadline; its trigger has had its result long ago
    heartbeat  session, utc, sequence (of the last result), state, stations, alarms, uptime_s, heartbeat_ms
    event      session, utc, kind, station, code, detail
Results leave in the order of their sequence, and a heartbeat's sequence names only results that have left before it.

Requests (ROUTER): ``[header, buffer, ...]``; the header is a JSON object, see `runtime.requests`.
Replies: one frame, ``{"schema_version": 1, "request_id": ..., "ok": true, "type": T, T: ...}`` or
``{"schema_version": 1, "request_id": ..., "ok": false, "error": {"code": ..., "message": ...}}``.

This module needs the standard library only: clients import it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from differad_edge.errors import MessageError, RefusedError
from differad_edge.results import SCHEMA_VERSION
from differad_edge.runtime.record import ResultRecord, to_json_bytes

__all__ = [
    "ENCODINGS",
    "MAX_HEADER_BYTES",
    "RAW",
    "check_version",
    "decode_message",
    "decode_published",
    "encode_message",
    "error_reply",
    "read_reply",
    "reply",
    "result_reply",
    "shown",
]

MAX_HEADER_BYTES = 65_536

RAW = "raw"
ENCODINGS = ("png", "jpeg", "bmp", "tiff", "webp")
"""How an image may be sent beside RAW: as the bytes of such a file."""

_PUBLISHED = ("result", "late", "heartbeat", "event")
_SHOWN_CHARACTERS = 80


def encode_message(message: Mapping[str, Any]) -> bytes:
    """Strict, compact UTF-8 JSON. Raises MessageError for NaN, infinity, and what is no JSON type."""
    try:
        return to_json_bytes(message)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"message: cannot be written as JSON: {error}") from error


def decode_message(data: bytes, what: str = "message") -> dict[str, Any]:
    """Undo encode_message(); ``what`` begins every message.

    Raises MessageError: not UTF-8, no JSON, no object, a key twice, NaN or infinity, numbers beyond a float, too deep.
    """
    try:
        message = json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_keys_once
        )
    except RecursionError as error:
        raise MessageError(f"{what}: nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise MessageError(f"{what}: no valid UTF-8 JSON: {error}") from error
    if not isinstance(message, dict):
        raise MessageError(f"{what}: got {type(message).__name__}, allowed: a JSON object")
    return message


def decode_published(data: bytes) -> dict[str, Any]:
    """A message of the result stream. Raises MessageError, also for another schema version or an unknown type."""
    message = decode_message(data)
    check_version(message, "message")
    if message.get("type") not in _PUBLISHED:
        raise MessageError(f"message: type: got {shown(message.get('type'))}, allowed: {', '.join(_PUBLISHED)}")
    return message


def reply(request_id: str, kind: str, content: Any) -> bytes:
    """A request was done; ``content``: JSON types, under the name ``kind``. Raises MessageError."""
    head = {"schema_version": SCHEMA_VERSION, "request_id": request_id, "ok": True, "type": kind}
    return encode_message({**head, kind: content})


def result_reply(request_id: str, record: ResultRecord) -> bytes:
    """The result that was asked for; the record is written once, as it is published."""
    head = encode_message({"schema_version": SCHEMA_VERSION, "request_id": request_id, "ok": True, "type": "result"})
    return head[:-1] + b',"result":' + record.to_json() + b"}"


def error_reply(request_id: str | None, code: str, message: str) -> bytes:
    """A request was not done; ``request_id``: None when the request was too broken to have one."""
    error = {"code": code, "message": message}
    return encode_message({"schema_version": SCHEMA_VERSION, "request_id": request_id, "ok": False, "error": error})


def read_reply(frames: Sequence[bytes], request_id: str) -> tuple[str, Any] | None:
    """(kind, content) of a reply; None when it answers another request than ``request_id``.

    Raises RefusedError with the server's code, MessageError for what is no reply.
    """
    if len(frames) != 1:
        raise MessageError(f"reply: got {len(frames)} frames, allowed: 1")
    message = decode_message(frames[0], "reply")
    check_version(message, "reply")
    # Without an id it is about a request that the server could not read: the last one, so this one.
    if message.get("request_id") not in (request_id, None):
        return None
    if message.get("ok") is True and isinstance(kind := message.get("type"), str) and kind in message:
        return kind, message[kind]
    error = message.get("error")
    if message.get("ok") is False and isinstance(error, dict):
        raise RefusedError(str(error.get("code", RefusedError.code)), str(error.get("message", "")))
    raise MessageError(f"reply: got neither a result nor an error: {shown(message)}")


def check_version(message: Mapping[str, Any], what: str) -> None:
    """Raise MessageError unless the schema version is this one."""
    version = message.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise MessageError(f"{what}: schema_version: got {shown(version)}, allowed: {SCHEMA_VERSION}")


def shown(value: object) -> str:
    """A value as error messages show it: never longer than a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"got {name}, allowed: finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"got {text[:_SHOWN_CHARACTERS]}, allowed: numbers that fit a float")
    return value


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    message = dict(pairs)
    if len(message) != len(pairs):
        raise ValueError("a key is given twice")
    return message
