"""A recorded cell: images and results in a rosbag2, played again into another node, give the recorded results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'differad-edge[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")

from ros_process import image_message
from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_typestore
from scenes import Scene

from differad_edge import EdgeInspector
from differad_edge.results import Box

if TYPE_CHECKING:
    from ros_process import Cell
    from sensor_msgs.msg import Image

pytestmark = pytest.mark.slow
SAME = ("stamp", "frame_id", "verdict", "reason", "score", "threshold", "findings", "product", "reference_sha256")


def parts() -> list[Image]:
    """Good ones, defective ones, and one that is no image."""
    scene = Scene(3)
    defects = [Box(100, 80, 150, 120), Box(200, 150, 230, 190)]
    seen = [
        scene.reference,
        scene.with_defect(defects[0]).reference,
        scene.seen(shift=(3.0, -2.0), angle_deg=1.0),
        scene.with_defect(defects[1], "block").seen(shift=(1.0, 2.0)),
        np.zeros_like(scene.reference),
    ]
    return [image_message(pixels, number) for number, pixels in enumerate(seen)]


def write(folder: Path, messages: list[Image], records: list[dict[str, Any]]) -> None:
    types = get_typestore(Stores.ROS2_JAZZY)
    kinds = types.types
    with Writer(folder, version=9) as bag:
        images = bag.add_connection("/image", "sensor_msgs/msg/Image", typestore=types)
        results = bag.add_connection("/inspector/record", "std_msgs/msg/String", typestore=types)
        for number, (message, record) in enumerate(zip(messages, records, strict=True)):
            time_ns = number * 100_000_000
            time = kinds["builtin_interfaces/msg/Time"](message.header.stamp.sec, message.header.stamp.nanosec)
            image = kinds["sensor_msgs/msg/Image"](
                header=kinds["std_msgs/msg/Header"](time, message.header.frame_id),
                height=message.height,
                width=message.width,
                encoding=message.encoding,
                is_bigendian=message.is_bigendian,
                step=message.step,
                data=np.frombuffer(message.data, np.uint8),
            )
            bag.write(images, time_ns, types.serialize_cdr(image, "sensor_msgs/msg/Image"))
            text = kinds["std_msgs/msg/String"](json.dumps(record))
            bag.write(results, time_ns + 1, types.serialize_cdr(text, "std_msgs/msg/String"))


def read(folder: Path) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The images as they are on the wire, and the records."""
    types = get_typestore(Stores.ROS2_JAZZY)
    images: list[bytes] = []
    records: list[dict[str, Any]] = []
    with Reader(folder) as bag:
        for connection, _, data in bag.messages():
            if connection.topic == "/image":
                images.append(bytes(data))
            else:
                records.append(json.loads(types.deserialize_cdr(data, connection.msgtype).data))
    return images, records


def test_a_bag_played_again_gives_the_recorded_results(cell: Cell, tmp_path: Path) -> None:
    with EdgeInspector(store=tmp_path / "store", engine="lite", threads=1) as inspector:
        inspector.register("board", [Scene(3).reference])
    params = {"store": str(tmp_path / "store"), "product": "board", "threads": 1, "autostart": True}
    node = cell.start(params)
    messages = parts()
    recorded = [cell.show(message) for message in messages]
    assert [record["verdict"] for record in recorded] == ["OK", "NG", "OK", "NG", "UNDECIDED"]
    assert node.stop()[0] == 0
    write(tmp_path / "bag", messages, recorded)

    images, expected = read(tmp_path / "bag")
    assert len(images) == len(expected) == len(messages)
    cell.start(params)
    replayed = []
    for image in images:
        known = len(cell.records)
        cell.images.publish(image)
        cell.until(lambda known=known: len(cell.records) > known)
        replayed.append(cell.records[-1])
    for record, before in zip(replayed, expected, strict=True):
        assert {name: record[name] for name in SAME} == {name: before[name] for name in SAME}
