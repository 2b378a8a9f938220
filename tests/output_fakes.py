"""Outputs that are told what to do, a line in memory, and a real server with a scripted inspector."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from line_fakes import ScriptedInspector, picture, until

from differad_edge.errors import OutputError, RefusedError
from differad_edge.outputs.base import Record
from differad_edge.references.store import ReferenceStore
from differad_edge.results import Verdict
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings

LIMIT_S = 60.0
SECRET = "correct-horse-battery"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ScriptedOutput:
    """Keeps what it is sent. ``fail_opening`` and ``fail_sending`` count down; ``gate``: what sending waits for."""

    def __init__(self, most_at_once: int = 1) -> None:
        self.most_at_once = most_at_once
        self.got: list[int] = []
        self.batches: list[int] = []
        self.openings = self.closings = self.checks = 0
        self.fail_opening = self.fail_sending = 0
        self.refuse: set[int] = set()
        self.error: Exception = OutputError("peer: it is not there")
        self.refusal: Exception = OutputError("peer: never")
        self.gate: threading.Event | None = None
        self.entered = threading.Event()
        self.pulses: list[Mapping[str, Any]] = []

    def open(self) -> None:
        self.openings += 1
        if self.fail_opening:
            self.fail_opening -= 1
            raise self.error

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        self.entered.set()
        while self.gate is not None and not self.gate.is_set():
            if stop.wait(0.005):
                return
        if self.fail_sending:
            self.fail_sending -= 1
            raise self.error
        if any(record["sequence"] in self.refuse for record in records):
            raise self.refusal
        self.batches.append(len(records))
        self.got += [record["sequence"] for record in records]

    def check(self) -> None:
        self.checks += 1

    def show(self, pulse: Mapping[str, Any]) -> None:
        self.pulses.append(pulse)

    def close(self) -> None:
        self.closings += 1


class ScriptedControl:
    """A line that accepts every trigger, or refuses with the code ``refuse``."""

    def __init__(self) -> None:
        self.triggers: list[dict[str, Any]] = []
        self.commands: list[str] = []
        self.refuse: str | None = None

    def trigger(self, **given: Any) -> None:
        if self.refuse is not None:
            raise RefusedError(self.refuse, "scripted")
        self.triggers.append(given)

    def reset(self, *, station: str | None = None) -> dict[str, Any]:
        self.commands.append(f"reset {station}")
        return {}

    def halt(self, *, station: str | None = None) -> dict[str, Any]:
        self.commands.append(f"halt {station}")
        return {}

    def select_product(self, product: str, *, station: str | None = None) -> dict[str, Any]:
        self.commands.append(f"select {product}")
        return {}


def a_line(
    folder: Path,
    outputs: Sequence[Mapping[str, Any]],
    *,
    script: Callable[[Any, str], Verdict] = lambda image, product: Verdict.OK,
    **station: Any,
) -> LineServer:
    """A whole server of one station "main" on a scripted inspector; its journal survives in ``folder``."""
    store = ReferenceStore(folder / "store")
    if "p" not in store.product_ids():
        store.register("p", [picture(7)])
    given = {
        "product": "p",
        "trigger": {"mode": "request", "frame_timeout_ms": 10_000},
        "mailbox": {"policy": "queue", "capacity": 1000},
        **station,
    }
    settings = LineSettings.model_validate(
        {
            "stations": [given],
            "inspector": {"store": folder / "store"},
            "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0", "heartbeat_ms": 50},
            "journal": {"path": folder / "journal.sqlite", "images": {"keep": "none"}},
            "outputs": [{"retry_min_ms": 20, "retry_max_ms": 200, **output} for output in outputs],
        }
    )
    return LineServer(
        settings,
        build_inspector=lambda engine: ScriptedInspector(script),
        prove=lambda inspector, product: None,
    )


def started(server: LineServer) -> LineServer:
    server.start()
    assert server.wait_ready(30)
    return server


def give(server: LineServer, count: int, *, seed: int = 0) -> list[ResultRecord]:
    """``count`` parts one after the other, each with its result."""
    given: list[ResultRecord] = []
    for index in range(count):
        done = threading.Event()

        def keep(record: ResultRecord, done: threading.Event = done) -> None:
            given.append(record)
            done.set()

        server.line.inspect(picture(seed + index, (16, 16)), on_result=keep)
        assert done.wait(LIMIT_S)
    return given


class Broker:
    """A real mosquitto that can be killed and started again at the same port."""

    def __init__(self, folder: Path, *, config: str = "allow_anonymous true\n") -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "mosquitto.conf"
        self._file.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\npersistence true\npersistence_location {folder}/\n"
            f"autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n{config}",
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [mosquitto(), "-c", str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, 10)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """It takes what its socket takes, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


PLC_PROGRAM = """
import time
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

client = ModbusTcpClient("127.0.0.1", port={port}, timeout=5)
while True:
    try:
        if not client.connected:
            if not client.connect():
                time.sleep(0.02)
                continue
            client.write_registers(0, [0, 0])  # what it had set when it was killed
        inputs = client.read_input_registers(0, count=26).registers
        if inputs[0] & 8:
            print(inputs[4] << 16 | inputs[5], inputs[7], flush=True)
            client.write_registers(0, [2, 0])
            while client.read_input_registers(0, count=1).registers[0] & 8:
                pass
            client.write_registers(0, [0, 0])
    except (ModbusException, OSError):
        client.close()
"""


class PlcProcess:
    """A PLC in a process of its own, which may be killed; what it has taken stands in a file."""

    def __init__(self, port: int, log: Path) -> None:
        self._log = log
        self._file = log.open("a")
        program = PLC_PROGRAM.format(port=port)
        self._process = subprocess.Popen([sys.executable, "-c", program], stdout=self._file)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._file.close()

    @staticmethod
    def taken(log: Path) -> list[int]:
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        return [int(line.split()[0]) for line in lines]


def mosquitto() -> str:
    """Its path; skips the test without it."""
    import shutil

    import pytest

    found = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
    if found is None:
        pytest.skip("mosquitto is not installed: scripts/system-packages")
    return found
