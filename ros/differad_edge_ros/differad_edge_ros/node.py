"""The process: `ros2 run differad_edge_ros inspector`, or `python -m differad_edge_ros.node` without colcon."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from differad_edge_ros.front_ends import make_node
from differad_edge_ros.states import State, Transition

__all__ = ["main"]

USAGE_ERROR = 2


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; parts that wait then get their result. Returns the exit code."""
    given = list(sys.argv[1:] if args is None else args)
    parser = argparse.ArgumentParser(prog="inspector", description=__doc__)
    parser.add_argument(
        "--trigger-services", action="store_true", help="std_srvs/Trigger for the states, even with lifecycle_msgs"
    )
    wanted = parser.parse_args(remove_ros_args(["inspector", *given])[1:])
    # rclpy's own handlers end the context at once: the last results could not be published any more.
    rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: stopping.append(caught))
    try:
        try:
            node = make_node(force_triggers=wanted.trigger_services)
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            print(f"inspector: {error}", file=sys.stderr)
            return USAGE_ERROR
        _run(node, stopping)
    finally:
        rclpy.try_shutdown()
    return 0


def _run(node: Any, stopping: list[int]) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value:
            node.start()
        # The timer of the diagnostics ends the wait once a second at the latest, and then a signal is seen.
        while not stopping and node.cell.state is not State.FINALIZED:
            executor.spin_once()
    finally:
        if node.cell.state is not State.FINALIZED:
            node.cell.request(Transition.SHUTDOWN)
        executor.shutdown()
        node.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
