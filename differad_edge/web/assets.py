"""The files of the page, read once: what is not in this table cannot be asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from differad_edge.web.problems import Problem

__all__ = ["asset_routes", "not_modified", "static_text"]

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class _Asset(NamedTuple):
    data: bytes
    kind: str
    etag: str


def static_text(name: str) -> str:
    """A file of the page, as text."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def not_modified(request: Request, etag: str) -> bool:
    """Whether the browser has this version already."""
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    return etag in known


def asset_routes() -> APIRouter:
    """/ and /static/<name>."""
    routes = APIRouter()
    assets = {path.name: _read(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}

    def serve(request: Request, name: str) -> Response:
        asset = assets.get(name)
        if asset is None:
            raise Problem(404, "not-found", f"no such file: {name!r}")
        # no-cache: asked every time and answered with 304, so that an update of the server is one of the page.
        headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
        if not_modified(request, asset.etag):
            return Response(status_code=304, headers=headers)
        return Response(asset.data, headers=headers, media_type=asset.kind)

    @routes.get("/")
    async def page(request: Request) -> Response:
        return serve(request, "index.html")

    @routes.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        return serve(request, name)

    @routes.get("/favicon.ico")
    async def icon(request: Request) -> Response:
        return serve(request, "icon.svg")

    return routes


def _read(path: Path) -> _Asset:
    data = path.read_bytes()
    return _Asset(data, _TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
