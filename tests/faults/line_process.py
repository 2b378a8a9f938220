"""A server process for tests that kill it: an inspector that answers at once, a camera at full speed, a real journal.

    python tests/faults/line_process.py FOLDER [--rate-hz 300] [--busy-ms 0]

Prints {"publish": address, "control": address} once it listens.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any

from line_fakes import ScriptedInspector, picture

from differad_edge.cameras.base import CameraInfo, Frame
from differad_edge.images import Image
from differad_edge.results import Verdict
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings


class FastCamera:
    """Another picture each time."""

    def __init__(self, rate_hz: float) -> None:
        self._pictures = [picture(seed) for seed in range(8)]
        self._period_s = 1 / rate_hz
        self._sequence = 0

    def open(self) -> CameraInfo:
        return CameraInfo("fast", "fast:", "fast-1", live=True, simulated=True)

    def read(self, timeout_ms: float) -> Frame:
        time.sleep(self._period_s)
        self._sequence += 1
        return Frame.now(self._pictures[self._sequence % 8], self._sequence, serial="fast-1")

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate-hz", type=float, default=300.0)
    parser.add_argument("--busy-ms", type=float, default=0.0)
    parser.add_argument("--settings", type=json.loads, default={})
    wanted = parser.parse_args()

    def script(image: Image, product: str) -> Verdict:
        time.sleep(wanted.busy_ms / 1000)
        return Verdict.NG if image[0, 0, 0] % 2 else Verdict.OK

    given: dict[str, Any] = {
        "stations": [{"camera": {"source": "fast:"}, "product": "p"}],
        "inspector": {"store": wanted.folder / "store"},
        "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0", "heartbeat_ms": 100},
        "journal": {"path": wanted.folder / "journal.sqlite"},
        **wanted.settings,
    }
    server = LineServer(
        LineSettings.model_validate(given),
        build_inspector=lambda engine: ScriptedInspector(script),
        open_camera=lambda source: FastCamera(wanted.rate_hz),
        prove=lambda inspector, product: None,
    )
    signal.signal(signal.SIGTERM, lambda number, frame: server.stop())
    with server:
        print(json.dumps({"publish": server.publish_address, "control": server.control_address}), flush=True)
        server.wait()


if __name__ == "__main__":
    main()
