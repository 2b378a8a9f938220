"""What can be done to the line: every POST of the API."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from differad_edge.images import load_image
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted, LineService
from differad_edge.web import bodies
from differad_edge.web.problems import Problem, answer, refusal
from differad_edge.web.snapshots import Snapshots

__all__ = ["acting_routes"]

_IMAGE_TYPES = ("image/png", "image/jpeg")
_UPLOADS_AT_ONCE = 4

Name = Annotated[str | None, Query(min_length=1, max_length=256)]
WaitMs = Annotated[float, Query(gt=0, le=bodies.MAX_WAIT_MS)]


def acting_routes(service: LineService, snapshots: Snapshots) -> APIRouter:
    """Methods of the line may wait, so they are called in threads."""
    routes = APIRouter()
    # Each one may hold a file and the picture in it: the rest wait with their bytes on their side of the socket.
    uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    @routes.post("/api/trigger")
    async def trigger(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.TriggerBody)
        waiting = _OneResult() if body.wait else None
        accepted = await run_in_threadpool(
            service.trigger,
            station=body.station,
            product=body.product,
            trigger_id=body.trigger_id,
            part_id=body.part_id,
            job_id=body.job_id,
            on_result=waiting,
        )
        return await _answer(accepted, waiting, body.timeout_ms)

    @routes.post("/api/inspect")
    async def inspect(
        request: Request,
        station: Name = None,
        product: Name = None,
        trigger_id: Name = None,
        part_id: Name = None,
        job_id: Name = None,
        wait: bool = True,
        timeout_ms: WaitMs = 5000.0,
    ) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _IMAGE_TYPES:
            raise Problem(415, "unsupported-type", f"Content-Type: got {kind!r}, allowed: {', '.join(_IMAGE_TYPES)}")
        waiting = _OneResult() if wait else None
        async with uploads:
            data = await bodies.read_body(request, bodies.MAX_IMAGE_BYTES)

            def submit() -> Accepted:
                return service.inspect(
                    load_image(data, name="body"),
                    station=station,
                    product=product,
                    trigger_id=trigger_id,
                    part_id=part_id,
                    job_id=job_id,
                    on_result=waiting,
                )

            accepted = await run_in_threadpool(submit)
        return await _answer(accepted, waiting, timeout_ms)

    @routes.post("/api/select")
    async def select(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.SelectBody)
        return answer(await run_in_threadpool(service.select_product, body.product, station=body.station))

    @routes.post("/api/review")
    async def review(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.ReviewBody)
        return answer(
            await run_in_threadpool(
                service.review, body.sequence, body.mark, note=body.note or None, by=body.by or None
            )
        )

    @routes.post("/api/snapshot")
    async def snapshot(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.StationBody)
        frame, _ = await run_in_threadpool(service.live, body.station)
        if frame is None:
            raise Problem(404, "no-frame", "no frame has been inspected yet")
        height, width = frame.image.shape[:2]
        return answer({"snapshot": snapshots.hold(frame), "size": [width, height], "captured_utc": frame.captured_utc})

    @routes.post("/api/register")
    async def register(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.RegisterBody)
        if body.snapshot is not None:
            images, station = [snapshots.frame(body.snapshot).image], None
        elif body.station is not None:
            images, station = [], body.station
        else:
            raise Problem(422, "invalid-message", "body: snapshot or station: missing, allowed: one of the two")
        return answer(
            await run_in_threadpool(service.register, body.product, images, roi=body.roi, from_station=station)
        )

    @routes.post("/api/calibrate")
    async def calibrate(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.CalibrateBody)
        return answer(await run_in_threadpool(service.calibrate, body.product, [], reviewed=True))

    @routes.post("/api/reload")
    async def reload(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.ReloadBody)
        return answer(await run_in_threadpool(service.reload, engine=body.engine))

    @routes.post("/api/reset")
    async def reset(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.StationBody)
        return answer(await run_in_threadpool(service.reset, station=body.station))

    @routes.post("/api/halt")
    async def halt(request: Request) -> Response:
        body = await bodies.read_json(request, bodies.StationBody)
        return answer(await run_in_threadpool(service.halt, station=body.station))

    return routes


class _OneResult:
    """Takes the result from whichever thread of the line brings it, and hands it to the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[ResultRecord] = self._loop.create_future()

    def __call__(self, record: ResultRecord) -> None:
        try:
            self._loop.call_soon_threadsafe(self._set, record)
        except RuntimeError:
            return  # the dashboard was closed meanwhile; the result stands in the journal

    def _set(self, record: ResultRecord) -> None:
        if not self._future.done():
            self._future.set_result(record)

    async def wait(self, timeout_ms: float) -> ResultRecord | None:
        """None when it is not there in time."""
        try:
            return await asyncio.wait_for(self._future, timeout_ms / 1000)
        except asyncio.TimeoutError:
            return None


async def _answer(accepted: Accepted, waiting: _OneResult | None, timeout_ms: float) -> Response:
    told: dict[str, Any] = {"trigger_id": accepted.trigger_id, "station": accepted.station}
    if waiting is None:
        return answer(told, 202)
    record = await waiting.wait(timeout_ms)
    if record is None:
        message = (
            f"trigger {accepted.trigger_id}: no result within {timeout_ms:g} ms; it will still come, on the stream"
        )
        return refusal(504, "no-result", message)
    return answer(record.to_dict())
