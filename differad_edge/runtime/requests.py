"""Requests as the server reads them: a typed header for each operation, and the images in the buffers behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from differad_edge.errors import MessageError
from differad_edge.image_header import read_header
from differad_edge.images import DEFAULT_LIMITS, Image, ImageLimits, load_image
from differad_edge.runtime.wire import MAX_HEADER_BYTES, check_version, decode_message, shown

__all__ = [
    "Calibrate",
    "EncodedImage",
    "Halt",
    "ImageHead",
    "Inspect",
    "PlainRequest",
    "Product",
    "RawImage",
    "Register",
    "Reload",
    "Request",
    "Reset",
    "Results",
    "Review",
    "SelectProduct",
    "Status",
    "Stop",
    "Trigger",
    "images_in",
    "parse_request",
    "request_id_in",
]

_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Side = Annotated[int, Field(ge=0, le=1 << 20)]
_Scalar: TypeAlias = str | int | float | bool | None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RawImage(_Model):
    """Pixels as they lie in memory, row by row: HxW or HxWx1 grey, HxWx3 BGR, HxWx4 BGRA."""

    encoding: Literal["raw"]
    shape: Annotated[list[_Side], Field(min_length=2, max_length=3)]
    dtype: Literal["uint8"]


class EncodedImage(_Model):
    """The bytes of an image file."""

    encoding: Literal["png", "jpeg", "bmp", "tiff", "webp"]


ImageHead: TypeAlias = Annotated[RawImage | EncodedImage, Field(discriminator="encoding")]


class _Request(_Model):
    schema_version: int  # checked before everything else
    request_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")]

    @property
    def image_heads(self) -> Sequence[RawImage | EncodedImage]:
        """One for each buffer that follows."""
        return ()


class _Part(_Request):
    station: _Name | None = None
    product: _Name | None = None
    trigger_id: _Name | None = None
    part_id: _Name | None = None
    job_id: _Name | None = None
    wait: bool = True
    """False: answer that the trigger was accepted; the result is on the result stream."""


class Inspect(_Part):
    """Inspect the image that follows."""

    op: Literal["inspect"]
    image: ImageHead

    @property
    def image_heads(self) -> Sequence[RawImage | EncodedImage]:
        """The one."""
        return (self.image,)


class Trigger(_Part):
    """Inspect the next frame of a station's camera."""

    op: Literal["trigger"]


class Register(_Request):
    """Golden samples: the images that follow, or a station's live picture."""

    op: Literal["register"]
    product: _Name
    images: Annotated[list[ImageHead], Field(max_length=64)] = []
    roi: Annotated[list[int], Field(min_length=4, max_length=4)] | None = None
    from_station: _Name | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Register:
        if bool(self.images) == (self.from_station is not None):
            raise ValueError("either images or from_station")
        return self

    @property
    def image_heads(self) -> Sequence[RawImage | EncodedImage]:
        """Of the golden samples."""
        return self.images


class Calibrate(_Request):
    """Fit a threshold to good parts: the images that follow, those the reviews call good, or both."""

    op: Literal["calibrate"]
    product: _Name
    images: Annotated[list[ImageHead], Field(max_length=500)] = []
    reviewed: bool = False

    @model_validator(mode="after")
    def _some_source(self) -> Calibrate:
        if not self.images and not self.reviewed:
            raise ValueError("images, or reviewed, or both")
        return self

    @property
    def image_heads(self) -> Sequence[RawImage | EncodedImage]:
        """Of the good parts."""
        return self.images


class SelectProduct(_Request):
    """What later triggers are compared with."""

    op: Literal["select_product"]
    product: _Name
    station: _Name | None = None


class Status(_Request):
    """State, stations, products, counters, alarms."""

    op: Literal["status"]


class Product(_Request):
    """Threshold and references of a product."""

    op: Literal["product"]
    product: _Name


class Results(_Request):
    """Records out of the journal; the journal says which fields a query may have."""

    op: Literal["results"]
    query: Annotated[dict[str, _Scalar | list[_Scalar]], Field(max_length=32)] = {}


class Review(_Request):
    """A person's judgement of a result."""

    op: Literal["review"]
    sequence: Annotated[int, Field(ge=1, lt=1 << 63)]
    mark: Literal["confirmed", "overruled", "cleared"]
    note: Annotated[str, Field(max_length=2000)] | None = None
    by: _Name | None = None


class Reload(_Request):
    """Engine and products anew."""

    op: Literal["reload"]
    engine: _Name | None = None


class Reset(_Request):
    """Out of Error or Halted."""

    op: Literal["reset"]
    station: _Name | None = None


class Halt(_Request):
    """No more triggers until reset."""

    op: Literal["halt"]
    station: _Name | None = None


class Stop(_Request):
    """End the server."""

    op: Literal["stop"]


PlainRequest: TypeAlias = (
    Register | Calibrate | SelectProduct | Status | Product | Results | Review | Reload | Reset | Halt | Stop
)
"""Those that are answered when they are done; the others are answered by the result of a part."""

Request: TypeAlias = Inspect | Trigger | PlainRequest
_ADAPTER: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


def parse_request(header: bytes, buffers: int) -> Request:
    """The header of a request that has this many buffers behind it.

    Raises MessageError: too long, no JSON object, another schema version, an unknown operation or field, a value that
    is not allowed, more or fewer buffers than the header says.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise MessageError(f"header: got {len(header)} bytes, allowed: at most {MAX_HEADER_BYTES}")
    message = decode_message(header, "header")
    check_version(message, "header")
    try:
        request = _ADAPTER.validate_python(message)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise MessageError(_describe(first)) from error
    except RecursionError as error:
        raise MessageError("header: nested too deeply") from error
    expected = len(request.image_heads)
    if buffers != expected:
        raise MessageError(f"{request.op}: got {buffers} buffers behind the header, allowed: {expected}")
    return request


def request_id_in(header: bytes) -> str | None:
    """The id of a request that was refused, so that its sender knows which one it was; None when it has none."""
    if len(header) > MAX_HEADER_BYTES:
        return None
    try:
        found = decode_message(header).get("request_id")
    except MessageError:
        return None
    return found if isinstance(found, str) and len(found) <= 64 else None


def images_in(request: Request, buffers: Sequence[memoryview], *, limits: ImageLimits = DEFAULT_LIMITS) -> list[Image]:
    """The images of a request, each HxWx3 uint8 BGR; raw BGR is not copied.

    Raises MessageError when a buffer is not as long as its shape says, or holds another kind of file than was said;
    ImageError as `differad_edge.images.load_image` does.
    """
    return [
        _image(head, buffer, f"image {index}" if len(buffers) > 1 else "image", limits)
        for index, (head, buffer) in enumerate(zip(request.image_heads, buffers, strict=True))
    ]


def _image(head: RawImage | EncodedImage, buffer: memoryview, name: str, limits: ImageLimits) -> Image:
    if isinstance(head, RawImage):
        expected = math.prod(head.shape)
        if buffer.nbytes != expected:
            raise MessageError(
                f"{name}: got a buffer of {buffer.nbytes} bytes, allowed: {expected} for the shape {tuple(head.shape)}"
            )
        return load_image(np.frombuffer(buffer, np.uint8).reshape(head.shape), name=name, limits=limits)
    data = bytes(buffer)
    found = read_header(data, name).format.lower()
    if found != head.encoding:
        raise MessageError(f"{name}: got a {found} file where the header says {head.encoding}")
    return load_image(data, name=name, limits=limits)


def _describe(item: Mapping[str, Any]) -> str:
    operation, *rest = (str(part) for part in item["loc"]) if item["loc"] else ("header",)
    field = ".".join(rest)
    where = f"{operation}: {field}" if field else operation
    if item["type"] == "union_tag_invalid":
        return f"{where}: got {item['ctx']['tag'][:40]!r}, allowed: {item['ctx']['expected_tags']}"
    if item["type"] == "union_tag_not_found":
        return f"{where}: {item['ctx']['discriminator']} is missing"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown field"
    if item["type"] == "missing":
        return f"{where}: missing, and it has no default"
    if item["type"] == "value_error":  # about the request as a whole
        return f"{where}: needs {item['msg'].removeprefix('Value error, ')}"
    if operation == "results" and rest:
        return f"{where}: got {shown(item['input'])}, allowed: text, numbers, true, false, null, and lists of them"
    allowed = item["msg"].removeprefix("Input should be ")
    return f"{where}: got {shown(item['input'])}, allowed: {allowed}"
