"""The panel behind a Modbus TCP server: an asyncio loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from differad_edge.errors import MissingExtraError, OutputError
from differad_edge.outputs.base import LineControl, Record
from differad_edge.outputs.modbus.panel import Panel
from differad_edge.outputs.modbus.registers import INPUTS, Command, Holding, Input, Status
from differad_edge.outputs.settings import ModbusSettings

try:
    from pymodbus.constants import ExcCodes
    from pymodbus.server import ModbusTcpServer
    from pymodbus.server.requesthandler import ServerRequestHandler
    from pymodbus.simulator import DataType, SimData, SimDevice
except ImportError as error:
    raise MissingExtraError("plc", "pymodbus") from error

__all__ = ["ModbusOutput"]

_log = logging.getLogger(__name__)

_START_S = 5.0
_WRITES = frozenset({5, 6, 15, 16, 22, 23})
_COILS = frozenset({1, 5, 15})
_HOLDING = frozenset({3, 6, 16, 22, 23})
_BITS = 16
_HOLDINGS = 2


class ModbusOutput:
    """Listens while it is open. Any unit id is answered; addresses beyond the tables get exception 2."""

    most_at_once = 1

    def __init__(self, settings: ModbusSettings, line: LineControl) -> None:
        self.panel = Panel(settings, line)
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: _Server | None = None
        self._blocks: dict[str, list[int]] = {}

    @property
    def address(self) -> str:
        """Where it listens, "host:port"; the port of the settings may be 0 for any that is free."""
        server = self._server
        if server is None or not server.sockets:
            raise OutputError(f"modbus {self._settings.address}: it is not open")
        host, port = server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def open(self) -> None:
        """Listen. Raises OutputError when the address is not free."""
        self._blocks.clear()  # the registers of a server before
        self.panel.command(Command(0), 0)
        started: list[BaseException | None] = []
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, started, ready), name=f"modbus-{self._settings.name}", daemon=True
        )
        self._thread.start()
        in_time = ready.wait(_START_S)
        fault = started[0] if started else TimeoutError("it does not start")
        if not in_time or fault is not None:
            self.close()
            raise OutputError(f"modbus {self._settings.address}: cannot listen: {fault}") from fault

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """Show one result after the other, see `Panel.present`."""
        for record in records:
            self.panel.present(record, stop)

    def check(self) -> None:
        """Raises OutputError when the server has ended by itself."""
        if self._thread is None or not self._thread.is_alive():
            raise OutputError(f"modbus {self._settings.address}: the server has ended, see the log")

    def show(self, pulse: Mapping[str, Any]) -> None:
        """Ready, state, heartbeat."""
        self.panel.show(pulse)

    def close(self) -> None:
        """Stop listening and cut off who is connected."""
        loop, self._loop = self._loop, None
        thread, self._thread = self._thread, None
        server, self._server = self._server, None
        if loop is not None and server is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(server.end)
        if thread is not None:
            thread.join(_START_S)

    # -- the loop's thread --------------------------------------------------------------------------------------------

    def _run(
        self, loop: asyncio.AbstractEventLoop, started: list[BaseException | None], ready: threading.Event
    ) -> None:
        async def serve() -> None:
            try:
                server = _Server(self._device(), self._settings)
                await server.begin()
            except (OSError, RuntimeError) as error:
                started.append(error)
                return
            self._server = server
            started.append(None)
            ready.set()
            await server.ended.wait()
            await server.finish()

        try:
            loop.run_until_complete(serve())
            loop.run_until_complete(loop.shutdown_asyncgens())
        except Exception:
            _log.exception("output %s", self._settings.name)
        finally:
            ready.set()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def _device(self) -> SimDevice:
        coils, discrete = ([SimData(0, values=[False] * _BITS, datatype=DataType.BITS)] for _ in (Command, Status))
        holding, inputs = (
            [SimData(0, values=[0] * count, datatype=DataType.REGISTERS)] for count in (_HOLDINGS, INPUTS)
        )
        return SimDevice(0, simdata=(coils, discrete, holding, inputs), action=self._accessed)

    async def _accessed(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called before each access, with the registers of the table that is meant."""
        if function in _COILS:
            self._blocks["coils"] = registers
        elif function in _HOLDING:
            self._blocks["holding"] = registers
        elif function == 2:
            registers[0] = self.panel.inputs()[Input.STATUS]
        elif function == 4:
            registers[:INPUTS] = self.panel.inputs()
        if written is not None and function in _WRITES:
            asyncio.get_running_loop().call_soon(self._commanded)  # when what is written stands in the registers
        return None

    def _commanded(self) -> None:
        coils = self._blocks.get("coils", [0])
        holding = self._blocks.get("holding", [0] * _HOLDINGS)
        self.panel.command(Command((coils[0] | holding[Holding.COMMAND]) & 0xF), holding[Holding.TRIGGER_NUMBER])


class _Server(ModbusTcpServer):
    """Lets in only whom the settings name."""

    def __init__(self, device: SimDevice, settings: ModbusSettings) -> None:
        host, _, port = settings.address.rpartition(":")
        super().__init__(device, address=(host.strip("[]"), int(port)))
        self.allowed = [ipaddress.ip_network(network) for network in settings.clients]
        self.ended = asyncio.Event()
        self.handlers: set[ServerRequestHandler] = set()

    @property
    def sockets(self) -> Sequence[Any]:
        return getattr(self.transport, "sockets", None) or ()

    async def begin(self) -> None:
        await self.serve_forever(background=True)

    def end(self) -> None:
        self.ended.set()

    async def finish(self) -> None:
        for handler in tuple(self.handlers):
            handler.close()
        await self.shutdown()  # type: ignore[no-untyped-call]

    def callback_new_connection(self) -> ServerRequestHandler:
        return _Connection(self, self.trace_packet, self.trace_pdu, self.trace_connect)  # type: ignore[no-untyped-call]


class _Connection(ServerRequestHandler):
    def callback_connected(self) -> None:
        super().callback_connected()
        peer = self.transport.get_extra_info("peername") if self.transport else None
        if self.server.allowed and not _is_in(peer, self.server.allowed):
            _log.warning("modbus: %s is not among the clients of the settings", peer)
            self.close()
            return
        self.server.handlers.add(self)

    def callback_disconnected(self, exc: Exception | None) -> None:
        self.server.handlers.discard(self)
        super().callback_disconnected(exc)


def _is_in(peer: Any, networks: Sequence[Any]) -> bool:
    if not peer:
        return False
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
