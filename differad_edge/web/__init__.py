"""The dashboard: a page for people and an HTTP API for programs, both over a LineService. Needs the extra "web"."""

from __future__ import annotations

from differad_edge.errors import MissingExtraError

try:
    import fastapi as fastapi
    import uvicorn as uvicorn
except ImportError as error:
    # Here and nowhere else: no module of this room can be imported without passing by.
    raise MissingExtraError("web", (error.name or "fastapi").partition(".")[0]) from error

from differad_edge.web.app import create_app
from differad_edge.web.server import WebServer

__all__ = ["WebServer", "create_app"]
