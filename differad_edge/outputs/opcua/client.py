"""Results into the nodes of a PLC that is an OPC UA server itself: Siemens, Beckhoff and others.

Each result is three requests: what says that one is there, and every verdict, goes off; the values come; what says that
they are complete comes last. So whatever breaks in between, the PLC sees no verdict rather than half of one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from differad_edge.errors import ConfigError, MissingExtraError, OutputError, OutputRefusedError
from differad_edge.outputs.base import Record, state_of
from differad_edge.outputs.opcua.certificates import application_uri, valid_certificate
from differad_edge.outputs.opcua.fields import VERDICT_FLAGS, result_values, state_values
from differad_edge.outputs.opcua.loop import LoopThread
from differad_edge.outputs.opcua.plc_nodes import PlcNode, find_nodes, to_variant, value_of
from differad_edge.outputs.opcua.settings import OpcUaClientSettings
from differad_edge.outputs.secrets import from_environment

try:
    from asyncua import ua
    from asyncua.client.client import Client
    from asyncua.client.ua_client import UaClientState
    from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
    from asyncua.crypto.uacrypto import CertProperties
    from asyncua.ua.attribute_ids import AttributeIds
    from asyncua.ua.status_codes import StatusCodes
except ImportError as error:
    raise MissingExtraError("plc", "asyncua") from error

__all__ = ["OpcUaClientOutput"]

_log = logging.getLogger(__name__)

_LEAVE_S = 2.0
_SESSION_S = 30.0  # a line that is killed must not keep one of the PLC's few sessions for long
_WATCH_S = 1.0
_VALUE_DOES_NOT_FIT = {StatusCodes.BadOutOfRange, StatusCodes.BadEncodingLimitsExceeded}
Answer = TypeVar("Answer")


class OpcUaClientOutput:
    """Raises ConfigError for a secret that is not set, and for certificates that cannot be read."""

    most_at_once = 1

    def __init__(self, settings: OpcUaClientSettings) -> None:
        self._settings = settings
        self._user = from_environment(settings.user_env, setting="user_env")
        self._password = from_environment(settings.password_env, setting="password_env")
        self._uri = None if settings.certificate is None else application_uri(settings.certificate)
        if settings.server_certificate is not None:
            valid_certificate(settings.server_certificate, setting="server_certificate")
        if settings.private_key is not None and not settings.private_key.is_file():
            raise ConfigError(f"private_key: got {str(settings.private_key)!r}, allowed: a file with the key")
        self._where = f"opcua-client {settings.url}"
        self._timeout_s = settings.timeout_ms / 1000.0
        self._last = "result_ready" if "result_ready" in settings.nodes else "result_id"
        self._loop: LoopThread | None = None
        self._client: Client | None = None
        self._nodes: Mapping[str, PlcNode] = {}
        self._shown_s: float | None = None
        self._state = "Preoperational"
        self._heartbeat = 0
        self._telling: Future[None] | None = None
        self._fault: str | None = None

    def open(self) -> None:
        """Connect, see what the nodes are, and take away what an earlier run has left there. Raises OutputError."""
        self._fault = None
        self._loop = LoopThread(f"opcua-client-{self._settings.name}")
        self._ask(self._connect)
        self._nodes = self._ask(self._find)
        self._put(self._nothing())
        self._tell()

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """Show one result after the other; with acknowledge, each until the PLC has acknowledged it."""
        for record in records:
            if stop.wait(self._hold_s()):
                return
            self.check()
            values = result_values(record)
            try:
                self._put(self._nothing())
                self._put({name: value for name, value in values.items() if name != self._last})
                self._put({self._last: True if self._last == "result_ready" else values[self._last]})
            except OutputError:
                with contextlib.suppress(OutputError):
                    self._put(self._nothing())
                raise
            self._shown_s = time.monotonic()
            if "acknowledge" in self._nodes:
                self._wait_for_acknowledgement(record["sequence"], stop)

    def check(self) -> None:
        """Raises OutputError when the connection has ended, or the PLC does not take the line's state."""
        client, loop = self._client, self._loop
        if client is None or loop is None or not loop.alive:
            raise OutputError(f"{self._where}: it is not open")
        if client.state is not UaClientState.CONNECTED:
            raise OutputError(f"{self._where}: the connection has ended")
        if self._fault is not None:
            raise OutputError(f"{self._where}: {self._fault}")

    def show(self, pulse: Mapping[str, Any]) -> None:
        """The state of the station, and a heartbeat."""
        self._heartbeat += 1
        self._state = state_of(pulse, self._settings.station)
        if self._nodes:
            self._tell()

    def close(self) -> None:
        """Say that the line is not ready, and disconnect."""
        loop, self._loop = self._loop, None
        client, self._client = self._client, None
        nodes, self._nodes = self._nodes, {}
        if loop is None:
            return
        if client is not None:
            try:
                loop.run(self._leave(client, nodes), _LEAVE_S)
            except Exception as error:  # whatever asyncua raises: the connection is given up anyway
                _log.warning("output %s: it does not disconnect cleanly: %s", self._settings.name, _why(error))
        loop.close()

    # -- the loop's thread --------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        settings = self._settings
        client = Client(settings.url, timeout=self._timeout_s, watchdog_intervall=max(_WATCH_S, self._timeout_s))
        self._client = client
        client.name = client.description = "differad-edge"
        client.session_timeout = int(max(_SESSION_S, 4 * self._timeout_s) * 1000)
        if settings.certificate is not None and settings.private_key is not None and self._uri is not None:
            assert settings.server_certificate is not None  # the settings see to it
            client.application_uri = self._uri
            await client.set_security(
                SecurityPolicyBasic256Sha256,
                str(settings.certificate),
                str(settings.private_key),
                server_certificate=CertProperties(
                    valid_certificate(settings.server_certificate, setting="server_certificate"), "der"
                ),
            )
        if self._user is not None:
            client.set_user(self._user)
        if self._password is not None:
            client.set_password(self._password)
        await client.connect()

    async def _find(self) -> dict[str, PlcNode]:
        assert self._client is not None
        found = await find_nodes(self._client, self._settings.nodes)
        if "acknowledge" in found and found["acknowledge"].type is not found["result_id"].type:
            number, answer = found["result_id"], found["acknowledge"]
            raise OutputError(f"{answer}: it is {answer.type.name}, allowed: {number.type.name}, as {number}")
        return found

    async def _write(self, client: Client, nodes: Mapping[str, PlcNode], values: Mapping[str, Any]) -> None:
        """All of them in one request. Raises OutputRefusedError for a value that the PLC does not take."""
        mine = [nodes[name] for name in values if name in nodes]
        if not mine:
            return
        limit = self._settings.text_limit
        wanted = [  # without a status and times, which many PLCs do not let others write
            ua.DataValue(to_variant(node, values[node.field], limit), StatusCode=None) for node in mine
        ]
        answers = await client.uaclient.session.write_attributes([node.id for node in mine], wanted)
        # Good and nothing else: GoodClamped, say, is another value than the one that was sent.
        wrong = [(node, answer) for node, answer in zip(mine, answers, strict=True) if answer.value != 0]
        if wrong:
            refused = all(answer.value in _VALUE_DOES_NOT_FIT for _, answer in wrong)
            said = ", ".join(f"{node}: {answer.name}" for node, answer in wrong)
            raise (OutputRefusedError if refused else OutputError)(said)

    async def _read_acknowledge(self) -> Any:
        assert self._client is not None
        node = self._nodes["acknowledge"]
        (answer,) = await self._client.uaclient.session.read_attributes([node.id], AttributeIds.Value)
        try:
            return value_of(answer)
        except ValueError as error:
            raise OutputError(f"{node}: {error}") from error

    async def _tell_state(self, client: Client) -> None:
        told: tuple[str, int] | None = None
        try:
            while told != (told := (self._state, self._heartbeat)):  # it may change while the PLC answers
                await self._write(client, self._nodes, state_values(*told))
        except Exception as error:  # nobody waits for this: the next check says it
            self._fault = _why(error)

    async def _leave(self, client: Client, nodes: Mapping[str, PlcNode]) -> None:
        if client.state is not UaClientState.CONNECTED:
            client.disconnect_socket()
            return
        with contextlib.suppress(Exception):  # the PLC may be what is wrong
            await self._write(client, nodes, {"ready": False})
        await client.disconnect()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _ask(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        loop = self._loop
        if loop is None or not loop.alive:
            raise OutputError(f"{self._where}: it is not open")

        async def asked() -> Answer:
            return await work()

        try:
            return loop.run(asked(), self._timeout_s)
        except OutputError as error:
            raise type(error)(f"{self._where}: {error}") from error
        except Exception as error:  # asyncua raises whatever its parts raise; what it is stands in the message
            raise OutputError(f"{self._where}: {_why(error)}") from error

    def _put(self, values: Mapping[str, Any]) -> None:
        client = self._client
        if client is None:
            raise OutputError(f"{self._where}: it is not open")
        self._ask(lambda: self._write(client, self._nodes, values))

    def _nothing(self) -> dict[str, Any]:
        """No result, no verdict, and no acknowledgement of an earlier one with the same number."""
        return {"result_ready": False, **dict.fromkeys(VERDICT_FLAGS, False), "acknowledge": 0}

    def _tell(self) -> None:
        loop, client = self._loop, self._client
        if loop is None or client is None or not loop.alive or (self._telling and not self._telling.done()):
            return
        work = self._tell_state(client)
        try:
            self._telling = loop.begin(work)
        except RuntimeError:  # it ends in this very moment
            work.close()

    def _hold_s(self) -> float:
        if self._shown_s is None or "acknowledge" in self._settings.nodes:
            return 0.0
        return max(0.0, self._shown_s + self._settings.hold_ms / 1000.0 - time.monotonic())

    def _wait_for_acknowledgement(self, sequence: int, stop: threading.Event) -> None:
        expected = to_variant(self._nodes["acknowledge"], sequence, self._settings.text_limit).Value
        while not stop.wait(self._settings.poll_ms / 1000.0):
            self.check()
            if self._ask(self._read_acknowledge) == expected:
                self._put({"result_ready": False, **dict.fromkeys(VERDICT_FLAGS, False)})
                return


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
