"""Modbus TCP: a real server on loopback and pymodbus's own client as the PLC."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from line_fakes import until
from output_fakes import PlcProcess, a_line, free_port, give, started
from pymodbus.client import ModbusTcpClient

from differad_edge.outputs.modbus.registers import ERROR_CODES, INPUTS, Command, Holding, Input, Status
from differad_edge.results import Verdict
from differad_edge.runtime.server import LineServer

CAMERA = {"source": "sim:gasket?size=128&rate_hz=50&pool=4"}


class Plc:
    """A PLC program: triggers, waits, reads, acknowledges."""

    def __init__(self, server: LineServer) -> None:
        until(lambda: server.line.status()["outputs"][0]["open"])
        host, _, port = server.outputs.output("modbus").address.rpartition(":")  # type: ignore[attr-defined]
        self.client = ModbusTcpClient(host, port=int(port), timeout=5)
        assert self.client.connect()

    def inputs(self) -> list[int]:
        found = self.client.read_input_registers(0, count=INPUTS)
        assert not found.isError(), found
        return found.registers

    def status(self) -> Status:
        return Status(self.inputs()[Input.STATUS])

    def command(self, command: Command = Command(0), number: int = 0) -> None:  # noqa: B008
        assert not self.client.write_registers(Holding.COMMAND, [int(command), number]).isError()

    def wait(self, bits: Status, on: bool = True) -> list[int]:
        give_up_s = time.monotonic() + 20
        while True:
            inputs = self.inputs()
            if bool(Status(inputs[Input.STATUS]) & bits) is on:
                return inputs
            assert time.monotonic() < give_up_s, Status(inputs[Input.STATUS])

    def take(self) -> list[int]:
        """The result that waits, acknowledged."""
        inputs = self.wait(Status.RESULT_READY)
        self.command(Command.ACKNOWLEDGE)
        self.wait(Status.RESULT_READY, False)
        self.command()
        return inputs

    def close(self) -> None:
        self.client.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[LineServer]:
    server = started(a_line(tmp_path, [{"type": "modbus", "address": "127.0.0.1:0", "hold_ms": 0}], camera=CAMERA))
    yield server
    server.close()


def sequence_of(inputs: list[int]) -> int:
    return inputs[Input.SEQUENCE] << 16 | inputs[Input.SEQUENCE + 1]


def test_a_trigger_becomes_its_result(line: LineServer) -> None:
    plc = Plc(line)
    plc.wait(Status.READY)
    for number in (101, 102, 103):
        plc.command(Command.TRIGGER, number)
        plc.wait(Status.ACCEPTED)
        inputs = plc.take()
        assert Status(inputs[Input.STATUS]) & (Status.PASS | Status.FAIL | Status.BUSY) == Status.PASS
        assert inputs[Input.TRIGGER_NUMBER] == number
    assert (sequence_of(inputs), inputs[Input.RESULTS + 1], inputs[Input.PASSED + 1]) == (3, 3, 3)
    assert [r["part_id"] for r in line.line.results({})] == ["101", "102", "103"]
    plc.close()


def test_coils_and_discrete_inputs_say_the_same(line: LineServer) -> None:
    plc = Plc(line)
    plc.wait(Status.READY)
    assert plc.client.read_discrete_inputs(0, count=9).bits[0]
    plc.client.write_coil(0, True)
    until(lambda: plc.client.read_discrete_inputs(3, count=1).bits[0])
    assert plc.client.read_discrete_inputs(4, count=2).bits[:2] == [True, False]
    plc.client.write_coils(0, [False, True])
    until(lambda: plc.client.read_discrete_inputs(3, count=3).bits[:3] == [False] * 3)
    assert plc.client.read_input_registers(INPUTS, count=1).isError()
    assert plc.client.write_registers(2, [1]).isError()
    plc.close()


def test_a_trigger_while_the_station_is_halted_is_refused_by_a_bit(line: LineServer) -> None:
    plc = Plc(line)
    plc.command(Command.HALT)
    plc.wait(Status.READY, False)
    plc.command(Command.TRIGGER)
    inputs = plc.wait(Status.TRIGGER_ERROR)
    assert inputs[Input.ERROR_CODE] == ERROR_CODES["not-ready"]
    assert not Status(inputs[Input.STATUS]) & (Status.ACCEPTED | Status.PASS | Status.FAIL)
    plc.command(Command.RESET)
    plc.wait(Status.READY)
    plc.wait(Status.TRIGGER_ERROR, False)
    assert line.line.results({}) == []
    plc.close()


def test_an_undecided_part_is_neither_pass_nor_fail(tmp_path: Path) -> None:
    output = {"type": "modbus", "address": "127.0.0.1:0"}
    server = started(a_line(tmp_path, [output], camera=CAMERA, deadline_ms=0.001))
    plc = Plc(server)
    plc.wait(Status.READY)
    plc.command(Command.TRIGGER, 1)
    status = Status(plc.take()[Input.STATUS])
    assert status & (Status.PASS | Status.FAIL | Status.UNDECIDED) == Status.UNDECIDED
    plc.close()
    server.close()


def test_a_port_that_is_taken_is_an_alarm_and_no_end(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = started(a_line(tmp_path, [{"type": "modbus", "address": address}]))
        until(lambda: [alarm["code"] for alarm in server.line.status()["alarms"]] == ["output-down-modbus"])
        assert len(give(server, 3)) == 3
    until(lambda: server.line.status()["outputs"][0]["open"], 10)
    until(lambda: server.line.status()["alarms"] == [])
    server.close()


def test_only_clients_of_the_settings_are_let_in(tmp_path: Path) -> None:
    output = {"type": "modbus", "address": "127.0.0.1:0", "clients": ["192.0.2.0/24"]}
    server = started(a_line(tmp_path, [output]))
    until(lambda: server.line.status()["outputs"][0]["open"])
    host, _, port = server.outputs.output("modbus").address.rpartition(":")  # type: ignore[attr-defined]
    with socket.create_connection((host, int(port)), timeout=5) as stranger:
        stranger.settimeout(5)
        assert stranger.recv(1) == b""
    server.close()


@pytest.mark.slow
def test_a_durable_panel_loses_none_of_1000_results_while_plc_and_line_are_killed(tmp_path: Path) -> None:
    log, port = tmp_path / "plc.txt", free_port()
    output: dict[str, Any] = {"type": "modbus", "address": f"127.0.0.1:{port}", "durable": True, "hold_ms": 0}
    output |= {"capacity": 100}
    server = started(a_line(tmp_path, [output]))
    until(lambda: server.line.status()["outputs"][0]["open"])
    plc = PlcProcess(port, log)
    given = [record.sequence for record in give(server, 300)]
    until(lambda: len(PlcProcess.taken(log)) >= 50, 60)
    plc.kill()
    given += [record.sequence for record in give(server, 200)]
    plc = PlcProcess(port, log)
    given += [record.sequence for record in give(server, 100)]
    plc.kill()
    server.close()
    server = started(a_line(tmp_path, [output]))
    until(lambda: server.line.status()["outputs"][0]["open"])
    plc = PlcProcess(port, log)
    given += [record.sequence for record in give(server, 400)]
    try:
        until(lambda: set(given) <= set(PlcProcess.taken(log)), 120)
        assert server.line.status()["outputs"][0]["dropped"] == {}
    finally:
        plc.kill()
        server.close()
    assert given == list(range(1, 1001))
    assert list(dict.fromkeys(PlcProcess.taken(log))) == given


def test_without_durability_a_plc_that_takes_nothing_costs_counted_drops(tmp_path: Path) -> None:
    output = {"type": "modbus", "address": "127.0.0.1:0", "capacity": 10}
    server = started(a_line(tmp_path, [output]))
    try:
        assert len(give(server, 50)) == 50  # nobody acknowledges, and the line goes on
        until(lambda: server.line.status()["outputs"][0]["dropped"].get("full", 0) >= 39)
        [status] = server.line.status()["outputs"]
        assert status["sent"] + status["waiting"] + status["dropped"]["full"] == 50
    finally:
        server.close()


def test_results_of_own_triggers_only(tmp_path: Path) -> None:
    output = {"type": "modbus", "address": "127.0.0.1:0", "results": "own", "hold_ms": 0}
    server = started(a_line(tmp_path, [output], camera=CAMERA, script=lambda image, product: Verdict.OK))
    plc = Plc(server)
    plc.wait(Status.READY)
    give(server, 5)
    plc.command(Command.TRIGGER, 9)
    inputs = plc.take()
    assert (sequence_of(inputs), inputs[Input.RESULTS + 1]) == (6, 1)
    assert json.loads(json.dumps(server.line.status()["outputs"]))[0]["sent"] == 1
    plc.close()
    server.close()
