"""The OPC UA server: the nodes of docs/OUTPUTS.md, written from the outbox, read and called by clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from differad_edge.errors import DifferadError, MissingExtraError, OutputError
from differad_edge.outputs.base import ACCEPTING_STATES, LineControl, Record, state_of
from differad_edge.outputs.opcua.certificates import TrustedClients, application_uri
from differad_edge.outputs.opcua.loop import LoopThread
from differad_edge.outputs.settings import OpcUaSettings

try:
    from asyncua import ua
    from asyncua.server.server import Server
    from asyncua.ua.uaerrors import UaError
except ImportError as error:
    raise MissingExtraError("plc", "asyncua") from error

__all__ = ["NAMESPACE", "OpcUaOutput"]

_log = logging.getLogger(__name__)

NAMESPACE = "urn:differad-edge:inspection"
_START_S = 120.0  # the standard address space has thousands of nodes: seconds, and on a busy machine more
_WRITE_S, _STOP_S, _POLL_S = 5.0, 5.0, 0.1
_TEXT, _FLAG, _COUNT, _NUMBER = (
    ua.VariantType.String,
    ua.VariantType.Boolean,
    ua.VariantType.UInt32,
    ua.VariantType.Double,
)
_NODES: Mapping[str, Mapping[str, ua.VariantType]] = {
    "VisionStateMachine": {"CurrentState": _TEXT, "Ready": _FLAG},
    "ResultManagement": {
        "ResultReady": _FLAG,
        "ResultId": _COUNT,
        "Passed": _FLAG,
        "Failed": _FLAG,
        "Verdict": _TEXT,
        "Reason": _TEXT,
        "Score": _NUMBER,
        "Findings": _COUNT,
        "PartId": _TEXT,
        "JobId": _TEXT,
        "RecipeId": _TEXT,
        "TriggerId": _TEXT,
        "IsSimulated": _FLAG,
        "CaptureTime": _TEXT,
        "Record": _TEXT,
    },
    "Counters": {"Results": _COUNT, "Passed": _COUNT, "Failed": _COUNT, "Undecided": _COUNT},
}
_EMPTY: Mapping[ua.VariantType, Any] = {_TEXT: "", _FLAG: False, _COUNT: 0, _NUMBER: 0.0}


class OpcUaOutput:
    """Raises ConfigError for certificates that cannot be read."""

    most_at_once = 1

    def __init__(self, settings: OpcUaSettings, line: LineControl) -> None:
        self._settings = settings
        self._line = line
        self._trusted = None if settings.trusted is None else TrustedClients(settings.trusted)
        self._uri = NAMESPACE if settings.certificate is None else application_uri(settings.certificate)
        self._loop: LoopThread | None = None
        self._server: Server | None = None
        self._nodes: dict[tuple[str, str], Any] = {}
        self._acknowledged = threading.Condition()
        self._acknowledged_id = 0
        self._shown_id = 0
        self._counts = dict.fromkeys(_NODES["Counters"], 0)
        self._newest = 0
        self._state = ("Preoperational", False)

    def open(self) -> None:
        """Listen. Raises OutputError."""
        self._loop = LoopThread(f"opcua-{self._settings.name}")
        try:
            self._loop.run(self._begin(), _START_S)
        except Exception as error:  # asyncua raises whatever its parts raise; what it is stands in the message
            raise OutputError(f"opcua {self._settings.address}: cannot listen: {error}") from error

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """Show one result after the other; with the handshake, each until a client has acknowledged it."""
        for record in records:
            self._write(self._result(record))
            self._write({("ResultManagement", "ResultReady"): True})
            if self._settings.handshake:
                self._wait_for_acknowledgement(record["sequence"], stop)

    def check(self) -> None:
        """Raises OutputError when the server has ended by itself."""
        if self._loop is None or not self._loop.alive:
            raise OutputError(f"opcua {self._settings.address}: the server has ended, see the log")

    def show(self, pulse: Mapping[str, Any]) -> None:
        """The state of the station."""
        state = state_of(pulse, self._settings.station)
        self._state = (state, state in ACCEPTING_STATES)
        loop = self._loop
        if loop is not None and loop.alive and self._nodes:
            with contextlib.suppress(RuntimeError):  # it ends in this very moment
                loop.begin(self._set(self._state_values()))

    def close(self) -> None:
        """Stop listening and cut off who is connected."""
        loop, self._loop = self._loop, None
        server, self._server = self._server, None
        self._nodes = {}
        if loop is None:
            return
        if server is not None:
            try:
                loop.run(server.stop(), _STOP_S)
            except Exception as error:
                _log.warning("output %s: the server does not stop cleanly: %s", self._settings.name, error)
        loop.close()

    # -- the loop's thread --------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        settings = self._settings
        server = Server(user_manager=self._trusted)  # type: ignore[arg-type]
        await server.init()
        server.set_endpoint(f"opc.tcp://{settings.address}/differad-edge/")
        server.set_server_name("differad-edge")
        server.set_identity_tokens([ua.AnonymousIdentityToken])  # the certificate of the channel says who it is
        await server.set_application_uri(self._uri)
        if settings.certificate is not None and settings.private_key is not None:
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
            await server.load_certificate(str(settings.certificate))
            await server.load_private_key(str(settings.private_key))
        else:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await server.register_namespace(NAMESPACE)
        system = await server.nodes.objects.add_object(space, "VisionSystem")
        nodes: dict[tuple[str, str], Any] = {}
        folders: dict[str, Any] = {}
        for part, variables in _NODES.items():
            folders[part] = await system.add_object(space, part)
            for name, kind in variables.items():
                nodes[part, name] = await folders[part].add_variable(space, name, _EMPTY[kind], kind)
        states = folders["VisionStateMachine"]
        await states.add_method(space, "StartSingleJob", self._called_trigger, [_TEXT], [_TEXT, _TEXT])
        await states.add_method(space, "Reset", self._called_reset, [], [_TEXT])
        await states.add_method(space, "Halt", self._called_halt, [], [_TEXT])
        await folders["ResultManagement"].add_method(space, "Acknowledge", self._called_acknowledge, [_COUNT], [_FLAG])
        await server.start()
        self._server, self._nodes = server, nodes
        await self._set(self._state_values())

    async def _set(self, values: Mapping[tuple[str, str], Any]) -> None:
        for (part, name), value in values.items():
            node = self._nodes.get((part, name))
            if node is not None:
                await node.write_value(ua.Variant(value, _NODES[part][name]))

    async def _called_trigger(self, parent: Any, part_id: Any) -> list[ua.Variant]:
        """The id of the trigger and an empty text, or an empty text and why it is refused."""
        part, station = part_id.Value or None, self._settings.station
        return await self._asked(lambda: self._line.trigger(station=station, part_id=part).trigger_id)

    async def _called_reset(self, parent: Any) -> list[ua.Variant]:
        return (await self._asked(lambda: self._line.reset(station=self._settings.station) and ""))[1:]

    async def _called_halt(self, parent: Any) -> list[ua.Variant]:
        return (await self._asked(lambda: self._line.halt(station=self._settings.station) and ""))[1:]

    async def _called_acknowledge(self, parent: Any, result_id: Any) -> list[ua.Variant]:
        """Whether it is the result that is shown. When the answer is out, ResultReady is false already."""
        fits = result_id.Value == self._shown_id != 0
        if fits:
            await self._set({("ResultManagement", "ResultReady"): False})
            with self._acknowledged:
                self._acknowledged_id = self._shown_id
                self._acknowledged.notify_all()
        return [ua.Variant(fits, _FLAG)]

    async def _asked(self, command: Any) -> list[ua.Variant]:
        try:
            answer, code = await asyncio.get_running_loop().run_in_executor(None, command), ""
        except DifferadError as error:
            answer, code = "", error.code
        return [ua.Variant(answer, _TEXT), ua.Variant(code, _TEXT)]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _write(self, values: Mapping[tuple[str, str], Any]) -> None:
        loop = self._loop
        if loop is None:
            raise OutputError(f"opcua {self._settings.address}: it is not open")
        try:
            loop.run(self._set(values), _WRITE_S)
        except (TimeoutError, UaError) as error:
            raise OutputError(f"opcua {self._settings.address}: {error}") from error

    def _state_values(self) -> dict[tuple[str, str], Any]:
        state, ready = self._state
        return {("VisionStateMachine", "CurrentState"): state, ("VisionStateMachine", "Ready"): ready}

    def _result(self, record: Record) -> dict[tuple[str, str], Any]:
        """In the order in which they are written: what says that there is a result comes last."""
        verdict, sequence = record["verdict"], record["sequence"] & 0xFFFF_FFFF
        with self._acknowledged:
            self._shown_id, self._acknowledged_id = sequence, 0
        if record["sequence"] > self._newest:  # one that is shown again is not counted again
            self._newest = record["sequence"]
            for name in ("Results", {"OK": "Passed", "NG": "Failed"}.get(verdict, "Undecided")):
                self._counts[name] += 1
        said = {
            "ResultReady": False,
            "Passed": verdict == "OK",
            "Failed": verdict == "NG",
            "Verdict": verdict,
            "Reason": record["reason"] or "",
            "Score": float(record["score"]),
            "Findings": len(record["findings"]),
            "PartId": record["part_id"] or "",
            "JobId": record["job_id"] or "",
            "RecipeId": record["product"] or "",
            "TriggerId": record["trigger_id"],
            "IsSimulated": record["is_simulated"],
            "CaptureTime": record["captured_utc"],
            "Record": _json(record),
            "ResultId": sequence,
        }
        return {
            **{("ResultManagement", name): value for name, value in said.items()},
            **{("Counters", name): count for name, count in self._counts.items()},
        }

    def _wait_for_acknowledgement(self, sequence: int, stop: threading.Event) -> None:
        with self._acknowledged:
            while self._acknowledged_id != sequence & 0xFFFF_FFFF and not stop.is_set():
                self._acknowledged.wait(_POLL_S)


def _json(record: Record) -> str:
    text = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
