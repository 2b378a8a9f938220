"""What can be seen of the line: state, results, pictures, products, and the stream of everything that happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from differad_edge.errors import DifferadError
from differad_edge.runtime.service import LineService
from differad_edge.web.assets import not_modified
from differad_edge.web.hub import EventStream, Hub
from differad_edge.web.pictures import Cache, LivePictures, etag_of, overlay, thumbnail, to_jpeg
from differad_edge.web.problems import Problem, answer
from differad_edge.web.queries import query_of, record_of, stored_result
from differad_edge.web.snapshots import Snapshots

__all__ = ["watching_routes"]

_SERVING = frozenset({"Ready", "SingleExecution", "ContinuousExecution"})
_THUMBNAILS = 128

Sequence = Annotated[int, Path(ge=1, le=1 << 62)]
Width = Annotated[int, Query(alias="w", ge=64, le=4096)]


def watching_routes(service: LineService, hub: Hub, snapshots: Snapshots) -> APIRouter:
    """Every GET of the line. Plain functions: they may wait for the line, so they run in threads, not in the loop."""
    routes = APIRouter()
    live = LivePictures(service.live)
    thumbnails = Cache(_THUMBNAILS)

    @routes.get("/healthz")
    def healthz() -> Response:
        try:
            alive = service.status().get("alive", True)
        except DifferadError:  # it answers, and that is what is asked
            alive = True
        return answer({"alive": alive}, 200 if alive else 503)

    @routes.get("/readyz")
    def readyz() -> Response:
        why = _unready(service.status())
        return answer({"ready": not why, "why": why}, 503 if why else 200)

    @routes.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.get("/api/status")
    def status() -> Response:
        return answer(service.status())

    @routes.get("/api/results")
    def results(request: Request) -> Response:
        return answer({"results": service.results(query_of(request.query_params))})

    @routes.get("/api/results/{sequence}")
    def result(sequence: Sequence) -> Response:
        return answer(stored_result(service, sequence))

    @routes.get("/api/results/{sequence}/image")
    def image(request: Request, sequence: Sequence) -> Response:
        return _picture(request, _kept(service, sequence), "image/png")

    @routes.get("/api/results/{sequence}/overlay")
    def overlaid(request: Request, sequence: Sequence) -> Response:
        png = _kept(service, sequence)
        return _picture(request, overlay(png, record_of(service, sequence).result))

    @routes.get("/api/results/{sequence}/thumbnail")
    def small(request: Request, sequence: Sequence) -> Response:
        def make() -> bytes:
            png = _kept(service, sequence)
            return thumbnail(png, record_of(service, sequence).result)

        return _picture(request, thumbnails.get(sequence, make))

    @routes.get("/api/live/{station}.jpg")
    def live_picture(request: Request, station: str, longest_px: Width = 960) -> Response:
        look = live.look(station, longest_px, lambda etag: not_modified(request, etag))
        if look is None:
            raise Problem(404, "no-frame", f"station {station!r} has not inspected a frame yet")
        headers = {"ETag": look.etag, "Cache-Control": "no-cache"}
        headers["X-Frame-Size"] = f"{look.size_px[0]}x{look.size_px[1]}"
        if look.record is not None:
            headers["X-Result-Sequence"] = str(look.record.sequence)
        if look.jpeg is None:
            return Response(status_code=304, headers=headers)
        return Response(look.jpeg, headers=headers, media_type="image/jpeg")

    @routes.get("/api/snapshot/{name}.jpg")
    def snapshot(request: Request, name: str) -> Response:
        return _picture(request, to_jpeg(snapshots.frame(name).image))

    @routes.get("/api/products/{product}")
    def product_of(product: str) -> Response:
        return answer(service.product(product))

    @routes.get("/api/products/{product}/reference.jpg")
    def reference(request: Request, product: str) -> Response:
        return _picture(request, to_jpeg(service.reference_image(product)))

    @routes.get("/api/stream")
    async def stream() -> Any:
        return _Stream(hub)

    return routes


class _Stream(Response):
    """FastAPI passes on what is a Response."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._stream = EventStream(hub)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._stream(scope, receive, send)


def _unready(status: Mapping[str, Any]) -> list[str]:
    """Why the line does not serve, a sentence for each station that does not."""
    stations = status.get("stations", [])
    why = [f"station {item['name']}: {item['state']}" for item in stations if item["state"] not in _SERVING]
    if not stations:
        why.append("no station")
    if not why and not status.get("ready"):
        why.append(f"line: {status.get('state')}")
    return why


def _kept(service: LineService, sequence: int) -> bytes:
    png = service.image(sequence)
    if png is None:
        raise Problem(404, "no-image", f"no image was kept of result {sequence}, or it has made room for newer ones")
    return png


def _picture(request: Request, data: bytes, kind: str = "image/jpeg") -> Response:
    headers = {"ETag": etag_of(data), "Cache-Control": "no-cache"}
    if not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)
