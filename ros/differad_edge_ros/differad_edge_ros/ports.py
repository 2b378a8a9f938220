"""The topics, services and parameters of a cell on a ROS node, whichever kind of node it is."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import rclpy.task
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import String

from differad_edge import DifferadError
from differad_edge.images import Image
from differad_edge_ros.cell import Cell
from differad_edge_ros.messages import (
    detections_of,
    diagnostics_of,
    image_message,
    optional_package,
    result_message,
    stamp_of,
)
from differad_edge_ros.outcome import Outcome
from differad_edge_ros.services import Services
from differad_edge_ros.settings import PARAMETERS, Settings, settings_from
from differad_edge_ros.states import State
from differad_edge_ros.waiting import Job

__all__ = ["Ports"]

_RESULTS_KEPT = 100
_IMAGES_KEPT = 10  # the sensor data profile with room for what arrives while a service or a busy machine holds us up
_UNNUMBERED = 2**63  # a middleware that does not number says so with the largest number
_DIAGNOSTICS_S = 1.0


class Ports:
    """Gives ``node`` its parameters, topics and services, and makes its cell."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cell = Cell(self._settings, self._publish, on_change=self._changed)
        self._images: Any = None
        self._last_number: int | None = None
        self._declare()
        self._messages = optional_package("differad_edge_msgs", "msg")
        self._vision = optional_package("vision_msgs", "msg")
        kept = QoSProfile(depth=_RESULTS_KEPT)
        self._record = node.create_publisher(String, "~/record", kept)
        self._overlay = node.create_publisher(ImageMessage, "~/overlay", qos_profile_sensor_data)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        self._state = node.create_publisher(
            String, "~/state", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )
        self._result = self._detections = None
        if self._messages is not None:
            self._result = node.create_publisher(self._messages.InspectionResult, "~/result", kept)
        else:
            node.get_logger().warning(
                "differad_edge_msgs is not installed: results are JSON on ~/record alone, and ~/inspect and ~/register "
                "are std_srvs/Trigger"
            )
        if self._vision is not None:
            self._detections = node.create_publisher(self._vision.Detection2DArray, "~/detections", kept)
        else:
            node.get_logger().info("vision_msgs is not installed: there is no ~/detections")
        self._services = Services(self, self._messages)
        self._timer = node.create_timer(_DIAGNOSTICS_S, self._tell)
        self._changed(self.cell.state)

    async def wait(self, future: Future[Any]) -> Any:
        """The future's result, or what it raises, without holding up the executor."""
        executor = self.node.executor
        waiter: rclpy.task.Future[None] = rclpy.task.Future(executor=executor)

        def done(_: Future[Any]) -> None:
            waiter.set_result(None)
            if executor is not None:
                executor.wake()  # a coroutine is looked at again only when the executor has something to do

        future.add_done_callback(done)
        await waiter
        return future.result()

    def show_product(self, product: str) -> None:
        """Let the parameter say what a service has selected."""
        self.node.set_parameters([RosParameter("product", RosParameter.Type.STRING, product)])

    # -- parameters ---------------------------------------------------------------------------------------------------

    def _declare(self) -> None:
        defaults = Settings()
        for name, parameter in PARAMETERS.items():
            self.node.declare_parameter(
                name,
                getattr(defaults, name),
                ParameterDescriptor(description=parameter.description, additional_constraints=parameter.allowed),
            )
        self.node.add_on_set_parameters_callback(self._on_set)

    def _settings(self) -> Settings:
        return settings_from({name: self.node.get_parameter(name).value for name in PARAMETERS})

    def _on_set(self, parameters: list[RosParameter]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in parameters if parameter.name in PARAMETERS}
        try:
            self.cell.change(values)
        except DifferadError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # -- topics -------------------------------------------------------------------------------------------------------

    def _changed(self, state: State) -> None:
        self.node.get_logger().info(f"{state}")
        self._state.publish(String(data=state.value))
        wanted = state in (State.INACTIVE, State.ACTIVE)
        if wanted and self._images is None:
            compressed = self.cell.settings.image_transport == "compressed"
            self._images = self.node.create_subscription(
                CompressedImage if compressed else ImageMessage,
                "image/compressed" if compressed else "image",
                self._on_image,
                QoSProfile(depth=_IMAGES_KEPT, reliability=ReliabilityPolicy.BEST_EFFORT),
            )
            self._last_number = None
        elif not wanted and self._images is not None:
            self.node.destroy_subscription(self._images)
            self._images = None

    def _on_image(self, message: Any, info: Any) -> None:
        self._count_lost(info["publication_sequence_number"])
        stamp = stamp_of(message.header)
        age_ms = None
        if self.cell.settings.max_age_ms > 0:
            age_ms = (self.node.get_clock().now().nanoseconds - (stamp[0] * 10**9 + stamp[1])) / 1e6
        self.cell.arrive(message, stamp, message.header.frame_id, age_ms)

    def _count_lost(self, number: int | None) -> None:
        """The camera's messages are numbered: this counts what the network lost and what the queues of DDS let go."""
        if number is None or number >= _UNNUMBERED:
            return
        last, self._last_number = self._last_number, number
        if last is not None and number > last + 1:  # a smaller one is another camera's, or a restarted one's
            self.cell.lost(number - last - 1)

    def _publish(self, outcome: Outcome, job: Job, image: Image | None) -> None:
        """In the inspecting thread. What somebody acts on goes first, the picture for people last."""
        if self._result is not None:
            self._result.publish(result_message(self._messages, outcome))
        self._record.publish(String(data=outcome.to_json()))
        if self._detections is not None:
            self._detections.publish(detections_of(self._vision, outcome))
        if image is not None and self.cell.settings.overlay and self._overlay.get_subscription_count():
            self._overlay.publish(image_message(outcome.result.draw(image), outcome))

    def _tell(self) -> None:
        stamp = self.node.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics_of(self.cell.health(), self.node.get_fully_qualified_name(), stamp))
