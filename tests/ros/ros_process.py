"""Real node processes over DDS on loopback, and in this process a camera, a listener and a caller of services."""

from __future__ import annotations

import array
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0  # importing rclpy, OpenCV and the engine on a busy machine


def stamp(number: int) -> Time:
    """A stamp that says which image it is."""
    return Time(sec=1_700_000_000 + number // 10, nanosec=number % 10 * 100_000_000)


def image_message(pixels: NDArray[np.uint8], number: int, encoding: str = "bgr8", frame_id: str = "camera") -> Image:
    """HxWx3, HxWx4 or HxW uint8, as it is."""
    height, width = pixels.shape[:2]
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    return Image(
        header=Header(stamp=stamp(number), frame_id=frame_id),
        height=height,
        width=width,
        encoding=encoding,
        step=pixels.size // max(1, height),
        data=data,
    )


def environment(installed: Path | None, *paths: Path) -> dict[str, str]:
    """For a process that imports from ``paths``; ``installed``: where colcon has installed packages."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    found = [str(path) for path in paths]
    if installed is not None:
        found += [str(path) for path in installed.glob("lib/python*/site-packages")]
        # The wheels have put their own folders there, and need them.
        env["LD_LIBRARY_PATH"] = os.pathsep.join([str(installed / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    env["PYTHONPATH"] = os.pathsep.join(found)
    return env


class NodeProcess:
    """One node as a process, from the source or as colcon has ``installed`` it. ``params``: its parameters."""

    def __init__(self, params: Mapping[str, Any], *arguments: str, installed: Path | None = None) -> None:
        if installed is None:
            env = environment(None, ROOT / "ros" / "differad_edge_ros")
            node = [sys.executable, "-m", "differad_edge_ros.node"]
        else:
            env, node = environment(installed), [str(installed / "lib" / "differad_edge_ros" / "inspector")]
        given = [part for name, value in params.items() for part in ("-p", f"{name}:={json.dumps(value)}")]
        command = [*node, *arguments, "--ros-args", *given]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def kill(self) -> None:
        """SIGKILL: nothing is cleaned up."""
        self.process.kill()
        self.process.wait()

    def stop(self, limit_s: float = 20.0) -> tuple[int, str]:
        """SIGTERM; the exit code and what the process wrote."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            out, _ = self.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
            raise AssertionError(f"the node did not end: {out}") from None
        return self.process.returncode, out


class Cell:
    """Camera, listener and caller."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self.node = rclpy.create_node("tester", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.records: list[dict[str, Any]] = []
        self.states: list[str] = []
        self.diagnostics: list[DiagnosticStatus] = []
        self.overlays: list[Image] = []
        self.nodes: list[NodeProcess] = []
        self.images = self.node.create_publisher(Image, "image", qos_profile_sensor_data)
        self.compressed = self.node.create_publisher(CompressedImage, "image/compressed", qos_profile_sensor_data)
        listen = self.node.create_subscription
        kept = QoSProfile(depth=1000)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        listen(String, "/inspector/record", lambda message: self.records.append(json.loads(message.data)), kept)
        listen(String, "/inspector/state", lambda message: self.states.append(message.data), latched)
        listen(DiagnosticArray, "/diagnostics", lambda message: self.diagnostics.extend(message.status), kept)

    def start(self, params: Mapping[str, Any], *arguments: str, installed: Path | None = None) -> NodeProcess:
        """A node that has come up; with ``autostart`` among its parameters, one that is active and hears the camera."""
        self.states.clear()
        node = NodeProcess(params, *arguments, installed=installed)
        self.nodes.append(node)
        wanted = "active" if params.get("autostart") else "unconfigured"
        self.until(lambda: wanted in self.states or node.process.poll() is not None, START_S)
        assert node.process.poll() is None, node.process.stdout.read() if node.process.stdout else ""
        if wanted == "active":
            publisher = self.compressed if params.get("image_transport") == "compressed" else self.images
            self.until(lambda: publisher.get_subscription_count() == 1)
            self.spin_for(0.3)  # matching is seen by the two sides one after the other
        return node

    def until(self, condition: Callable[[], Any], limit_s: float = 20.0) -> None:
        """Spin until it holds; fails after the limit."""
        give_up_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < give_up_s, (
                f"did not come true in time; states {self.states}, {len(self.records)} records"
            )
            self.executor.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds: float) -> None:
        """Spin for so long."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left_s)

    def show(self, message: Image) -> dict[str, Any]:
        """Publish one image and wait for its record."""
        known = len(self.records)
        (self.compressed if isinstance(message, CompressedImage) else self.images).publish(message)
        self.until(lambda: len(self.records) > known)
        return self.records[-1]

    def call(self, kind: Any, service: str, request: Any | None = None, limit_s: float = START_S) -> Any:
        """A service's answer."""
        client = self.node.create_client(kind, f"/inspector/{service}")
        try:
            self.until(client.service_is_ready, limit_s)
            future = client.call_async(kind.Request() if request is None else request)
            self.until(future.done, limit_s)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def change(self, transition: str) -> bool:
        """Ask for a transition as `ros2 lifecycle set` does."""
        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, "change_state", request).success)

    def ros_state(self) -> str:
        """What `ros2 lifecycle get` says."""
        return str(self.call(GetState, "get_state").current_state.label)

    def set_parameter(self, name: str, value: str | float) -> tuple[bool, str]:
        """Whether it was set, and the reason if not."""
        if isinstance(value, str):
            held = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
        elif isinstance(value, int):
            held = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)
        else:
            held = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=held)])
        answer = self.call(SetParameters, "set_parameters", request).results[0]
        return bool(answer.successful), str(answer.reason)

    def see_overlays(self) -> None:
        """Subscribe to the overlay: it is drawn only for somebody."""
        self.node.create_subscription(Image, "/inspector/overlay", self.overlays.append, qos_profile_sensor_data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.kill()
            if node.process.stdout is not None:
                node.process.stdout.close()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
