"""Measure what outputs cost an inspection: with none, with peers that are alive, with peers that are dead, in one run.

    python benchmarks/outputs.py [--parts 1000] [--block 50] [--size 400] [--out FILE]

Two real servers with the embedded engine of one thread and the journal on: one without outputs, one that sends every
result durably to a broker (mosquitto), a signed webhook and a PLC over Modbus, all of them processes of their own, and
serves OPC UA. Blocks of parts take turns: none, alive, dead, where dead is kill -9 of all three peers before the block.
inspection: the engine's own time; part: from handing the image over until its result. ``alive_again`` is a second
series of the alive blocks: how far two series lie apart that should be equal. In the end every result of the second
server must have reached all three. Needs the extra "plc" and mosquitto; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from importlib import metadata
from pathlib import Path
from typing import Any

from runtime import spread

from differad_edge import EdgeInspector
from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.machine import describe_machine
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings

RESULTS = Path(__file__).resolve().parent / "results"
CONDITIONS = ("none", "alive", "dead", "alive_again")
WARM_UP, DELIVERY_S = 20, 120.0
SECRET = "a key for this run alone"

RECEIVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(json.loads(body)["sequence"], flush=True)
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
PLC = """
import sys, time
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
client = ModbusTcpClient("127.0.0.1", port=int(sys.argv[1]), timeout=5)
while True:
    time.sleep(0.005)  # a PLC's cycle
    try:
        if not client.connected:
            if not client.connect():
                continue
            client.write_registers(0, [0, 0])  # what it had set when it was killed
        inputs = client.read_input_registers(0, count=26).registers
        if inputs[0] & 8:
            print(inputs[4] << 16 | inputs[5], flush=True)
            client.write_registers(0, [2, 0])
            while client.read_input_registers(0, count=1).registers[0] & 8:
                time.sleep(0.005)
            client.write_registers(0, [0, 0])
    except (ModbusException, OSError):
        client.close()
"""


class Peers:
    """The broker, the web server and the PLC: processes that are killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.broker, self.web, self.plc = (_free_port() for _ in range(3))
        self._logs = {name: folder / f"{name}.txt" for name in ("web", "plc")}
        (folder / "mosquitto.conf").write_text(
            f"listener {self.broker} 127.0.0.1\nuser root\nallow_anonymous true\npersistence false\n", encoding="ascii"
        )
        broker = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if broker is None:
            raise SystemExit("mosquitto is not installed: scripts/system-packages")
        self._commands = {
            "broker": [broker, "-c", str(folder / "mosquitto.conf")],
            "web": [sys.executable, "-c", RECEIVER, str(self.web)],
            "plc": [sys.executable, "-c", PLC, str(self.plc)],
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def alive(self) -> bool:
        return bool(self._processes)

    def start(self) -> None:
        for name, command in self._commands.items():
            with self._logs.get(name, Path(os.devnull)).open("a") as log:
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL))

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def heard(self) -> dict[str, set[int]]:
        """Of the web server and the PLC; the broker keeps no list, its confirmations are counted by the line."""
        return {name: {int(line) for line in log.read_text().split("\n")[:-1]} for name, log in self._logs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=1000, help="for each condition")
    parser.add_argument("--block", type=int, default=50)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULTS / "outputs.json")
    wanted = parser.parse_args()
    head = {
        "kind": "outputs",
        "machine": describe_machine(),
        **{name: metadata.version(name) for name in ("paho-mqtt", "pymodbus", "asyncua")},
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "size_px": wanted.size,
        "block": wanted.block,
    }
    body = measure(wanted.parts, wanted.block, wanted.size)
    wanted.out.write_text(json.dumps({**head, **body}, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(body, indent=2))
    print(wanted.out)


def measure(parts: int, block: int, size: int) -> dict[str, Any]:
    """The four conditions, in blocks that take turns."""
    os.environ["BENCHMARK_SECRET"] = SECRET
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        product = SimulatedProduct("gasket", size)
        with EdgeInspector(folder / "store", threads=1) as inspector:
            inspector.register("gasket", [product.golden()])
        peers = Peers(folder)
        images = [product.good(index) for index in range(16)]
        outputs = [
            {"type": "mqtt", "host": "127.0.0.1", "port": peers.broker, "durable": True},
            {
                "type": "webhook",
                "url": f"http://127.0.0.1:{peers.web}/",
                "secret_env": "BENCHMARK_SECRET",
                "durable": True,
            },
            {"type": "modbus", "address": f"127.0.0.1:{peers.plc}", "hold_ms": 0, "durable": True},
            {"type": "opcua", "address": f"127.0.0.1:{_free_port()}"},
        ]
        spans: dict[str, dict[str, list[float]]] = {one: defaultdict(list) for one in CONDITIONS}
        with LineServer(_settings(folder, "none", [])) as bare, LineServer(_settings(folder, "all", outputs)) as full:
            peers.start()
            try:
                for server in (bare, full):
                    if not server.wait_ready(120):
                        raise SystemExit("the line does not become ready")
                    _inspect(server, images, WARM_UP)
                _wait(lambda: all(one["open"] for one in full.line.status()["outputs"]), "an output does not open")
                for _ in range(-(-parts // block)):
                    for condition in CONDITIONS:
                        _be(peers, alive=condition != "dead")
                        server = bare if condition == "none" else full
                        for inspection_ms, part_ms in _inspect(server, images, block):
                            spans[condition]["inspection"].append(inspection_ms)
                            spans[condition]["part"].append(part_ms)
                _be(peers, alive=True)
                sent = set(range(1, WARM_UP + sum(len(spans[one]["part"]) for one in CONDITIONS[1:]) + 1))
                _wait(lambda: all(sent <= heard for heard in peers.heard().values()), "a result never arrives")
                _wait(lambda: all(not one["waiting"] for one in full.line.status()["outputs"]), "results still wait")
                stats = {one["name"]: one for one in full.line.status()["outputs"]}
            finally:
                peers.kill()
    report: dict[str, Any] = {
        one: {span: spread(values) for span, values in found.items()} for one, found in spans.items()
    }
    for span in ("inspection", "part"):
        for compared, with_what in (("dead", "alive"), ("alive_again", "alive"), ("alive", "none")):
            report[f"{span}_p99_{compared}_over_{with_what}"] = round(
                report[compared][span]["p99_ms"] / report[with_what][span]["p99_ms"], 3
            )
    report["outputs"] = {
        name: {key: one[key] for key in ("sent", "failures", "dropped")} for name, one in stats.items()
    }
    return report


def _settings(folder: Path, name: str, outputs: list[dict[str, Any]]) -> LineSettings:
    return LineSettings.model_validate(
        {
            "stations": [
                {"product": "gasket", "trigger": {"mode": "request"}, "mailbox": {"policy": "queue", "capacity": 4}}
            ],
            "inspector": {"store": folder / "store", "threads": 1},
            "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0"},
            "journal": {"path": folder / f"{name}.sqlite", "images": {"keep": "none"}},
            "outputs": outputs,
        }
    )


def _inspect(server: LineServer, images: list[Any], count: int) -> list[tuple[float, float]]:
    spans = []
    for index in range(count):
        done = threading.Event()
        got: list[tuple[ResultRecord, int]] = []

        def keep(record: ResultRecord, got: Any = got, done: threading.Event = done) -> None:
            got.append((record, time.perf_counter_ns()))
            done.set()

        began_ns = time.perf_counter_ns()
        server.line.inspect(images[index % len(images)], on_result=keep)
        if not done.wait(30):
            raise SystemExit("a part has no result")
        [(record, ended_ns)] = got
        spans.append((record.result.timings.total_ms, (ended_ns - began_ns) / 1e6))
    return spans


def _be(peers: Peers, *, alive: bool) -> None:
    if alive and not peers.alive:
        peers.start()
        time.sleep(1.0)  # their start is no part of what they cost
    elif not alive and peers.alive:
        peers.kill()


def _wait(condition: Any, otherwise: str) -> None:
    give_up_s = time.monotonic() + DELIVERY_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise SystemExit(otherwise)
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
