"""What a POST may bring: bounded in size and time, and typed."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Literal, TypeVar

from fastapi import Request
from pydantic import Field

from differad_edge.config import ConfigModel, parse_config
from differad_edge.errors import ConfigError
from differad_edge.web.problems import Problem

__all__ = [
    "MAX_IMAGE_BYTES",
    "MAX_WAIT_MS",
    "CalibrateBody",
    "RegisterBody",
    "ReloadBody",
    "ReviewBody",
    "SelectBody",
    "StationBody",
    "TriggerBody",
    "read_body",
    "read_json",
]

MAX_JSON_BYTES = 65_536
MAX_IMAGE_BYTES = 64 << 20
MAX_WAIT_MS = 60_000.0
_BODY_TIMEOUT_S = 30.0

Name = Annotated[str, Field(min_length=1, max_length=256)]
Pixel = Annotated[int, Field(ge=0, le=1 << 20)]
Model = TypeVar("Model", bound=ConfigModel)


class StationBody(ConfigModel):
    """Of halt, reset and snapshot."""

    station: Name | None = None


class TriggerBody(StationBody):
    """Of trigger; ``timeout_ms``: how long the answer may wait for the result."""

    product: Name | None = None
    trigger_id: Name | None = None
    part_id: Name | None = None
    job_id: Name | None = None
    wait: bool = True
    timeout_ms: Annotated[float, Field(gt=0, le=MAX_WAIT_MS)] = 5000.0


class SelectBody(StationBody):
    """Of select."""

    product: Name


class ReviewBody(ConfigModel):
    """Of review."""

    sequence: Annotated[int, Field(ge=1)]
    mark: Literal["confirmed", "overruled", "cleared"]
    note: Annotated[str, Field(max_length=2000)] | None = None
    by: Annotated[str, Field(max_length=128)] | None = None


class RegisterBody(StationBody):
    """Of register: a picture taken by /api/snapshot, or else whatever the station sees at that moment."""

    product: Name
    snapshot: Name | None = None
    roi: tuple[Pixel, Pixel, Pixel, Pixel] | None = None


class CalibrateBody(ConfigModel):
    """Of calibrate: on the good parts that were reviewed."""

    product: Name


class ReloadBody(ConfigModel):
    """Of reload."""

    engine: Name | None = None


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body. Raises Problem: 413 beyond ``limit_bytes``, 408 when it takes longer than 30 s."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        return await asyncio.wait_for(_collect(request, limit_bytes), _BODY_TIMEOUT_S)
    except asyncio.TimeoutError as error:
        raise Problem(408, "body-timeout", f"body: not complete after {_BODY_TIMEOUT_S:g} s") from error


async def _collect(request: Request, limit_bytes: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit_bytes:  # a chunked body declares nothing
            raise _too_large(limit_bytes)
    return bytes(data)


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as ``model``. Raises Problem: 415 for another type, 422 for what is no JSON object of this form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "unsupported-type", f"Content-Type: got {kind!r}, allowed: 'application/json'")
    data = await read_body(request, MAX_JSON_BYTES)
    try:
        return parse_config(json.loads(data), model, where="body")
    except (ValueError, RecursionError) as error:
        raise Problem(422, "invalid-message", f"body: no valid JSON: {error}") from error
    except ConfigError as error:
        raise Problem(422, "invalid-message", str(error)) from error


def _too_large(limit_bytes: int) -> Problem:
    # The rest of the body is not read, so the connection is of no more use.
    return Problem(413, "too-large", f"body: allowed: at most {limit_bytes} bytes", {"Connection": "close"})
