"""The OPC UA server: the nodes of docs/OUTPUTS.md, written from the outbox, read and called by clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from differad_edge.errors import DifferadError, MissingExtraError, OutputError
from differad_edge.outputs.base import LineControl, Record, state_of
from differad_edge.outputs.opcua.certificates import TrustedClients, application_uri
from differad_edge.outputs.opcua.loop import LoopThread
from differad_edge.outputs.opcua.settings import OpcUaSettings
from differad_edge.outputs.opcua.space import (
    COUNT,
    COUNTERS,
    FLAG,
    NAMESPACE,
    TEXT,
    Method,
    VisionSpace,
    result_id,
    result_nodes,
)

try:
    from asyncua import ua
    from asyncua.server.server import Server
    from asyncua.ua.uaerrors import UaError
except ImportError as error:
    raise MissingExtraError("plc", "asyncua") from error

__all__ = ["NAMESPACE", "OpcUaOutput"]

_log = logging.getLogger(__name__)

_START_S = 120.0  # the standard address space has thousands of nodes: seconds, and on a busy machine more
_WRITE_S, _STOP_S, _POLL_S = 5.0, 5.0, 0.1


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
        self._space: VisionSpace | None = None
        self._acknowledged = threading.Condition()
        self._acknowledged_id = 0
        self._shown_id = 0
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._newest = 0
        self._state = "Preoperational"

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
            self._do(self._show_result(record, self._counted(record)))
            if self._settings.handshake:
                self._wait_for_acknowledgement(result_id(record), stop)

    def check(self) -> None:
        """Raises OutputError when the server has ended by itself."""
        if self._loop is None or not self._loop.alive:
            raise OutputError(f"opcua {self._settings.address}: the server has ended, see the log")

    def show(self, pulse: Mapping[str, Any]) -> None:
        """The state of the station."""
        self._state = state_of(pulse, self._settings.station)
        loop, space = self._loop, self._space
        if loop is not None and loop.alive and space is not None:
            with contextlib.suppress(RuntimeError):  # it ends in this very moment
                loop.begin(space.show_state(self._state))

    def close(self) -> None:
        """Stop listening and cut off who is connected."""
        loop, self._loop = self._loop, None
        server, self._server = self._server, None
        self._space = None
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
        machine = "VisionStateMachine"
        methods: list[Method] = [
            (machine, "StartSingleJob", self._called_trigger, [TEXT], [TEXT, TEXT]),
            (machine, "Reset", self._called_reset, [], [TEXT]),
            (machine, "Halt", self._called_halt, [], [TEXT]),
            ("ResultManagement", "Acknowledge", self._called_acknowledge, [COUNT], [FLAG]),
        ]
        space = await VisionSpace.build(server, methods)
        await server.start()
        self._server, self._space = server, space
        await space.show_state(self._state)

    async def _show_result(self, record: Record, counts: Mapping[str, int]) -> None:
        """What says that there is a result comes last; whoever hears the event finds it in the variables."""
        space = self._space
        if space is None:
            raise OutputError(f"opcua {self._settings.address}: it is not open")
        values = {("ResultManagement", name): value for name, value in result_nodes(record).items()}
        await space.set({**values, **{("Counters", name): count for name, count in counts.items()}})
        await space.set({("ResultManagement", "ResultReady"): True})
        await space.tell_result(record)

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
        if fits and self._space is not None:
            await self._space.set({("ResultManagement", "ResultReady"): False})
            with self._acknowledged:
                self._acknowledged_id = self._shown_id
                self._acknowledged.notify_all()
        return [ua.Variant(fits, FLAG)]

    async def _asked(self, command: Any) -> list[ua.Variant]:
        try:
            answer, code = await asyncio.get_running_loop().run_in_executor(None, command), ""
        except DifferadError as error:
            answer, code = "", error.code
        return [ua.Variant(answer, TEXT), ua.Variant(code, TEXT)]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        loop = self._loop
        if loop is None:
            work.close()
            raise OutputError(f"opcua {self._settings.address}: it is not open")
        try:
            loop.run(work, _WRITE_S)
        except (TimeoutError, UaError) as error:
            raise OutputError(f"opcua {self._settings.address}: {error}") from error

    def _counted(self, record: Record) -> dict[str, int]:
        """The counters with this result, which is the one to acknowledge from now on."""
        with self._acknowledged:
            self._shown_id, self._acknowledged_id = result_id(record), 0
        if record["sequence"] > self._newest:  # one that is shown again is not counted again
            self._newest = record["sequence"]
            for name in ("Results", {"OK": "Passed", "NG": "Failed"}.get(record["verdict"], "Undecided")):
                self._counts[name] += 1
        return dict(self._counts)

    def _wait_for_acknowledgement(self, number: int, stop: threading.Event) -> None:
        with self._acknowledged:
            while self._acknowledged_id != number and not stop.is_set():
                self._acknowledged.wait(_POLL_S)
