"""The asyncio client: the same names, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from differad_edge.client import calls
from differad_edge.client.calls import Call, Pictures
from differad_edge.client.core import ClientCore, slice_ms
from differad_edge.client.pictures import Picture
from differad_edge.client.stream import Arrival, Gap, Pause, recovery
from differad_edge.errors import NoAnswerError, WireError
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted
from differad_edge.runtime.zeromq import zmq, zmq_asyncio

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncInspectionClient"]

Answer = TypeVar("Answer")


class AsyncInspectionClient(ClientCore["zmq_asyncio.Socket", asyncio.Lock]):
    """`InspectionClient` for asyncio: the same arguments, methods and errors, and ``async for`` over the results.

    Build it and use it inside one running event loop. Requests of several tasks do not wait for each other, and a task
    that is cancelled loses no result; tasks that iterate share one stream.
    """

    _new_context = zmq_asyncio.Context
    _new_lock = asyncio.Lock
    _arrival: Arrival | None = None  # a task that was cancelled left it half done

    # -- parts --------------------------------------------------------------------------------------------------------

    async def inspect(
        self,
        image: Picture,
        product: str | None = None,
        station: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        trigger_id: str | None = None,
        timeout_ms: float | None = None,
    ) -> ResultRecord:
        """Inspect an image: HxWx3 uint8 BGR (sent without a copy), a path, or the bytes of an image file.

        ``product`` None: what the station has selected; ``station`` None: the only one.
        """
        call = calls.inspect(
            image, product=product, station=station, part_id=part_id, job_id=job_id, trigger_id=trigger_id
        )
        return await self._do(call, timeout_ms)

    @overload
    async def trigger(
        self,
        product: str | None = ...,
        station: str | None = ...,
        part_id: str | None = ...,
        job_id: str | None = ...,
        trigger_id: str | None = ...,
        *,
        wait: Literal[True] = ...,
        timeout_ms: float | None = ...,
    ) -> ResultRecord: ...

    @overload
    async def trigger(
        self,
        product: str | None = ...,
        station: str | None = ...,
        part_id: str | None = ...,
        job_id: str | None = ...,
        trigger_id: str | None = ...,
        *,
        wait: Literal[False],
        timeout_ms: float | None = ...,
    ) -> Accepted: ...

    async def trigger(
        self,
        product: str | None = None,
        station: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        trigger_id: str | None = None,
        *,
        wait: bool = True,
        timeout_ms: float | None = None,
    ) -> ResultRecord | Accepted:
        """Inspect the next frame of a station's camera; without ``wait`` the result is on the stream alone."""
        call = calls.trigger(
            wait, product=product, station=station, part_id=part_id, job_id=job_id, trigger_id=trigger_id
        )
        answer: ResultRecord | Accepted = await self._do(call, timeout_ms)
        return answer

    # -- the line -----------------------------------------------------------------------------------------------------

    async def status(self, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """State, stations, products, counters, alarms."""
        return await self._do(calls.plain("status"), timeout_ms)

    async def product(self, product: str, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Threshold, calibration and references of a product."""
        return await self._do(calls.plain("product", product=product), timeout_ms)

    async def select_product(
        self, product: str, station: str | None = None, *, timeout_ms: float | None = None
    ) -> dict[str, Any]:
        """What later triggers are compared with; answers the station's status."""
        return await self._do(calls.plain("select_product", product=product, station=station), timeout_ms)

    async def register(
        self,
        product: str,
        images: Pictures | None = None,
        *,
        roi: Sequence[int] | None = None,
        from_station: str | None = None,
        timeout_ms: float | None = None,
    ) -> dict[str, Any]:
        """New golden samples: ``images``, or the live picture of a station; ``roi``: x1, y1, x2, y2 in pixels."""
        return await self._do(calls.register(product, images, roi, from_station), timeout_ms)

    async def calibrate(
        self,
        product: str,
        images: Pictures | None = None,
        *,
        reviewed: bool = False,
        timeout_ms: float | None = None,
    ) -> dict[str, Any]:
        """Fit the threshold to good parts; ``reviewed``: also to those that reviews call good."""
        return await self._do(calls.calibrate(product, images, reviewed=reviewed), timeout_ms)

    async def reload(self, engine: str | None = None, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Load engine and products anew; the old ones serve until then."""
        return await self._do(calls.plain("reload", slow=True, engine=engine), timeout_ms)

    async def reset(self, station: str | None = None, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Leave Error or Halted; None: every station."""
        return await self._do(calls.plain("reset", station=station), timeout_ms)

    async def halt(self, station: str | None = None, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Accept no more triggers until reset; None: every station."""
        return await self._do(calls.plain("halt", station=station), timeout_ms)

    async def stop(self, *, timeout_ms: float | None = None) -> None:
        """End the server, after the part in hand."""
        await self._do(calls.plain("stop"), timeout_ms)

    async def results(self, *, timeout_ms: float | None = None, **query: Any) -> list[dict[str, Any]]:
        """Records out of the journal with their reviews, as JSON types: ``results(verdict="NG", limit=20)``.

        The fields of a query: `differad_edge.runtime.journal_query.ResultQuery`.
        """
        return await self._do(calls.results(query), timeout_ms)

    async def review(
        self,
        sequence: int,
        mark: str,
        *,
        note: str | None = None,
        by: str | None = None,
        timeout_ms: float | None = None,
    ) -> dict[str, Any]:
        """Mark a result as "confirmed", "overruled" or "cleared"."""
        return await self._do(calls.plain("review", sequence=sequence, mark=mark, note=note, by=by), timeout_ms)

    # -- the stream ---------------------------------------------------------------------------------------------------

    async def next_result(self, timeout_ms: float | None = None) -> ResultRecord | None:
        """The next result; None when there was none in this time (None: no limit) although the server lives.

        Raises NoAnswerError when the server is silent.
        """
        give_up_s = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000.0
        try:
            await asyncio.wait_for(self._reading.acquire(), None if timeout_ms is None else timeout_ms / 1000.0)
        except asyncio.TimeoutError:
            return None  # another task reads, and nothing came for it either
        try:
            while not self._ready:
                if self._arrival is None:
                    socket = self._stream_socket()
                    if await socket.poll(self._stream_wait_ms(give_up_s)):
                        self._arrival = self._take(await socket.recv_multipart(zmq.NOBLOCK))
                    elif give_up_s is not None and time.monotonic() >= give_up_s:
                        return None
                    else:
                        self._check_silence()
                else:
                    await self._settle(self._arrival)
            return self._ready.popleft()
        finally:
            self._reading.release()

    async def __aiter__(self) -> AsyncIterator[ResultRecord]:
        """Every result as it is published, until the client is closed."""
        while not self.closed:
            try:
                record = await self.next_result()
            except NoAnswerError:
                if not self.wait_for_server:
                    raise
            except WireError:
                if not self.closed:
                    raise
            else:
                if record is not None:
                    yield record

    async def _settle(self, arrival: Arrival) -> None:
        """Kept until it is done: a task that is cancelled while it fetches leaves the rest to the next one."""
        if arrival.gap is not None:
            self._fill(arrival.gap, *(await self._fetch(arrival.gap) if self.recover else ([], "not-fetched")))
        self._arrival = None
        self._deliver(arrival)

    async def _fetch(self, gap: Gap) -> tuple[list[ResultRecord], str]:
        steps = recovery(gap)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    rows = await self._do(step)
                except WireError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(rows)
        except StopIteration as done:
            found: tuple[list[ResultRecord], str] = done.value
            return found

    # -- life ---------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End iterations, give up requests that wait in other tasks, and let go of the sockets."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._close_idle()
        async with self._reading:
            if self._stream is not None:
                self._stream.close(0)
        while self._borrowed:  # their tasks see it within a moment, and term() would keep them from it
            await asyncio.sleep(0.005)
        self._context.term()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _do(self, call: Call[Answer], timeout_ms: float | None = None) -> Answer:
        limit_ms = self._limit_ms(call, timeout_ms)
        give_up_s = time.monotonic() + limit_ms / 1000.0
        request_id = self._new_request_id()
        frames = call.frames(request_id, self.max_message_bytes)
        socket = self._borrow()
        answered = False

        async def wait(event: int) -> bool:
            while not await socket.poll(slice_ms(give_up_s), event):  # type: ignore[call-arg]  # missing in its stub
                self._check_open()
                if time.monotonic() >= give_up_s:
                    return False
            return True

        try:
            if not await wait(zmq.POLLOUT):
                raise self._not_connected(limit_ms)
            await socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
            while await wait(zmq.POLLIN):
                reply = await socket.recv_multipart(zmq.NOBLOCK)
                answered = True
                answer = call.answer(reply, request_id)
                if answer is not None:
                    return answer[0]
                answered = False
            raise self._not_answered(call, limit_ms)
        except zmq.Again as error:  # it was connected a moment ago
            raise self._not_connected(limit_ms) from error
        finally:
            self._give_back(socket, answered=answered)
