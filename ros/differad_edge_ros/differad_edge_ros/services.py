"""The services inspect, register and select_product; with std_srvs where differad_edge_msgs is not installed."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import Trigger

from differad_edge import DifferadError
from differad_edge_ros.messages import optional_package, result_message, stamp_of
from differad_edge_ros.outcome import Outcome

if TYPE_CHECKING:
    from differad_edge_ros.ports import Ports

__all__ = ["Services"]

_NEXT_IMAGE_S = 5.0


class Services:
    """``messages``: differad_edge_msgs.msg, or None.

    Trigger's ~/inspect takes the latest image and answers the record as JSON; its ~/register takes the next image, for
    the product that is the parameter. A product is selected by that parameter then.
    """

    def __init__(self, ports: Ports, messages: Any) -> None:
        self._ports = ports
        self._cell = ports.cell
        self._messages = messages
        node = ports.node
        # A callback that waits keeps its group: in the node's own one, images would have to wait with it.
        group = ReentrantCallbackGroup()
        if messages is None:
            self._served = [
                node.create_service(Trigger, "~/inspect", self._inspect_latest, callback_group=group),
                node.create_service(Trigger, "~/register", self._register_next, callback_group=group),
            ]
            return
        kinds = optional_package("differad_edge_msgs", "srv")
        self._served = [
            node.create_service(kinds.Inspect, "~/inspect", self._inspect, callback_group=group),
            node.create_service(kinds.Register, "~/register", self._register, callback_group=group),
            node.create_service(kinds.SelectProduct, "~/select_product", self._select, callback_group=group),
        ]

    async def _inspect(self, request: Any, response: Any) -> Any:
        given = request.image if request.image.encoding or request.image.data else None
        try:
            outcome = await self._outcome(given, request.product)
        except DifferadError as error:
            return _refused(response, error)
        response.result = result_message(self._messages, outcome)
        response.success, response.message = True, outcome.result.detail or ""
        return response

    async def _inspect_latest(self, request: Any, response: Any) -> Any:
        try:
            outcome = await self._outcome(None, "")
        except DifferadError as error:
            return _refused(response, error)
        response.success, response.message = True, outcome.to_json()
        return response

    async def _outcome(self, image: Any, product: str) -> Outcome:
        future: Future[Outcome] = Future()
        stamp, frame_id = ((0, 0), "") if image is None else (stamp_of(image.header), image.header.frame_id)
        self._cell.inspect(image, stamp, frame_id, product, future.set_result)
        outcome: Outcome = await self._ports.wait(future)
        return outcome

    async def _register(self, request: Any, response: Any) -> Any:
        timeout_s = request.timeout_s or _NEXT_IMAGE_S
        try:
            ids = await self._ports.wait(
                self._cell.register(request.product, list(request.paths), list(request.roi), timeout_s)
            )
        except DifferadError as error:
            return _refused(response, error)
        except Exception as error:  # a disk that is full, say: who asked must hear of it
            return _failed(response, error)
        response.reference_ids = list(ids)
        response.success, response.message = True, f"{len(ids)} golden samples"
        return response

    async def _register_next(self, request: Any, response: Any) -> Any:
        try:
            ids = await self._ports.wait(self._cell.register("", [], [], _NEXT_IMAGE_S))
        except DifferadError as error:
            return _refused(response, error)
        except Exception as error:  # as above
            return _failed(response, error)
        response.success, response.message = True, ", ".join(ids)
        return response

    async def _select(self, request: Any, response: Any) -> Any:
        try:
            await self._ports.wait(self._cell.select(request.product))
        except DifferadError as error:
            return _refused(response, error)
        except Exception as error:  # as above
            return _failed(response, error)
        self._ports.show_product(request.product)
        response.success, response.message = True, f"parts are compared with {request.product!r}"
        return response


def _refused(response: Any, error: DifferadError) -> Any:
    response.success, response.message = False, f"{error.code}: {error}"
    return response


def _failed(response: Any, error: Exception) -> Any:
    response.success, response.message = False, f"failed: {type(error).__name__}: {error}"
    return response
