"""Who asks the cell for transitions: ROS 2's lifecycle services, or Trigger services where lifecycle_msgs is absent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from differad_edge_ros.cell import Cell
from differad_edge_ros.messages import optional_package
from differad_edge_ros.ports import Ports
from differad_edge_ros.states import Answer, Transition

__all__ = ["NODE_NAME", "TriggerNode", "make_node"]

NODE_NAME = "inspector"


class TriggerNode(Node):
    """A node with the services ~/configure, ~/activate, ~/deactivate, ~/cleanup, ~/shutdown and ~/get_state."""

    def __init__(self, name: str = NODE_NAME, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.ports = Ports(self)
        self._services_of_states = [
            self.create_service(Trigger, f"~/{transition}", partial(self._make, transition))
            for transition in Transition
        ]
        self._services_of_states.append(self.create_service(Trigger, "~/get_state", self._get_state))

    @property
    def cell(self) -> Cell:
        """What inspects."""
        return self.ports.cell

    def start(self) -> Answer:
        """Configure and activate."""
        answer = self.cell.request(Transition.CONFIGURE)
        return self.cell.request(Transition.ACTIVATE) if answer.success else answer

    def _make(self, transition: Transition, request: Any, response: Any) -> Any:
        answer = self.cell.request(transition)
        response.success, response.message = answer.success, answer.message
        _log(self, answer)
        return response

    def _get_state(self, request: Any, response: Any) -> Any:
        response.success, response.message = True, self.cell.state.value
        return response


def lifecycle_node() -> Callable[..., Any]:
    """The class of nodes with ROS 2's own lifecycle services; it can be made only where lifecycle_msgs is there."""
    from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

    class ManagedNode(LifecycleNode):  # type: ignore[misc]  # rclpy carries no types everywhere
        """A node that `ros2 lifecycle` and lifecycle managers drive. ROS's states follow the cell's."""

        def __init__(self, name: str = NODE_NAME, **settings: Any) -> None:
            super().__init__(name, **settings)
            self.ports = Ports(self)

        @property
        def cell(self) -> Cell:
            """What inspects."""
            return self.ports.cell

        def start(self) -> Answer:
            """Configure and activate."""
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
            return self._answer

        def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
            return self._make(Transition.CONFIGURE)

        def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
            return self._make(Transition.ACTIVATE)

        def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
            return self._make(Transition.DEACTIVATE)

        def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
            return self._make(Transition.CLEANUP)

        def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
            return self._make(Transition.SHUTDOWN)

        def _make(self, transition: Transition) -> TransitionCallbackReturn:
            self._answer = self.cell.request(transition)
            _log(self, self._answer)
            return TransitionCallbackReturn.SUCCESS if self._answer.success else TransitionCallbackReturn.FAILURE

    return ManagedNode


def make_node(*, force_triggers: bool = False, **settings: Any) -> Any:
    """A lifecycle node where lifecycle_msgs is installed, a node with Trigger services otherwise."""
    if force_triggers or optional_package("lifecycle_msgs", "msg") is None:
        node = TriggerNode(**settings)
        node.get_logger().warning("lifecycle_msgs is not used: the states are asked for by std_srvs/Trigger services")
        return node
    return lifecycle_node()(**settings)


def _log(node: Node, answer: Answer) -> None:
    if answer.success:
        node.get_logger().info(answer.message)
    else:
        node.get_logger().error(answer.message)
