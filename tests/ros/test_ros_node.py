"""The node as a process, over DDS: one result for each accepted image, its states, its parameters, its services."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'differad-edge[ros]'")

from ros_process import Cell, image_message, stamp
from scenes import Scene
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger

from differad_edge import EdgeInspector
from differad_edge.results import Box

if TYPE_CHECKING:
    from pathlib import Path

REHEARSAL = {"mode": "rehearsal", "autostart": True}
pytestmark = pytest.mark.slow


def numbered(number: int, size: tuple[int, int] = (640, 480)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((size[1], size[0], 3), number % 256, np.uint8)


def stamps(records: list[dict[str, Any]]) -> list[list[int]]:
    return [record["stamp"] for record in records]


def stamp_list(number: int) -> list[int]:
    return [stamp(number).sec, stamp(number).nanosec]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    scene = Scene(3)
    with EdgeInspector(store=tmp_path / "store", engine="lite", threads=1) as inspector:
        inspector.register("board", [scene.reference])
    return tmp_path / "store"


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080)], ids=["vga", "1080p"])
def test_every_image_at_10_hz_gets_one_result_in_order(cell: Cell, size: tuple[int, int]) -> None:
    cell.start(REHEARSAL)
    begun_s, count = time.monotonic(), 60
    for number in range(count):
        cell.images.publish(image_message(numbered(number, size), number, frame_id=f"camera-{number}"))
        cell.spin_for(max(0.0, begun_s + (number + 1) / 10 - time.monotonic()))
    cell.until(lambda: cell.records)
    cell.spin_for(2.0)
    # Best effort: on a busy machine images may be lost, and then the next result says so. What came before the first
    # that arrived nobody can count.
    published = [stamp_list(number) for number in range(count)]
    arrived = [published.index(record["stamp"]) for record in cell.records]
    lost = sum(drop["count"] for record in cell.records for drop in record["dropped"])
    assert arrived == sorted(set(arrived))
    assert arrived[-1] - arrived[0] + 1 <= len(arrived) + lost <= count - arrived[0]
    assert len(arrived) >= count // 2
    assert all(record["frame_id"] == f"camera-{published.index(record['stamp'])}" for record in cell.records)
    assert [record["sequence"] for record in cell.records] == list(range(1, len(cell.records) + 1))
    assert {(record["verdict"], record["reason"]) for record in cell.records} == {("UNDECIDED", "rehearsal")}
    assert {tuple(record["image_size"]) for record in cell.records} == {size}


def test_a_lifecycle_manager_drives_it(cell: Cell, store: Path) -> None:
    scene = Scene(3)
    node = cell.start({"store": str(store), "product": "board", "threads": 1})
    assert cell.ros_state() == "unconfigured"
    assert not cell.change("activate")
    assert cell.change("configure")
    assert cell.ros_state() == "inactive"
    cell.until(lambda: cell.images.get_subscription_count() == 1)
    cell.images.publish(image_message(scene.reference, 0))
    cell.spin_for(0.5)
    assert cell.records == []
    assert cell.change("activate")
    assert cell.states[-1] == cell.ros_state() == "active"
    good = cell.show(image_message(scene.seen(shift=(2.0, 1.0)), 1))
    assert (good["verdict"], good["stamp"], good["product"]) == ("OK", stamp_list(1), "board")
    bad = cell.show(image_message(scene.with_defect(Box(100, 80, 150, 120)).reference, 2))
    assert (bad["verdict"], len(bad["findings"]) > 0) == ("NG", True)
    assert cell.change("deactivate")
    assert cell.change("cleanup")
    cell.until(lambda: cell.images.get_subscription_count() == 0)
    assert cell.change("configure")
    assert cell.change("activate")
    cell.until(lambda: cell.images.get_subscription_count() == 1)
    cell.spin_for(0.3)
    assert cell.show(image_message(scene.reference, 3))["sequence"] == 3
    assert node.stop()[0] == 0


def test_the_same_states_by_trigger_services(cell: Cell) -> None:
    node = cell.start({"mode": "rehearsal"}, "--trigger-services")
    refused = cell.call(Trigger, "activate")
    assert not refused.success
    assert refused.message == "activate: the node is unconfigured, allowed: when it is inactive"
    for transition, state in [("configure", "inactive"), ("activate", "active"), ("deactivate", "inactive")]:
        assert cell.call(Trigger, transition).success
        assert cell.call(Trigger, "get_state").message == state
    assert cell.call(Trigger, "cleanup").success
    assert cell.call(Trigger, "shutdown").success
    node.process.wait(10)
    assert node.process.returncode == 0


def test_activation_is_refused_without_a_product_that_passes(cell: Cell, store: Path) -> None:
    cell.start({"store": str(store), "product": "unknown", "threads": 1}, "--trigger-services")
    assert cell.call(Trigger, "configure").success
    refused = cell.call(Trigger, "activate")
    assert not refused.success
    assert "unknown" in refused.message
    assert cell.set_parameter("product", "board")[0]
    assert cell.call(Trigger, "activate").success


def test_a_killed_node_is_restarted_and_goes_on(cell: Cell) -> None:
    node = cell.start(REHEARSAL)
    first = cell.show(image_message(numbered(1), 1))
    node.kill()
    cell.start(REHEARSAL)
    second = cell.show(image_message(numbered(2), 2))
    assert (second["sequence"], second["stamp"]) == (1, stamp_list(2))
    assert first["session"] != second["session"]


def test_parameters_are_refused_with_the_reason(cell: Cell) -> None:
    cell.start(REHEARSAL)
    assert cell.set_parameter("deadline_ms", -1.0) == (
        False,
        "parameter deadline_ms: got -1.0, allowed: 0 (no deadline), or a finite number above 0",
    )
    done, reason = cell.set_parameter("queue_depth", 9)
    assert not done
    assert reason == "parameter queue_depth: the node is active, allowed: while it is unconfigured"
    assert cell.set_parameter("deadline_ms", 250.0) == (True, "")


def test_a_node_with_a_bad_parameter_is_not_configured(cell: Cell) -> None:
    node = cell.start({"mode": "guess"}, "--trigger-services")
    answer = cell.call(Trigger, "configure")
    assert not answer.success
    assert answer.message == "configure: parameter mode: got 'guess', allowed: engine, server, rehearsal"
    assert node.process.poll() is None


def test_bad_images_are_never_ok(cell: Cell, store: Path) -> None:
    cell.start({"store": str(store), "product": "board", "threads": 1, "autostart": True})
    good = Scene(3).reference
    bad = [
        image_message(good, 1, "8UC3"),
        image_message(good, 2, "mono16"),
        image_message(np.zeros((0, 0, 3), np.uint8), 3),
        image_message(good, 4),
        image_message(good, 5),
        image_message(np.zeros_like(good), 6),
    ]
    bad[3].step = 7
    bad[4].height += 1
    for message in bad:
        record = cell.show(message)
        assert (record["verdict"], record["reason"]) == ("UNDECIDED", "bad-frame"), record
        assert record["stamp"] == [message.header.stamp.sec, message.header.stamp.nanosec]
        assert record["detail"]
    assert cell.show(image_message(good, 7))["verdict"] == "OK"
    cell.diagnostics.clear()
    cell.until(lambda: cell.diagnostics)
    values = {value.key: value.value for value in cell.diagnostics[-1].values}
    assert (values["reason.bad-frame"], values["results.OK"], values["results.UNDECIDED"]) == ("6", "1", "6")


def test_compressed_images_overlay_and_diagnostics(cell: Cell, store: Path) -> None:
    params = {"store": str(store), "product": "board", "threads": 1, "autostart": True, "image_transport": "compressed"}
    cell.start(params)
    cell.see_overlays()
    cell.spin_for(1.0)
    message = CompressedImage(format="bgr8; png compressed ")
    message.data.frombytes(cv2.imencode(".png", Scene(3).reference)[1].tobytes())
    message.header = image_message(numbered(0), 5).header
    assert cell.show(message)["verdict"] == "OK"
    cell.until(lambda: cell.overlays)
    overlay = cell.overlays[0]
    assert (overlay.header.stamp, overlay.header.frame_id, overlay.encoding) == (stamp(5), "camera", "bgr8")
    assert (overlay.width, overlay.height, len(overlay.data)) == (320, 240, 320 * 240 * 3)
    message.data = message.data[:200]
    assert cell.show(message)["reason"] == "bad-frame"
    cell.diagnostics.clear()
    cell.until(lambda: len(cell.diagnostics) == 3)
    told = cell.diagnostics[-1]
    assert (told.name, told.level) == ("/inspector: inspection", b"\x01")
    assert {"rate_hz", "latency_p50_ms", "latency_p99_ms", "dropped", "state"} <= {v.key for v in told.values}


def test_services_without_the_message_package(cell: Cell, tmp_path: Path) -> None:
    params = {"store": str(tmp_path / "store"), "product": "new", "threads": 1}
    cell.start(params, "--trigger-services")
    assert cell.call(Trigger, "inspect").message.startswith("not-ready: ")
    assert cell.call(Trigger, "register").message.startswith("not-ready: ")
    assert cell.call(Trigger, "configure").success
    cell.until(lambda: cell.images.get_subscription_count() == 1)
    cell.spin_for(0.3)
    golden = image_message(Scene(3).reference, 1)
    timer = cell.node.create_timer(0.5, lambda: cell.images.publish(golden))
    answer = cell.call(Trigger, "register")
    cell.node.destroy_timer(timer)
    assert (answer.success, answer.message) == (True, "ref-001"), answer
    assert cell.call(Trigger, "activate").success
    answer = cell.call(Trigger, "inspect")
    assert answer.success
    record = json.loads(answer.message)
    assert (record["verdict"], record["trigger"], record["stamp"]) == ("OK", "request", stamp_list(1))
    cell.until(lambda: record in cell.records)
