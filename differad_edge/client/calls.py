"""What can be asked of a server: for each operation its header, its buffers, and what the answer becomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from differad_edge.client.pictures import Buffer, Picture, pack_picture
from differad_edge.errors import MessageError, ResultError
from differad_edge.results import SCHEMA_VERSION
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted
from differad_edge.runtime.wire import MAX_HEADER_BYTES, encode_message, read_reply

__all__ = ["Call", "Pictures", "calibrate", "inspect", "plain", "record_of", "register", "results", "trigger"]

Answer = TypeVar("Answer")

Pictures: TypeAlias = "Picture | Sequence[Picture]"
"""One, or several."""

_BESIDE_THE_RECORD = ("review", "has_image")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request before it is sent. ``slow``: the server may work on it for a minute."""

    op: str
    fields: Mapping[str, Any]
    read: Callable[[str, Any], Answer]
    buffers: tuple[Buffer, ...] = ()
    slow: bool = False

    def frames(self, request_id: str, max_bytes: int) -> list[Buffer]:
        """Header and buffers. Raises MessageError when the header is too long or no JSON, or all together too large."""
        given = {name: value for name, value in self.fields.items() if value is not None}
        head = {"schema_version": SCHEMA_VERSION, "request_id": request_id, "op": self.op, **given}
        header = encode_message(head)
        if len(header) > MAX_HEADER_BYTES:
            raise MessageError(f"{self.op}: got a header of {len(header)} bytes, allowed: at most {MAX_HEADER_BYTES}")
        size = len(header) + sum(memoryview(buffer).nbytes for buffer in self.buffers)
        if size > max_bytes:
            raise MessageError(
                f"{self.op}: got {size} bytes, allowed: at most {max_bytes}, the server's max_message_bytes; a larger "
                "one has to be set at the server and at the client"
            )
        return [header, *self.buffers]

    def answer(self, frames: Sequence[bytes], request_id: str) -> tuple[Answer] | None:
        """The answer, in a tuple; None when the frames answer another request.

        Raises RefusedError with the server's code, MessageError for what is no reply.
        """
        found = read_reply(frames, request_id)
        if found is None:
            return None
        try:
            return (self.read(*found),)
        except (ResultError, TypeError, KeyError) as error:
            raise MessageError(f"{self.op}: the answer cannot be read: {error}") from error


def inspect(image: Picture, **names: str | None) -> Call[ResultRecord]:
    """``names``: product, station, part_id, job_id, trigger_id. Raises ImageError."""
    head, buffer = pack_picture(image)
    return Call("inspect", {"image": head, **names}, _read_record, (buffer,))


def trigger(wait: bool, **names: str | None) -> Call[Any]:
    """``names`` as for `inspect`. Answers the ResultRecord; without ``wait`` what was Accepted."""
    return Call("trigger", {**names, "wait": wait}, _read_record if wait else _read_accepted)


def register(
    product: str, images: Pictures | None, roi: Sequence[int] | None, from_station: str | None
) -> Call[dict[str, Any]]:
    """Raises ImageError."""
    heads, buffers = _pack_all(images)
    fields = {
        "product": product,
        "images": heads,
        "roi": None if roi is None else [int(edge) for edge in roi],
        "from_station": from_station,
    }
    return Call("register", fields, _read_as_it_is, buffers, slow=True)


def calibrate(product: str, images: Pictures | None, *, reviewed: bool) -> Call[dict[str, Any]]:
    """Raises ImageError."""
    heads, buffers = _pack_all(images)
    fields = {"product": product, "images": heads, "reviewed": reviewed}
    return Call("calibrate", fields, _read_as_it_is, buffers, slow=True)


def results(query: Mapping[str, Any]) -> Call[list[dict[str, Any]]]:
    """See `runtime.journal_query.ResultQuery`."""
    return Call("results", {"query": dict(query)}, _read_as_it_is)


def plain(op: str, *, slow: bool = False, **fields: Any) -> Call[dict[str, Any]]:
    """An operation with a header alone, which answers with JSON types."""
    return Call(op, fields, _read_as_it_is, slow=slow)


def record_of(stored: Mapping[str, Any]) -> ResultRecord:
    """The record in a row of `results`. Raises ResultError."""
    return ResultRecord.from_dict({k: v for k, v in stored.items() if k not in _BESIDE_THE_RECORD})


def _pack_all(pictures: Pictures | None) -> tuple[list[dict[str, Any]], tuple[Buffer, ...]]:
    if pictures is None:
        return [], ()
    several: Sequence[Any] = (
        [pictures] if isinstance(pictures, (str, os.PathLike, bytes, np.ndarray)) else list(pictures)
    )
    packed = [pack_picture(picture, f"image {index}") for index, picture in enumerate(several)]
    return [head for head, _ in packed], tuple(buffer for _, buffer in packed)


def _read_record(kind: str, content: Any) -> ResultRecord:
    if kind != "result":
        raise ResultError(f"got {kind!r}, allowed: 'result'")
    return ResultRecord.from_dict(content)


def _read_accepted(kind: str, content: Any) -> Accepted:
    if kind != "accepted":
        raise ResultError(f"got {kind!r}, allowed: 'accepted'")
    return Accepted(content["trigger_id"], content["station"])


def _read_as_it_is(kind: str, content: Any) -> Any:
    return content
