"""A scripted line behind real sockets, and a watch for what tests leave open."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from typing_extensions import Self
from zmq.utils.garbage import GarbageCollectorThread
from zmq.utils.garbage import gc as pyzmq_garbage

from differad_edge.client import InspectionClient
from differad_edge.errors import NoAnswerError, RefusedError
from differad_edge.results import SCHEMA_VERSION, Box, Finding, InspectionResult, Timings, Verdict
from differad_edge.runtime.control import ControlServer
from differad_edge.runtime.keys import add_client, create_server_keys
from differad_edge.runtime.publisher import Publisher
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted, OnResult
from differad_edge.runtime.wire import encode_message

LIMIT_S = 10.0
"""For what must happen; nothing waits so long unless something is wrong."""

IMAGE = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """The first true value of ``condition``; fails after LIMIT_S."""
    give_up_s = time.monotonic() + LIMIT_S
    while not (value := condition()):
        assert time.monotonic() < give_up_s, f"never came true: {what or condition}"
        time.sleep(0.005)
    return value


def a_record(sequence: int, *, session: str = "s1", ng: bool = False, **changes: Any) -> ResultRecord:
    result = InspectionResult(
        verdict=Verdict.NG if ng else Verdict.OK,
        reason=None,
        score=0.9 if ng else 0.1,
        threshold=0.5,
        findings=(Finding(Box(1, 2, 3, 4), 0.9, "scratch"),) if ng else (),
        timings=Timings({"compare": 1.5}, 2.0),
        product="gasket-a",
        reference_id="r1",
        reference_sha256="ab" * 32,
        engine="scripted",
        image_size=(64, 48),
        alignment=None,
    )
    fields: dict[str, Any] = {
        "sequence": sequence,
        "session": session,
        "trigger_id": f"t{sequence}",
        "trigger": "request",
        "station": "main",
        "result": result,
        "captured_utc": "2026-01-01T00:00:00.000000Z",
        "captured_ns": 1,
        "engine_sha256": "cd" * 32,
    }
    return ResultRecord(**{**fields, **changes})


class FakeLine:
    """A `LineService` that answers at once, unless it is told to hold results back, to refuse, or to be slow."""

    def __init__(self, *, session: str = "s1", journal: list[ResultRecord] | None = None) -> None:
        self.session = session
        self.journal = [] if journal is None else journal
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.publish: Callable[[bytes], None] = lambda message: None
        self.held: list[Callable[[], ResultRecord]] | None = None
        self.errors: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.stopped = threading.Event()
        self._guard = threading.Lock()

    def hold_results(self) -> None:
        self.held = []

    def release(self) -> list[ResultRecord]:
        """Give the results that were held back."""
        held, self.held = self.held or [], None
        return [give() for give in held]

    def _called(self, op: str, **arguments: Any) -> None:
        with self._guard:
            self.calls.append((op, arguments))
        if op in self.gates:
            assert self.gates[op].wait(LIMIT_S)
        if op in self.errors:
            raise self.errors[op]

    def calls_of(self, op: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == op]

    def finish(self, on_result: OnResult | None = None, **names: Any) -> ResultRecord:
        """One result: into the journal, to the subscribers, to whoever asked."""
        with self._guard:
            given = {name: value for name, value in names.items() if value is not None}
            record = a_record(len(self.journal) + 1, session=self.session, **given)
            self.journal.append(record)
            self.publish(record.to_json())
        if on_result is not None:
            on_result(record)
        return record

    def beat(self, *, heartbeat_ms: float = 100.0, **changes: Any) -> None:
        message = {
            "type": "heartbeat",
            "schema_version": SCHEMA_VERSION,
            "session": self.session,
            "utc": "2026-01-01T00:00:00.000000Z",
            "sequence": self.journal[-1].sequence if self.journal else 0,
            "state": "Ready",
            "stations": [{"name": "main", "state": "Ready", "product": "gasket-a"}],
            "alarms": [],
            "uptime_s": 1.0,
            "heartbeat_ms": heartbeat_ms,
        }
        self.publish(encode_message({**message, **changes}))

    # -- LineService --------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        self._called("status")
        return {"state": "Ready", "session": self.session}

    def _part(self, on_result: OnResult | None, trigger_id: str | None, **names: Any) -> Accepted:
        trigger_id = trigger_id or f"auto-{len(self.calls)}"
        give = lambda: self.finish(on_result, trigger_id=trigger_id, **names)  # noqa: E731
        if self.held is not None:
            self.held.append(give)
        else:
            threading.Thread(target=give).start()
        return Accepted(trigger_id, names.get("station") or "main")

    def trigger(
        self,
        *,
        station: str | None = None,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        on_result: OnResult | None = None,
    ) -> Accepted:
        self._called("trigger", station=station, product=product, trigger_id=trigger_id)
        return self._part(on_result, trigger_id, station=station, part_id=part_id, job_id=job_id)

    def inspect(
        self,
        image: Any,
        *,
        station: str | None = None,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        on_result: OnResult | None = None,
    ) -> Accepted:
        self._called("inspect", image=image, station=station, product=product, trigger_id=trigger_id)
        return self._part(on_result, trigger_id, station=station, part_id=part_id, job_id=job_id)

    def select_product(self, product: str, *, station: str | None = None) -> dict[str, Any]:
        self._called("select_product", product=product, station=station)
        return {"name": station or "main", "product": product}

    def register(
        self,
        product: str,
        images: Sequence[Any],
        *,
        roi: Sequence[int] | None = None,
        from_station: str | None = None,
    ) -> dict[str, Any]:
        self._called("register", product=product, images=images, roi=roi, from_station=from_station)
        return {"product": product, "version": 1}

    def calibrate(self, product: str, images: Sequence[Any], *, reviewed: bool = False) -> dict[str, Any]:
        self._called("calibrate", product=product, images=images, reviewed=reviewed)
        return {"threshold": 0.5}

    def reload(self, *, engine: str | None = None) -> dict[str, Any]:
        self._called("reload", engine=engine)
        return {"engine": engine or "scripted"}

    def reset(self, *, station: str | None = None) -> dict[str, Any]:
        self._called("reset", station=station)
        return {"state": "Ready"}

    def halt(self, *, station: str | None = None) -> dict[str, Any]:
        self._called("halt", station=station)
        return {"state": "Halted"}

    def stop(self) -> None:
        self._called("stop")
        self.stopped.set()

    def results(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._called("results", **query)
        after, before = query.get("after_sequence", 0), query.get("before_sequence", 1 << 62)
        rows = [
            {**r.to_dict(), "review": None, "has_image": False} for r in self.journal if after < r.sequence < before
        ]
        return rows[: query.get("limit", 1000)]

    def image(self, sequence: int) -> bytes | None:
        return None

    def review(self, sequence: int, mark: str, *, note: str | None = None, by: str | None = None) -> dict[str, Any]:
        self._called("review", sequence=sequence, mark=mark, note=note, by=by)
        if sequence > len(self.journal):
            raise RefusedError("not-found", f"result {sequence}: not in the journal")
        return {"mark": mark, "note": note, "by": by}

    def live(self, station: str | None = None) -> tuple[None, None]:
        return None, None

    def product(self, product: str) -> dict[str, Any]:
        self._called("product", product=product)
        return {"id": product, "threshold": 0.5}

    def reference_image(self, product: str) -> Any:
        return IMAGE

    def subscribe(self, listener: Callable[[Mapping[str, Any]], None]) -> Callable[[], None]:
        return lambda: None

    def metrics(self) -> bytes:
        return b""


class Served:
    """A FakeLine with both sockets, and clients that are closed with it."""

    def __init__(
        self,
        line: FakeLine | None = None,
        *,
        control: str = "tcp://127.0.0.1:*",
        publish: str = "tcp://127.0.0.1:*",
        keys: Path | None = None,
        high_water_mark: int = 2000,
        **options: Any,
    ) -> None:
        self.line = FakeLine() if line is None else line
        self.publisher = Publisher(publish, keys=keys, high_water_mark=high_water_mark)
        try:
            self.control = ControlServer(self.line, control, keys=keys, **options)
        except BaseException:
            self.publisher.close()
            raise
        self.line.publish = self.publisher.send
        self.control.start()
        self._clients: list[InspectionClient] = []

    @property
    def addresses(self) -> tuple[str, str]:
        """Control, results."""
        return self.control.endpoint, self.publisher.endpoint

    def client(self, **options: Any) -> InspectionClient:
        client = InspectionClient(*self.addresses, **{"timeout_ms": 1000.0 * LIMIT_S, **options})
        self._clients.append(client)
        return client

    def following_client(self, **options: Any) -> InspectionClient:
        """A client whose subscription is known to have arrived: it has heard a heartbeat."""
        client = self.client(**options)

        def heard() -> bool:
            self.line.beat()
            # A busy machine may be silent for longer than a client allows that is made to find silence.
            with contextlib.suppress(NoAnswerError):
                assert client.next_result(timeout_ms=20) is None
            return client.last_heartbeat is not None

        until(heard, "a heartbeat")
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.close_server()

    def close_server(self) -> None:
        self.control.close()
        self.publisher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def raw_socket(kind: int, endpoint: str, **options: Any) -> Iterator[zmq.Socket[bytes]]:
    """A bare client socket; options by their pyzmq names."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        for name, value in options.items():
            setattr(socket, name, value)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(endpoint)
        yield socket


def ask(socket: zmq.Socket[bytes], *frames: bytes) -> list[bytes]:
    """Send one message and wait for the reply."""
    socket.send_multipart(frames)
    assert socket.poll(1000 * LIMIT_S), "no reply"
    return socket.recv_multipart()


def make_keys(folder: Path, *names: str) -> list[Path]:
    """A folder of keys; returns the clients' files."""
    create_server_keys(folder)
    return [add_client(folder, name) for name in names]


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Fails when a ZeroMQ socket or a thread outlives the block."""
    threads = set(_threads())
    sockets = {id(socket) for socket in _open_sockets()}
    yield
    until(lambda: not (set(_threads()) - threads), "the threads of the test have ended")
    leaked = [socket for socket in _open_sockets() if id(socket) not in sockets]
    assert not leaked, f"sockets left open: {leaked}"


# pyzmq keeps one thread with two sockets for the whole process; it lets go of buffers that were sent without a copy.


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if not isinstance(thread, GarbageCollectorThread)]


def _open_sockets() -> list[zmq.Socket[Any]]:
    sockets = [thing for thing in gc.get_objects() if isinstance(thing, zmq.Socket) and not thing.closed]
    return [socket for socket in sockets if socket.context is not pyzmq_garbage.context]
