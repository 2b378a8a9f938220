"""The address space of our server: its nodes and events, as docs/OUTPUTS.md shows them. For the server's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from differad_edge.errors import MissingExtraError
from differad_edge.outputs.base import ACCEPTING_STATES, Record
from differad_edge.outputs.opcua.fields import record_json

try:
    from asyncua import ua
    from asyncua.server.event_generator import EventGenerator
    from asyncua.server.server import Server
    from asyncua.ua.object_ids import ObjectIds
except ImportError as error:
    raise MissingExtraError("plc", "asyncua") from error

__all__ = ["COUNT", "COUNTERS", "FLAG", "NAMESPACE", "TEXT", "Method", "VisionSpace", "result_id", "result_nodes"]

NAMESPACE = "urn:differad-edge:inspection"
TEXT, FLAG, COUNT = ua.VariantType.String, ua.VariantType.Boolean, ua.VariantType.UInt32
_NUMBER, _SMALL, _TIME = ua.VariantType.Double, ua.VariantType.Int32, ua.VariantType.DateTime

COUNTERS = ("Results", "Passed", "Failed", "Undecided")
_NODES: Mapping[str, Mapping[str, ua.VariantType]] = {
    "VisionStateMachine": {"CurrentState": TEXT, "Ready": FLAG},
    "ResultManagement": {
        "ResultReady": FLAG,
        "ResultId": COUNT,
        "Passed": FLAG,
        "Failed": FLAG,
        "Verdict": TEXT,
        "Reason": TEXT,
        "Score": _NUMBER,
        "Findings": COUNT,
        "PartId": TEXT,
        "JobId": TEXT,
        "RecipeId": TEXT,
        "TriggerId": TEXT,
        "IsSimulated": FLAG,
        "CaptureTime": TEXT,
        "Record": TEXT,
    },
    "Counters": dict.fromkeys(COUNTERS, COUNT),
}
_EMPTY: Mapping[ua.VariantType, Any] = {TEXT: "", FLAG: False, COUNT: 0, _NUMBER: 0.0}

_RESULT_EVENT: Mapping[str, ua.VariantType] = {
    **{name: kind for name, kind in _NODES["ResultManagement"].items() if name != "ResultReady"},
    "IsPartial": FLAG,
    "ResultState": _SMALL,
    "CreationTime": _TIME,
}
_STATE_EVENT: Mapping[str, ua.VariantType] = {"FromState": TEXT, "ToState": TEXT, "Ready": FLAG}
_COMPLETED, _FAILED = 1, 4  # ResultStateDataType of OPC 40100-1
_SEVERITY: Mapping[str, int] = {"OK": 100, "NG": 300, "Error": 800}  # of 1 to 1000
_NO_VERDICT, _OTHER_STATE = 600, 100

Method = tuple[str, str, Callable[..., Any], list[ua.VariantType], list[ua.VariantType]]
"""Object, name, what is called, and the types of what goes in and comes out."""


class VisionSpace:
    """Made by `build`."""

    def __init__(
        self, server: Server, nodes: Mapping[tuple[str, str], Any], results: EventGenerator, states: EventGenerator
    ) -> None:
        self._server = server
        self._nodes = nodes
        self._results = results
        self._states = states
        self._state: str | None = None
        self._one_event = asyncio.Lock()

    @classmethod
    async def build(cls, server: Server, methods: list[Method]) -> VisionSpace:
        """All nodes, types of events and methods, in a server that has not started."""
        space = await server.register_namespace(NAMESPACE)
        system = await server.nodes.objects.add_object(space, "VisionSystem")
        nodes: dict[tuple[str, str], Any] = {}
        folders: dict[str, Any] = {}
        for part, variables in _NODES.items():
            folders[part] = await system.add_object(space, part)
            for name, kind in variables.items():
                nodes[part, name] = await folders[part].add_variable(space, name, _EMPTY[kind], kind)
        for part, name, called, takes, gives in methods:
            await folders[part].add_method(space, name, called, takes, gives)
        await server.nodes.server.add_reference(system, ObjectIds.HasNotifier)
        results = await _events(server, space, "ResultReadyEventType", _RESULT_EVENT, system.nodeid)
        states = await _events(server, space, "StateChangedEventType", _STATE_EVENT, system.nodeid)
        return cls(server, nodes, results, states)

    async def set(self, values: Mapping[tuple[str, str], Any]) -> None:
        """One variable after the other, in this order."""
        for (part, name), value in values.items():
            await self._nodes[part, name].write_value(ua.Variant(value, _NODES[part][name]))

    async def show_state(self, state: str) -> None:
        """Where it is another one than before, an event tells it, too."""
        ready = state in ACCEPTING_STATES
        await self.set({("VisionStateMachine", "CurrentState"): state, ("VisionStateMachine", "Ready"): ready})
        before, self._state = self._state, state
        if before is not None and before != state:
            values = {"FromState": before, "ToState": state, "Ready": ready}
            await self._tell(self._states, values, _SEVERITY.get(state, _OTHER_STATE), f"{before} -> {state}")

    async def tell_result(self, record: Record) -> None:
        """The event of a result."""
        verdict = record["verdict"]
        values = {
            **{name: value for name, value in result_nodes(record).items() if name != "ResultReady"},
            "IsPartial": False,
            "ResultState": _FAILED if verdict == "ERROR" else _COMPLETED,
            "CreationTime": datetime.fromisoformat(record["captured_utc"].replace("Z", "+00:00")),
        }
        message = f"result {values['ResultId']}: {verdict}"
        await self._tell(self._results, values, _SEVERITY.get(verdict, _NO_VERDICT), message)

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _tell(self, events: EventGenerator, values: Mapping[str, Any], severity: int, message: str) -> None:
        """From VisionSystem and from the Server object, where clients that know no model listen; the same EventId."""
        async with self._one_event:
            event = events.event
            for name, value in values.items():
                setattr(event, name, value)
            event.Severity = severity
            event.emitting_node = event.SourceNode
            await events.trigger(datetime.now(timezone.utc), message)
            event.emitting_node = self._server.nodes.server.nodeid
            await self._server.iserver.subscription_service.trigger_event(event)


async def _events(
    server: Server, space: int, name: str, fields: Mapping[str, ua.VariantType], source: ua.NodeId
) -> EventGenerator:
    kind = await server.create_custom_event_type(space, name, ObjectIds.BaseEventType, list(fields.items()))
    return await server.get_event_generator(kind, source)


def result_id(record: Record) -> int:
    """The sequence in 32 bits."""
    return int(record["sequence"]) & 0xFFFF_FFFF


def result_nodes(record: Record) -> dict[str, Any]:
    """The variables of ResultManagement in the order in which they are written: ResultReady stays off."""
    verdict = record["verdict"]
    return {
        "ResultReady": False,
        "Passed": verdict == "OK",
        "Failed": verdict == "NG",
        "Verdict": verdict,
        "Reason": record["reason"] or "",
        "Score": float(record["score"]),
        "Findings": len(record["findings"]),
        "PartId": _text(record["part_id"]),
        "JobId": _text(record["job_id"]),
        "RecipeId": _text(record["product"]),
        "TriggerId": _text(record["trigger_id"]),
        "IsSimulated": record["is_simulated"],
        "CaptureTime": record["captured_utc"],
        "Record": record_json(record),
        "ResultId": result_id(record),
    }


def _text(given: str | None) -> str:
    """An id may hold half a surrogate pair, which no UTF-8 can: the node could not be read."""
    return (given or "").encode("utf-8", "backslashreplace").decode("utf-8")
