"""The demo's line: a real server with simulated cameras, and a client that triggers every part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from differad_edge.cameras.simulated import SimulatedCamera, SimulatedProduct
from differad_edge.cli._demo_run import Inspected
from differad_edge.cli._files import write_image
from differad_edge.client import InspectionClient
from differad_edge.config import InspectorConfig
from differad_edge.images import Image
from differad_edge.inspector import EdgeInspector
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings

__all__ = ["DEMO_PRODUCTS", "PARTS_EACH", "SIZE_PX", "inspect_on_the_line"]

DEMO_PRODUCTS = ("gasket", "board", "label")  # one golden sample is enough for each
PARTS_EACH = 8
SIZE_PX = 640
_PATIENCE_S = 120.0  # a slow machine draws and compares its first part


def inspect_on_the_line(
    config: InspectorConfig, folder: Path, journal: Path, seed: int, golden: dict[str, Image]
) -> Iterator[Inspected]:
    """Register each simulated product, put it in front of a camera of one server, and trigger its first parts.

    Their images are kept below ``folder``; ``golden`` is filled with the golden samples. Raises SmokeTestError.
    """
    cameras = {f"sim:{name}": SimulatedCamera(SimulatedProduct(name, SIZE_PX, seed=seed)) for name in DEMO_PRODUCTS}
    with EdgeInspector(config=config) as inspector:
        for name in DEMO_PRODUCTS:
            golden[name] = cameras[f"sim:{name}"].product.golden()
            file = folder / f"{name}-golden.png"
            write_image(golden[name], file)
            inspector.register(name, [file])
    server = LineServer(_settings(config, journal), open_camera=lambda source: cameras[source])
    with server, InspectionClient(server.control_address, server.publish_address) as client:
        server.wait_ready(_PATIENCE_S)
        for name in DEMO_PRODUCTS:
            for number in range(1, PARTS_EACH + 1):
                record = client.trigger(station=name, timeout_ms=_PATIENCE_S * 1000)
                part = cameras[f"sim:{name}"].truth(record.frame_sequence or 0)
                file = folder / f"{name}-{number:02d}.png"
                write_image(part.image, file)
                result = record.result
                elapsed_ms = result.timings.total_ms
                yield Inspected(name, file.stem, file, part.defect, part.boxes, True, result, None, elapsed_ms)


def _settings(config: InspectorConfig, journal: Path) -> LineSettings:
    stations = [
        {
            "name": name,
            "camera": {"source": f"sim:{name}"},
            "product": name,
            "trigger": {"mode": "request", "frame_timeout_ms": _PATIENCE_S * 1000},
        }
        for name in DEMO_PRODUCTS
    ]
    anywhere = "tcp://127.0.0.1:0"
    return LineSettings.model_validate(
        {
            "stations": stations,
            "inspector": config.model_dump(),
            "wire": {"publish": anywhere, "control": anywhere},
            "journal": {"path": journal},
        }
    )
