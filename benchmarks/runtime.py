"""Measure what the line adds to an inspection, and whether it holds for minutes without losing a part.

    python benchmarks/runtime.py overhead  [--frames 1000] [--rate-hz 20] [--out FILE]
    python benchmarks/runtime.py endurance [--minutes 10] [--rate-hz 5] [--size 800] [--out FILE]

overhead: 1280x960 frames, an inspector that answers at once, the journal on; from the capture stamp to a subscriber in
another process, for both durabilities, beside a bare pyzmq round trip of a result's size between two processes; once
with cores that sleep between frames, once with cores that are kept awake.
endurance: the real server with the embedded engine and a simulated camera; every frame must be a result or a drop that
is told. Run it on an idle machine: the report holds the load that it started under.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zmq

from differad_edge import EdgeInspector
from differad_edge.cameras.base import CameraInfo, Frame
from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.client import InspectionClient
from differad_edge.images import Image
from differad_edge.machine import describe_machine
from differad_edge.results import InspectionResult, Timings, Verdict
from differad_edge.runtime.record import RESULT_PREFIX
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings

RESULTS = Path(__file__).resolve().parent / "results"
WIDTH, HEIGHT = 1280, 960
WARM_UP = 50
_RING = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    overhead = kinds.add_parser("overhead")
    overhead.add_argument("--frames", type=int, default=1000)
    overhead.add_argument("--rate-hz", type=float, default=20.0)
    overhead.add_argument("--out", type=Path, default=RESULTS / "runtime_overhead.json")
    endurance = kinds.add_parser("endurance")
    endurance.add_argument("--minutes", type=float, default=10.0)
    endurance.add_argument("--rate-hz", type=float, default=5.0)
    endurance.add_argument("--size", type=int, default=800)
    endurance.add_argument("--out", type=Path, default=RESULTS / "runtime_endurance.json")
    wanted = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    head = {
        "kind": wanted.kind,
        "machine": describe_machine(),
        "pyzmq": metadata.version("pyzmq"),
        "libzmq": zmq.zmq_version(),
        "sqlite": __import__("sqlite3").sqlite_version,
        "load_1min": load,
    }
    if wanted.kind == "overhead":
        body = measure_overhead(wanted.frames, wanted.rate_hz)
    else:
        body = measure_endurance(wanted.minutes, wanted.rate_hz, wanted.size)
    wanted.out.write_text(json.dumps({**head, **body}, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(body, indent=2))
    print(wanted.out)


def spread(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in ms."""
    p50, p95, p99 = np.percentile(values_ms, [50, 95, 99])
    figures = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max(values_ms)}
    return {"n": len(values_ms), **{name: round(float(value), 3) for name, value in figures.items()}}


# -- overhead ---------------------------------------------------------------------------------------------------------


class InstantEngine:
    name = "instant"
    fingerprint = "0" * 64


class InstantInspector:
    """An inspector of 0 ms."""

    engine = InstantEngine()
    busy_ms = 0.0

    def inspect(self, frame: Image, product: str, deadline_ms: float | None = None, *, on_late: Any = None) -> Any:
        return InspectionResult(
            Verdict.OK, None, 0.1, 0.5, (), Timings({"compare": 0.0}, 0.0), product, f"{product}/ref-001", "0" * 64,
            "instant", (frame.shape[1], frame.shape[0]),
        )  # fmt: skip

    def register(self, product: str, images: Any, roi: Any = None) -> Any:
        raise NotImplementedError("nothing is registered while it is measured")

    def calibrate(self, product: str, good: Any) -> Any:
        raise NotImplementedError("nothing is calibrated while it is measured")

    def close(self) -> None:
        pass


class RingCamera:
    """Frames of noise at a steady rate, drawn beforehand."""

    def __init__(self, rate_hz: float) -> None:
        rng = np.random.default_rng(0)
        self._frames = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(_RING)]
        self._period_s = 1 / rate_hz
        self._due_s = 0.0
        self._sequence = 0

    def open(self) -> CameraInfo:
        self._due_s = time.monotonic()
        return CameraInfo("ring", "ring:", "ring-1", live=True, simulated=True)

    def read(self, timeout_ms: float) -> Frame:
        self._due_s += self._period_s
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._sequence += 1
        return Frame.now(self._frames[self._sequence % _RING], self._sequence, serial="ring-1")

    def close(self) -> None:
        pass


def measure_overhead(frames: int, rate_hz: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        EdgeInspector(store=store).register("p", [SimulatedProduct("gasket", 256).golden()])
        report: dict[str, Any] = {"frame_px": [WIDTH, HEIGHT], "rate_hz": rate_hz}
        for cores, kept in (("idle_cores", nullcontext()), ("awake_cores", _awake(context))):
            with kept:
                report[cores] = {
                    durability: _overhead_run(context, Path(folder), store, f"{cores}-{durability}", frames, rate_hz)
                    for durability in ("process", "power")
                }
                report[cores]["bare_pyzmq"] = _round_trips(context, 2000)
    return report


@contextmanager
def _awake(context: Any) -> Iterator[None]:
    """Cores that never sleep: a virtual one may take a third of a millisecond to wake, which is not the line's time.

    The processes that keep them awake run only when nobody else wants to (SCHED_IDLE).
    """
    spinners = [context.Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for spinner in spinners:
        spinner.start()
    time.sleep(2.0)  # they have to be there
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


def _spin() -> None:
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


def _overhead_run(context: Any, folder: Path, store: Path, name: str, frames: int, rate_hz: float) -> dict[str, Any]:
    durability = name.rpartition("-")[2]
    settings = LineSettings.model_validate(
        {
            "stations": [{"camera": {"source": "ring:"}, "product": "p", "mailbox": {"policy": "queue"}}],
            "inspector": {"store": store},
            "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0"},
            "journal": {"path": folder / f"{name}.sqlite", "durability": durability},
        }
    )
    server = LineServer(
        settings,
        build_inspector=lambda engine: InstantInspector(),
        open_camera=lambda source: RingCamera(rate_hz),
        prove=lambda inspector, product: None,
    )
    ours, theirs = context.Pipe()
    subscriber = context.Process(target=_subscribe, args=(server.publish_address, frames + WARM_UP, theirs))
    subscriber.start()
    assert ours.recv() == "listening"
    with server:
        taken = ours.recv()
        status = server.line.status()
    subscriber.join()
    latencies = [(received - captured) / 1e6 for received, captured, _, _ in taken[WARM_UP:]]
    judged = [ms for _, _, _, ms in taken[WARM_UP:]]
    sequences = [sequence for _, _, sequence, _ in taken]
    return {
        **spread(latencies),
        "until_judged": spread(judged),
        "journal_and_wire": spread([all_ms - ms for all_ms, ms in zip(latencies, judged, strict=True)]),
        "lost": sequences[-1] - sequences[0] + 1 - len(sequences),
        "dropped": status["stations"][0]["dropped"],
    }


def _subscribe(address: str, count: int, pipe: Connection) -> None:
    """(received, captured, sequence, ms until it was judged) of so many results; stamps of the monotonic clock."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, RESULT_PREFIX)
    socket.connect(address)
    pipe.send("listening")
    taken = []
    gc.disable()
    while len(taken) < count:
        message = socket.recv()
        received = time.monotonic_ns()
        record = json.loads(message)
        taken.append((received, record["captured_ns"], record["sequence"], record["timings"]["since_capture_ms"]))
    pipe.send(taken)
    socket.close(0)


def _round_trips(context: Any, count: int) -> dict[str, Any]:
    """There and back with a message of a result's size, between two processes."""
    ours, theirs = context.Pipe()
    echo = context.Process(target=_echo, args=(count + WARM_UP, theirs))
    echo.start()
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.connect(ours.recv())
    message, times = b"x" * 1500, []
    for _ in range(count + WARM_UP):
        began = time.perf_counter()
        socket.send(message)
        socket.recv()
        times.append((time.perf_counter() - began) * 1e3)
    echo.join()
    socket.close(0)
    return spread(times[WARM_UP:])


def _echo(count: int, pipe: Connection) -> None:
    socket = zmq.Context.instance().socket(zmq.REP)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    pipe.send(f"tcp://127.0.0.1:{port}")
    for _ in range(count):
        socket.send(socket.recv())
    socket.close(1000)


# -- endurance --------------------------------------------------------------------------------------------------------


def measure_endurance(minutes: float, rate_hz: float, size: int) -> dict[str, Any]:
    parts = round(minutes * 60 * rate_hz)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        EdgeInspector(store=folder / "store").register("gasket", [SimulatedProduct("gasket", size).golden()])
        addresses = {kind: f"ipc://{folder}/{kind}" for kind in ("publish", "control")}
        if platform.system() == "Windows":
            addresses = {"publish": "tcp://127.0.0.1:5670", "control": "tcp://127.0.0.1:5671"}
        source = f"sim:gasket?rate_hz={rate_hz:g}&size={size}&count={parts}"
        command = [sys.executable, "-m", "differad_edge", "serve", "--camera", source, "--product", "gasket"]
        command += ["--store", str(folder / "store"), "--journal", str(folder / "journal.sqlite")]
        command += ["--publish", addresses["publish"], "--control", addresses["control"]]
        with _process(command) as server, InspectionClient(addresses["control"], addresses["publish"]) as client:
            figures = _follow(client, psutil.Process(server.pid), parts)
            client.stop()
            server.wait(30)
            figures["exit_code"] = server.returncode
        figures["journal"] = _journal_count(folder / "journal.sqlite")
    return {"size_px": size, "rate_hz": rate_hz, "minutes": minutes, "engine": "lite", **figures}


def _follow(client: InspectionClient, server: psutil.Process, parts: int) -> dict[str, Any]:
    """Every frame of the camera is a result or a drop that a result or the status tells of."""
    _until(lambda: client.status()["sequence"] > 0, 60)
    seen: list[int] = []
    told: set[int] = set()
    sequences: list[int] = []
    latencies, memory, files = [], [], []
    next_look_s = time.monotonic()
    while True:
        record = client.next_result(timeout_ms=5000)
        if record is None:
            break
        sequences.append(record.sequence)
        if record.frame_sequence is not None:
            seen.append(record.frame_sequence)
            latencies.append(record.result.timings.since_capture_ms)
        for ranges in record.dropped.values():
            told.update(frame for first, last in ranges for frame in range(first, last + 1))
        if time.monotonic() >= next_look_s:
            next_look_s += 5.0
            memory.append(server.memory_info().rss / 2**20)
            files.append(server.num_fds() if hasattr(server, "num_fds") else server.num_handles())
        if record.frame_sequence == parts - 1:
            break
    station = client.status()["stations"][0]
    missing = set(range(parts)) - set(seen) - told
    late = memory[len(memory) // 4 :] or memory
    return {
        "parts": parts,
        "results": len(sequences),
        "lost_results": client.missed,
        "duplicated_results": len(sequences) - len(set(sequences)),
        "frames_inspected": len(seen),
        "frames_dropped": station["dropped"],
        "frames_unexplained": len(missing),
        "verdicts": station["counts"],
        "since_capture": spread(latencies),
        "memory_mib": {"after_a_quarter": round(late[0], 1), "last": round(late[-1], 1), "max": round(max(memory), 1)},
        "open_files": {"first": files[0], "last": files[-1], "max": max(files)},
    }


def _journal_count(file: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "differad_edge", "results", "--journal", str(file), "--format", "jsonl"],
        check=True,
        capture_output=True,
    )
    return len(done.stdout.splitlines())


def _until(condition: Callable[[], bool], limit_s: float) -> None:
    give_up_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError("the server did not begin in time")
        time.sleep(0.1)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


if __name__ == "__main__":
    main()
