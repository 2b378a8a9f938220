"""What goes wrong, as an HTTP status and ``{"error": {"code", "message"}}``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from differad_edge import errors
from differad_edge.errors import DifferadError, RefusedError

__all__ = ["Problem", "answer", "install", "refusal"]

_log = logging.getLogger(__name__)

_REFUSALS = {"unknown-station": 404, "unknown-product": 404, "not-found": 404, "stopping": 503}
"""Other refusals are 409: the request is sound, the line is in no state to follow it."""

_STATUS: tuple[tuple[type[DifferadError], int], ...] = (
    (errors.UnknownProductError, 404),
    (errors.UnknownEngineError, 404),
    (errors.CorruptReferenceError, 500),
    (errors.ImageError, 422),
    (errors.BoxError, 422),
    (errors.RegionError, 422),
    (errors.ProductIdError, 422),
    (errors.DuplicateReferenceError, 422),
    (errors.IncompatibleReferenceError, 422),
    (errors.CalibrationError, 422),
    (errors.ConfigError, 422),
    (errors.MessageError, 422),
    (errors.NoAnswerError, 504),
    (errors.CameraError, 503),
    (errors.JournalError, 503),
)
_NAMES = {404: "not-found", 405: "method-not-allowed"}


class Problem(Exception):
    """A request that this room itself does not answer; ``code`` is stable, ``message`` is for people."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers or {})


def answer(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``data`` as strict JSON. Answers change from part to part, so nobody may keep them."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return Response(text.encode("utf-8", "backslashreplace"), status, kept, "application/json")


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a response."""
    return answer({"error": {"code": code, "message": message}}, status, headers)


def status_of(error: DifferadError) -> int:
    """The HTTP status of a typed error; 500 for those that a request cannot be blamed for."""
    if isinstance(error, RefusedError):
        return _REFUSALS.get(error.code, 409)
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def install(app: FastAPI) -> None:
    """Answer every exception of ``app``."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> Response:
        return refusal(error.status, error.code, str(error), error.headers)

    @app.exception_handler(DifferadError)
    async def on_error(_: Request, error: DifferadError) -> Response:
        return refusal(status_of(error), error.code, str(error))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        lines = [f"{'.'.join(map(str, item['loc']))}: got {item['input']!r}, {item['msg']}" for item in error.errors()]
        return refusal(422, "invalid-message", "; ".join(lines))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return refusal(error.status_code, _NAMES.get(error.status_code, "http"), message, error.headers)

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        # What failed stands in the log; a stranger at the socket learns nothing from it.
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return refusal(500, "internal", "the server failed at this request; its log says why")
