"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from differad_edge.client import calls
from differad_edge.client.calls import Call, Pictures
from differad_edge.client.core import ClientCore, slice_ms
from differad_edge.client.pictures import Picture
from differad_edge.client.stream import Gap, Pause, recovery
from differad_edge.errors import NoAnswerError, WireError
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted
from differad_edge.runtime.zeromq import zmq

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["InspectionClient"]

Answer = TypeVar("Answer")


class InspectionClient(ClientCore["zmq.Socket[bytes]", threading.Lock]):
    """Asks a running server, and follows its results.

    Every method may be called from any thread, and requests of several threads do not wait for each other. Threads that
    iterate share one stream: each result goes to one of them.

    ``keys``: the client's file out of "bundles" (see `differad-edge keys`); ``timeout_ms``: for an answer, unless a
    call says otherwise (register, calibrate and reload: 120 s); ``results`` None: the stream is not followed.

    The stream: ``recover``: fetch results that did not arrive from the server's journal and yield them in their place;
    ``on_gap`` is told of those that could not be fetched, ``on_message`` gets heartbeats, events and late results (both
    from the thread that reads, under its lock); ``wait_for_server``: iteration goes on when the server is silent, where
    it would raise NoAnswerError; ``after``: begin behind this sequence number, None: with what comes;
    ``silence_ms``: how long a living server may be silent, None: three of the heartbeats that it announces.
    ``max_message_bytes``: larger requests are not sent, because the server would break the connection.

    Methods raise NoAnswerError (no answer in time), RefusedError (``code`` says why), ImageError (the image cannot be
    sent), MessageError (what came is no answer), ConfigError (arguments of the constructor).
    """

    _new_context = zmq.Context
    _new_lock = threading.Lock

    # -- parts --------------------------------------------------------------------------------------------------------

    def inspect(
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
        return self._do(call, timeout_ms)

    @overload
    def trigger(
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
    def trigger(
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

    def trigger(
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
        answer: ResultRecord | Accepted = self._do(call, timeout_ms)
        return answer

    # -- the line -----------------------------------------------------------------------------------------------------

    def status(self, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """State, stations, products, counters, alarms."""
        return self._do(calls.plain("status"), timeout_ms)

    def product(self, product: str, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Threshold, calibration and references of a product."""
        return self._do(calls.plain("product", product=product), timeout_ms)

    def select_product(
        self, product: str, station: str | None = None, *, timeout_ms: float | None = None
    ) -> dict[str, Any]:
        """What later triggers are compared with; answers the station's status."""
        return self._do(calls.plain("select_product", product=product, station=station), timeout_ms)

    def register(
        self,
        product: str,
        images: Pictures | None = None,
        *,
        roi: Sequence[int] | None = None,
        from_station: str | None = None,
        timeout_ms: float | None = None,
    ) -> dict[str, Any]:
        """New golden samples: ``images``, or the live picture of a station; ``roi``: x1, y1, x2, y2 in pixels."""
        return self._do(calls.register(product, images, roi, from_station), timeout_ms)

    def calibrate(
        self,
        product: str,
        images: Pictures | None = None,
        *,
        reviewed: bool = False,
        timeout_ms: float | None = None,
    ) -> dict[str, Any]:
        """Fit the threshold to good parts; ``reviewed``: also to those that reviews call good."""
        return self._do(calls.calibrate(product, images, reviewed=reviewed), timeout_ms)

    def reload(self, engine: str | None = None, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Load engine and products anew; the old ones serve until then."""
        return self._do(calls.plain("reload", slow=True, engine=engine), timeout_ms)

    def reset(self, station: str | None = None, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Leave Error or Halted; None: every station."""
        return self._do(calls.plain("reset", station=station), timeout_ms)

    def halt(self, station: str | None = None, *, timeout_ms: float | None = None) -> dict[str, Any]:
        """Accept no more triggers until reset; None: every station."""
        return self._do(calls.plain("halt", station=station), timeout_ms)

    def stop(self, *, timeout_ms: float | None = None) -> None:
        """End the server, after the part in hand."""
        self._do(calls.plain("stop"), timeout_ms)

    def results(self, *, timeout_ms: float | None = None, **query: Any) -> list[dict[str, Any]]:
        """Records out of the journal with their reviews, as JSON types: ``results(verdict="NG", limit=20)``.

        The fields of a query: `differad_edge.runtime.journal_query.ResultQuery`.
        """
        return self._do(calls.results(query), timeout_ms)

    def review(
        self,
        sequence: int,
        mark: str,
        *,
        note: str | None = None,
        by: str | None = None,
        timeout_ms: float | None = None,
    ) -> dict[str, Any]:
        """Mark a result as "confirmed", "overruled" or "cleared"."""
        return self._do(calls.plain("review", sequence=sequence, mark=mark, note=note, by=by), timeout_ms)

    # -- the stream ---------------------------------------------------------------------------------------------------

    def next_result(self, timeout_ms: float | None = None) -> ResultRecord | None:
        """The next result; None when there was none in this time (None: no limit) although the server lives.

        Raises NoAnswerError when the server is silent.
        """
        give_up_s = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000.0
        if not self._reading.acquire(timeout=-1 if timeout_ms is None else max(0.0, timeout_ms / 1000.0)):
            return None  # another thread reads, and nothing came for it either
        try:
            while not self._ready:
                socket = self._stream_socket()
                if socket.poll(self._stream_wait_ms(give_up_s)):
                    self._absorb(socket.recv_multipart(zmq.NOBLOCK))
                elif give_up_s is not None and time.monotonic() >= give_up_s:
                    return None
                else:
                    self._check_silence()
            return self._ready.popleft()
        finally:
            self._reading.release()

    def __iter__(self) -> Iterator[ResultRecord]:
        """Every result as it is published, until the client is closed."""
        while not self.closed:
            try:
                record = self.next_result()
            except NoAnswerError:
                if not self.wait_for_server:
                    raise
            except WireError:
                if not self.closed:
                    raise
            else:
                if record is not None:
                    yield record

    def _absorb(self, frames: list[bytes]) -> None:
        arrival = self._take(frames)
        if arrival.gap is not None:
            self._fill(arrival.gap, *(self._fetch(arrival.gap) if self.recover else ([], "not-fetched")))
        self._deliver(arrival)

    def _fetch(self, gap: Gap) -> tuple[list[ResultRecord], str]:
        steps = recovery(gap)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    rows = self._do(step)
                except WireError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(rows)
        except StopIteration as done:
            found: tuple[list[ResultRecord], str] = done.value
            return found

    # -- life ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End iterations, give up requests that wait in other threads, and let go of the sockets."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._close_idle()
        with self._reading:
            if self._stream is not None:
                self._stream.close(0)
        while self._borrowed:  # their threads see it within a moment; term() would break into what they are doing
            time.sleep(0.005)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, call: Call[Answer], timeout_ms: float | None = None) -> Answer:
        limit_ms = self._limit_ms(call, timeout_ms)
        give_up_s = time.monotonic() + limit_ms / 1000.0
        request_id = self._new_request_id()
        frames = call.frames(request_id, self.max_message_bytes)
        socket = self._borrow()
        answered = False

        def wait(event: int) -> bool:
            while not socket.poll(slice_ms(give_up_s), event):
                self._check_open()
                if time.monotonic() >= give_up_s:
                    return False
            return True

        try:
            if not wait(zmq.POLLOUT):
                raise self._not_connected(limit_ms)
            socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
            while wait(zmq.POLLIN):
                reply = socket.recv_multipart(zmq.NOBLOCK)
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
