"""Measure how long a PLC waits: from the trigger that it writes to the result bit that it reads, over Modbus TCP.

    python benchmarks/plc_latency.py [--parts 500] [--engine instant|lite] [--out FILE]

The real server with a simulated camera of 100 Hz, the journal on, and pymodbus's client on loopback as the PLC, which
polls as fast as it can. instant: an inspector of 0 ms, so that what is left is the line, its outbox, the panel, and the
wait for a frame that was captured after the trigger. Run it on an idle machine: the report holds the load.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from pymodbus.client import ModbusTcpClient
from runtime import InstantInspector, spread

from differad_edge import EdgeInspector
from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.machine import describe_machine
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP = 20
RATE_HZ = 100.0
_TRIGGER, _ACKNOWLEDGE = 1, 2
_ACCEPTED, _RESULT_READY, _TRIGGER_ERROR = 1 << 2, 1 << 3, 1 << 7
_INPUTS = 26


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=500)
    parser.add_argument("--engine", choices=("instant", "lite"), default="instant")
    parser.add_argument("--out", type=Path, default=RESULTS / "plc_latency.json")
    wanted = parser.parse_args()
    head = {
        "kind": "plc_latency",
        "machine": describe_machine(),
        "pymodbus": metadata.version("pymodbus"),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "engine": wanted.engine,
        "camera_rate_hz": RATE_HZ,
    }
    body = measure(wanted.parts, wanted.engine)
    wanted.out.write_text(json.dumps({**head, **body}, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(body, indent=2))
    print(wanted.out)


def measure(parts: int, engine: str) -> dict[str, Any]:
    """Latencies of ``parts`` triggers after the warm-up, and of a bare read of the panel."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        with EdgeInspector(store, threads=1) as inspector:
            inspector.register("gasket", [SimulatedProduct("gasket", 256).golden()])
        settings = LineSettings.model_validate(
            {
                "stations": [
                    {
                        "camera": {"source": f"sim:gasket?size=256&rate_hz={RATE_HZ:g}&pool=16"},
                        "product": "gasket",
                        "trigger": {"mode": "request"},
                        "mailbox": {"policy": "queue"},
                    }
                ],
                "inspector": {"store": store, "threads": 1},
                "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0"},
                "journal": {"path": Path(folder) / "journal.sqlite", "images": {"keep": "none"}},
                "outputs": [{"type": "modbus", "address": "127.0.0.1:0", "hold_ms": 0}],
            }
        )
        instant: dict[str, Any] = {
            "build_inspector": lambda name: InstantInspector(),
            "prove": lambda inspector, product: None,
        }
        with LineServer(settings, **(instant if engine == "instant" else {})) as server:
            if not server.wait_ready(120):
                raise SystemExit("the line does not become ready")
            host, _, port = server.outputs.output("modbus").address.rpartition(":")  # type: ignore[attr-defined]
            plc = ModbusTcpClient(host, port=int(port))
            plc.connect()
            try:
                return _measured(plc, parts)
            finally:
                plc.close()


def _measured(plc: ModbusTcpClient, parts: int) -> dict[str, Any]:
    accepted, results, reads = [], [], []
    for part in range(WARM_UP + parts):
        began_ns = time.perf_counter_ns()
        plc.read_input_registers(0, count=_INPUTS)
        read_ns = time.perf_counter_ns()
        plc.write_registers(0, [_TRIGGER, part % 60_000 + 1])
        _wait(plc, _ACCEPTED)
        accepted_ns = time.perf_counter_ns()
        _wait(plc, _RESULT_READY)
        result_ns = time.perf_counter_ns()
        plc.write_registers(0, [_ACKNOWLEDGE, 0])
        _wait(plc, _RESULT_READY, on=False)
        plc.write_registers(0, [0, 0])
        if part >= WARM_UP:
            reads.append((read_ns - began_ns) / 1e6)
            accepted.append((accepted_ns - read_ns) / 1e6)
            results.append((result_ns - read_ns) / 1e6)
    return {"trigger_to_accepted": spread(accepted), "trigger_to_result": spread(results), "bare_read": spread(reads)}


def _wait(plc: ModbusTcpClient, bit: int, *, on: bool = True) -> None:
    while True:
        status = plc.read_input_registers(0, count=1).registers[0]
        if status & _TRIGGER_ERROR:
            raise SystemExit("the line refuses a trigger")
        if bool(status & bit) is on:
            return


if __name__ == "__main__":
    main()
