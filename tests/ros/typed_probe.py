"""What a robot program sees of a node: typed results, detections and services. Prints one line of JSON.

    python typed_probe.py IMAGE OTHER_IMAGE

A process of its own, because message packages are found by the environment that a process starts with.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import rclpy
from differad_edge_msgs.msg import InspectionResult
from differad_edge_msgs.srv import Inspect, Register, SelectProduct
from ros_process import image_message
from vision_msgs.msg import Detection2DArray

LIMIT_S = 30.0


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("probe")
    results: list[Any] = []
    detections: list[Any] = []
    node.create_subscription(InspectionResult, "/inspector/result", results.append, 100)
    node.create_subscription(Detection2DArray, "/inspector/detections", detections.append, 100)

    def until(condition: Callable[[], Any]) -> None:
        give_up_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < give_up_s, "did not come true in time"
            rclpy.spin_once(node, timeout_sec=0.05)

    def call(kind: Any, name: str, **request: Any) -> Any:
        client = node.create_client(kind, f"/inspector/{name}")
        until(client.service_is_ready)
        future = client.call_async(kind.Request(**request))
        until(future.done)
        return future.result()

    good, bad = (cv2.imread(path) for path in sys.argv[1:3])
    until(lambda: node.count_publishers("/inspector/result") and node.count_publishers("/inspector/detections"))
    registered = call(Register, "register", product="board-2", paths=[str(Path(sys.argv[1]))])
    unknown = call(SelectProduct, "select_product", product="unknown")
    selected = call(SelectProduct, "select_product", product="board-2")
    answers = [
        call(Inspect, "inspect", image=image_message(good, 1)),
        call(Inspect, "inspect", image=image_message(bad, 2)),
        call(Inspect, "inspect", image=image_message(good, 3, "8UC3")),
    ]
    until(lambda: len(results) == 3 and len(detections) == 3)
    told = {
        "registered": [registered.success, list(registered.reference_ids)],
        "unknown": [unknown.success, unknown.message],
        "selected": selected.success,
        "answers": [answer.success for answer in answers],
        "same": [a.result.sequence == result.sequence for a, result in zip(answers, results, strict=True)],
        "verdicts": [result.verdict for result in results],
        "products": [result.product for result in results],
        "sequences": [result.sequence for result in results],
        "stamps": [result.header.stamp.sec * 10**9 + result.header.stamp.nanosec for result in results],
        "findings": [[[f.x1, f.y1, f.x2, f.y2] for f in result.findings] for result in results],
        "reasons": [result.reason for result in results],
        "unset": InspectionResult().verdict,
        "classes": [[d.results[0].hypothesis.class_id for d in array.detections] for array in detections],
        "boxes": [
            [[d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.size_x, d.bbox.size_y] for d in a.detections]
            for a in detections
        ],
    }
    print(json.dumps(told))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
