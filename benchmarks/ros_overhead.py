"""Measure what the ROS 2 node adds to an inspection: real processes over DDS on loopback, with an engine of 0 ms.

    python benchmarks/ros_overhead.py [--seconds 60] [--rate-hz 10] [--sizes 640x480,1920x1080] [--out FILE]

This process is the camera and the listener, the node rehearses in another one (nobody inspects). Two spans, both by
monotonic clocks: node: from the image's arrival in the callback until the result is ready, without the engine;
round_trip: from before the image is published here until its record is back, DDS both ways included. Needs the extra
"ros". Run it on an idle machine: the report holds the load that it started under.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from differad_edge.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ros" / "differad_edge_ros"
START_S = 60.0
NODE_ARGUMENTS = ["--ros-args", "-p", "mode:=rehearsal", "-p", "autostart:=true", "--log-level", "error"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate-hz", type=float, default=10.0)
    parser.add_argument("--sizes", default="640x480,1920x1080")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "ros_overhead.json")
    wanted = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(PACKAGE / "config" / "fastdds.xml"))
    report = {
        "machine": describe_machine(),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "rclpy": metadata.version("ros-rclpy"),
        "seconds": wanted.seconds,
        "rate_hz": wanted.rate_hz,
        "sizes": {},
    }
    for name in wanted.sizes.split(","):
        width, height = map(int, name.split("x"))
        report["sizes"][name] = measure((width, height), wanted.seconds, wanted.rate_hz)
        print(name, json.dumps(report["sizes"][name]))
    wanted.out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(wanted.out)


def spread(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in ms."""
    p50, p95, p99 = np.percentile(values_ms, [50, 95, 99])
    figures = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max(values_ms)}
    return {name: round(float(value), 3) for name, value in figures.items()}


def measure(size: tuple[int, int], seconds: float, rate_hz: float) -> dict[str, Any]:
    """Publish for so long, and take stock. ``size``: (width, height) in pixels of bgr8."""
    import rclpy
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from std_msgs.msg import String

    rclpy.init()
    camera = rclpy.create_node("camera")
    states: list[str] = []
    records: list[tuple[int, dict[str, Any]]] = []
    publisher = camera.create_publisher(Image, "image", qos_profile_sensor_data)
    camera.create_subscription(
        String, "/inspector/record", lambda m: records.append((time.monotonic_ns(), json.loads(m.data))), 1000
    )
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    camera.create_subscription(String, "/inspector/state", lambda m: states.append(m.data), latched)
    node = subprocess.Popen(
        [sys.executable, "-m", "differad_edge_ros.node", *NODE_ARGUMENTS],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )

    def spin_until(end_s: float) -> None:
        while (left_s := end_s - time.monotonic()) > 0:
            rclpy.spin_once(camera, timeout_sec=left_s)

    try:
        give_up_s = time.monotonic() + START_S
        while "active" not in states or not publisher.get_subscription_count():
            assert time.monotonic() < give_up_s, "the node did not become active"
            rclpy.spin_once(camera, timeout_sec=0.1)
        spin_until(time.monotonic() + 1.0)
        message = image_of(size)
        sent_ns: dict[int, int] = {}
        begun_s, count = time.monotonic(), round(seconds * rate_hz)
        for number in range(count):
            message.header.stamp.sec = number + 1
            sent_ns[number + 1] = time.monotonic_ns()
            publisher.publish(message)
            spin_until(begun_s + (number + 1) / rate_hz)
        spin_until(time.monotonic() + 2.0)
    finally:
        node.terminate()
        node.wait(20)
        camera.destroy_node()
        rclpy.shutdown()
    return account(count, sent_ns, records)


def account(count: int, sent_ns: dict[int, int], records: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """What came of ``count`` images; ``records`` with the time of their arrival here."""
    stamps = [record["stamp"][0] for _, record in records]
    node_ms = [record["node_ms"]["total"] - record["node_ms"]["judge"] for _, record in records]
    round_trip_ms = [(here_ns - sent_ns[record["stamp"][0]]) / 1e6 for here_ns, record in records]
    dropped = {}
    for _, record in records:
        for drop in record["dropped"]:
            dropped[drop["cause"]] = dropped.get(drop["cause"], 0) + drop["count"]
    return {
        "published": count,
        "results": len(records),
        "dropped": dropped,
        "in_order_once_each": stamps == sorted(set(stamps)),
        "every_image_accounted_for": len(records) + sum(dropped.values()) == count,
        "node": spread(node_ms),
        "round_trip": spread(round_trip_ms),
    }


def image_of(size: tuple[int, int]) -> Any:
    """A bgr8 message of noise."""
    from sensor_msgs.msg import Image

    width, height = size
    data = array.array("B")
    data.frombytes(np.random.default_rng(0).integers(0, 256, 3 * width * height, dtype=np.uint8).tobytes())
    return Image(height=height, width=width, encoding="bgr8", step=3 * width, data=data)


if __name__ == "__main__":
    main()
