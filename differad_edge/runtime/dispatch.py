"""From a request to the line and back: what is done at once, and what is done beside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from differad_edge.errors import DifferadError
from differad_edge.runtime.lanes import Lane
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.requests import (
    Calibrate,
    Halt,
    Inspect,
    PlainRequest,
    Product,
    RawImage,
    Register,
    Reload,
    Request,
    Reset,
    Results,
    Review,
    SelectProduct,
    Status,
    Stop,
    Trigger,
    images_in,
)
from differad_edge.runtime.service import LineService
from differad_edge.runtime.wire import error_reply, reply, result_reply

__all__ = ["Answer", "Dispatcher", "error_of"]

_log = logging.getLogger(__name__)

Answer = Callable[[bytes], None]
"""Takes the reply; called once, from any thread."""


class Dispatcher:
    """Quick operations are done in the calling thread; three lanes do the others.

    decode: images that must be decoded, in the order they came; changes: register, calibrate, reload, one after the
    other; reads: the journal, the store, reset.
    """

    def __init__(self, service: LineService) -> None:
        self._service = service
        self._decode = Lane("control-decode", capacity=16)
        self._changes = Lane("control-changes", capacity=4)
        self._reads = Lane("control-reads", threads=2, capacity=64)
        self._lanes = (self._decode, self._changes, self._reads)

    def start(self) -> None:
        """Start the lanes."""
        for lane in self._lanes:
            lane.start()

    def close(self, timeout_s: float) -> None:
        """End the lanes; each gets ``timeout_s`` for what it is doing."""
        for lane in self._lanes:
            lane.close(timeout_s)

    def dispatch(self, request: Request, buffers: Sequence[memoryview], answer: Answer) -> None:
        """Do it, now or in a lane; whatever happens is told to ``answer``. Never raises."""

        def work() -> None:
            try:
                self._do(request, buffers, answer)
            except Exception as error:
                answer(error_of(request.request_id, error))

        lane = self._lane_of(request)
        if lane is None:
            work()
        elif not lane.offer(work):
            answer(error_reply(request.request_id, "busy", f"{request.op}: too many wait already; try again later"))

    def _lane_of(self, request: Request) -> Lane | None:
        if isinstance(request, Inspect):
            as_it_is = isinstance(request.image, RawImage) and request.image.shape[2:] == [3]
            return None if as_it_is else self._decode
        if isinstance(request, (Register, Calibrate, Reload)):
            return self._changes
        if isinstance(request, (Results, Review, Product, Reset, Halt, SelectProduct)):  # these wait for a disk
            return self._reads
        return None

    def _do(self, request: Request, buffers: Sequence[memoryview], answer: Answer) -> None:
        if isinstance(request, (Inspect, Trigger)):
            self._start_part(request, buffers, answer)
            return
        answer(reply(request.request_id, request.op, self._content(request, buffers)))
        if isinstance(request, Stop):
            self._service.stop()

    def _start_part(self, request: Inspect | Trigger, buffers: Sequence[memoryview], answer: Answer) -> None:
        request_id = request.request_id

        def on_result(record: ResultRecord) -> None:
            answer(result_reply(request_id, record))

        names: dict[str, Any] = {
            name: getattr(request, name) for name in ("station", "product", "trigger_id", "part_id", "job_id")
        }
        names["on_result"] = on_result if request.wait else None
        if isinstance(request, Inspect):
            (image,) = images_in(request, buffers)
            accepted = self._service.inspect(image, **names)
        else:
            accepted = self._service.trigger(**names)
        if not request.wait:
            answer(reply(request_id, "accepted", asdict(accepted)))

    def _content(self, request: PlainRequest, buffers: Sequence[memoryview]) -> Any:
        service = self._service
        match request:
            case Status():
                return service.status()
            case Product():
                return service.product(request.product)
            case SelectProduct():
                return service.select_product(request.product, station=request.station)
            case Register():
                images = images_in(request, buffers)
                return service.register(request.product, images, roi=request.roi, from_station=request.from_station)
            case Calibrate():
                return service.calibrate(request.product, images_in(request, buffers), reviewed=request.reviewed)
            case Reload():
                return service.reload(engine=request.engine)
            case Reset():
                return service.reset(station=request.station)
            case Halt():
                return service.halt(station=request.station)
            case Results():
                return service.results(request.query)
            case Review():
                return service.review(request.sequence, request.mark, note=request.note, by=request.by)
            case Stop():
                return {}


def error_of(request_id: str | None, error: Exception) -> bytes:
    """The reply to a request that failed; what is no DifferadError is a fault of the server, and logged."""
    if isinstance(error, DifferadError):
        return error_reply(request_id, error.code, str(error))
    _log.error("a request failed", exc_info=error)
    return error_reply(request_id, "internal", f"{type(error).__name__}: {error}; a fault of the server, see its log")
