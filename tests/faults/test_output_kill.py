"""kill -9 of a line and of its peers: what stands in the journal reaches every durable output, in order."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from line_fakes import picture, until
from output_fakes import SECRET, Broker, PlcProcess, free_port
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from differad_edge.client import InspectionClient
from differad_edge.outputs.webhook import verify
from differad_edge.references.store import ReferenceStore
from differad_edge.runtime.journal_query import ResultQuery
from differad_edge.runtime.journal_reader import JournalReader

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("line_process.py")
KILLS, RESULTS, RATE_HZ = 10, 1000, 60.0


class Line:
    """A server process of line_process.py with outputs."""

    def __init__(
        self, folder: Path, outputs: Sequence[dict[str, Any]], *, trigger: dict[str, Any] | None = None
    ) -> None:
        station: dict[str, Any] = {"camera": {"source": "fast:"}, "product": "p"}
        if trigger is not None:
            station["trigger"] = trigger
        settings = {
            "stations": [station],
            "outputs": [{"durable": True, "retry_min_ms": 20, "retry_max_ms": 200, **one} for one in outputs],
        }
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), "--rate-hz", str(RATE_HZ), "--settings", json.dumps(settings)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "HOOK_SECRET": SECRET},
        )
        assert self._process.stdout is not None
        self.addresses = json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


class Receiver:
    """A web server that keeps the numbers of what it confirms."""

    def __init__(self) -> None:
        self.got: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert verify(SECRET, self.headers["Differad-Timestamp"], body, self.headers["Differad-Signature"])
                receiver.got.append(json.loads(body)["sequence"])
                self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Subscriber:
    """Of a broker, in a session that outlives the broker's end."""

    def __init__(self, port: int) -> None:
        self.got: list[int] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="subscriber", protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = lambda _, __, message: self.got.append(json.loads(message.payload)["sequence"])
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe("differad-edge/+/result", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=lasting)
        self._client.loop_start()
        assert subscribed.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def written(folder: Path) -> list[int]:
    """The numbers in the journal."""
    if not (folder / "journal.sqlite").exists():
        return []
    with JournalReader(folder / "journal.sqlite") as reader:
        return [stored.record.sequence for stored in reader.all_results(ResultQuery())]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
def test_a_line_and_peers_killed_during_1000_results_lose_none_that_was_written(tmp_path: Path) -> None:
    ReferenceStore(tmp_path / "store").register("p", [picture(7)])
    log, chance = tmp_path / "plc.txt", random.Random(7)
    broker, receiver = Broker(tmp_path / "broker"), Receiver()
    broker.start()
    subscriber = Subscriber(broker.port)
    plc_port = free_port()
    outputs = [
        {"type": "mqtt", "host": "127.0.0.1", "port": broker.port, "capacity": 50},
        {"type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/", "secret_env": "HOOK_SECRET", "capacity": 50},
        {"type": "modbus", "address": f"127.0.0.1:{plc_port}", "hold_ms": 0, "capacity": 50},
    ]
    heard: dict[str, Callable[[], list[int]]] = {
        "mqtt": lambda: subscriber.got,
        "webhook": lambda: receiver.got,
        "modbus": lambda: PlcProcess.taken(log),
    }
    plc, kills = PlcProcess(plc_port, log), 0
    line: Line | None = None
    try:
        while kills < KILLS or len(written(tmp_path)) < RESULTS:
            line = Line(tmp_path, outputs)
            time.sleep(chance.uniform(1.0, 2.5))
            if kills % 3 == 1:  # the broker goes before the line, and is not there when it comes back
                broker.kill()
                time.sleep(0.2)
            if kills % 3 == 2:
                broker.start()
                plc.kill()
            line.kill()
            if kills % 3 == 2:
                plc = PlcProcess(plc_port, log)
            kills += 1
        broker.kill()
        broker.start()
        line = Line(tmp_path, outputs, trigger={"mode": "request"})  # nothing new: what is left is delivered
        numbers = written(tmp_path)
        assert numbers == list(range(1, len(numbers) + 1))
        for name, got in heard.items():
            until(lambda got=got: set(numbers) <= set(got()), 120)
            assert list(dict.fromkeys(got())) == numbers, f"{name}: not in order, or never written"
        with InspectionClient(line.addresses["control"], line.addresses["publish"]) as client:
            assert [one["dropped"] for one in client.status()["outputs"]] == [{}, {}, {}]
    finally:
        if line is not None:
            line.kill()
        plc.kill()
        subscriber.close()
        receiver.close()
        broker.kill()
