"""The panel without wires: handshake, pulses, refusals, counters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from journals import record
from line_fakes import until
from output_fakes import ScriptedControl

from differad_edge.outputs.modbus.panel import Panel
from differad_edge.outputs.modbus.registers import (
    ERROR_CODES,
    INPUTS,
    REASON_CODES,
    STATE_CODES,
    VERDICT_CODES,
    Command,
    Holding,
    Input,
    Status,
)
from differad_edge.outputs.settings import ModbusSettings
from differad_edge.results import Reason, Verdict
from differad_edge.runtime.states import State

VERDICTS = Status.PASS | Status.FAIL | Status.UNDECIDED | Status.RESULT_READY


class Plc:
    """A panel, a line that is scripted, and results that are presented from a thread."""

    def __init__(self, **settings: Any) -> None:
        self.line = ScriptedControl()
        self.panel = Panel(ModbusSettings.model_validate({"type": "modbus", "hold_ms": 0, **settings}), self.line)
        self.stop = threading.Event()
        self.presented: list[int] = []
        self._threads: list[threading.Thread] = []

    @property
    def status(self) -> Status:
        return Status(self.panel.inputs()[Input.STATUS])

    def set(self, command: Command = Command(0), number: int = 0) -> None:  # noqa: B008
        self.panel.command(command, number)

    def result(self, *records: Any) -> None:
        def run() -> None:
            for one in records:
                self.panel.present(one.to_dict(), self.stop)
                self.presented.append(one.sequence)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def close(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


@contextmanager
def plc(**settings: Any) -> Iterator[Plc]:
    found = Plc(**settings)
    try:
        yield found
    finally:
        found.close()


def test_the_whole_handshake() -> None:
    with plc() as it:
        it.set(Command.TRIGGER, 77)
        assert it.status == Status.ACCEPTED | Status.BUSY
        [trigger] = it.line.triggers
        assert trigger["part_id"] == "77"
        it.result(record(5, "NG", trigger_id=trigger["trigger_id"]))
        until(lambda: Status.RESULT_READY in it.status)
        assert it.status == Status.ACCEPTED | Status.RESULT_READY | Status.FAIL
        inputs = it.panel.inputs()
        assert (inputs[Input.SEQUENCE + 1], inputs[Input.TRIGGER_NUMBER], inputs[Input.VERDICT]) == (5, 77, 2)
        assert inputs[Input.BOX_X1_PX : Input.BOX_Y2_PX + 1] == [10, 20, 30, 40]
        assert it.presented == []  # not before it is acknowledged
        it.set(Command.TRIGGER | Command.ACKNOWLEDGE, 77)
        until(lambda: it.presented == [5])
        assert it.status == Status.ACCEPTED
        it.set()
        assert it.status == Status(0)


def test_the_next_result_waits_for_the_acknowledgement_and_for_its_end() -> None:
    with plc() as it:
        it.result(record(1, "OK"), record(2, "NG"))
        until(lambda: Status.PASS in it.status)
        it.set(Command.ACKNOWLEDGE)
        until(lambda: it.presented == [1])
        assert it.status & VERDICTS == Status(0)  # one that stays set acknowledges nothing more
        it.set()
        until(lambda: Status.FAIL in it.status)
        it.set(Command.ACKNOWLEDGE)
        until(lambda: it.presented == [1, 2])


@pytest.mark.parametrize("code", sorted(ERROR_CODES))
def test_a_trigger_that_is_refused_is_an_error_with_a_code_and_no_result(code: str) -> None:
    with plc() as it:
        it.line.refuse = code
        it.set(Command.TRIGGER)
        assert it.status == Status.TRIGGER_ERROR
        assert it.panel.inputs()[Input.ERROR_CODE] == ERROR_CODES[code]
        assert it.panel.inputs()[Input.REFUSED_TRIGGERS + 1] == 1
        it.set()
        assert (it.status, it.panel.inputs()[Input.ERROR_CODE]) == (Status(0), 0)


def test_a_trigger_while_another_result_stands_is_refused_for_that_result_would_be_taken_for_its_own() -> None:
    with plc() as it:
        it.result(record(1, "OK", trigger_id="panel-before:00000000:1:6"))
        until(lambda: Status.PASS in it.status)
        it.set(Command.TRIGGER, 7)
        assert Status.TRIGGER_ERROR in it.status
        assert it.panel.inputs()[Input.ERROR_CODE] == ERROR_CODES["result-waiting"]
        assert it.line.triggers == []
        it.set(Command.ACKNOWLEDGE)
        until(lambda: it.presented == [1])
        it.set()
        it.set(Command.TRIGGER, 7)
        assert it.status & (VERDICTS | Status.TRIGGER_ERROR | Status.ACCEPTED) == Status.ACCEPTED


def test_a_result_that_was_dropped_leaves_the_panel_not_busy_for_ever() -> None:
    with plc() as it:
        it.set(Command.TRIGGER, 7)
        [trigger] = it.line.triggers
        trigger["on_result"](record(2, "OK", trigger_id=trigger["trigger_id"]))  # and its turn never comes
        it.result(record(3, "NG"))
        until(lambda: Status.FAIL in it.status)
        assert Status.BUSY not in it.status
        it.set(Command.ACKNOWLEDGE)
        until(lambda: it.presented == [3])


@pytest.mark.parametrize(
    "trigger_id", ["modbus:x:7", "modbus:0123abcd:1:70000", "modbus:0123abcd:1:7:8", "other:0123abcd:1:7"]
)
def test_an_id_that_somebody_else_chose_is_no_trigger_number(trigger_id: str) -> None:
    with plc() as it:
        it.result(record(1, "OK", trigger_id=trigger_id))
        until(lambda: Status.PASS in it.status)
        assert it.panel.inputs()[Input.TRIGGER_NUMBER] == 0
        it.set(Command.ACKNOWLEDGE)


def test_only_a_rising_edge_triggers_and_a_second_one_in_between_is_busy() -> None:
    with plc() as it:
        for _ in range(3):
            it.set(Command.TRIGGER)
        assert len(it.line.triggers) == 1
        it.set()
        it.set(Command.TRIGGER)
        assert Status.TRIGGER_ERROR in it.status
        assert Status.BUSY in it.status
        assert it.panel.inputs()[Input.ERROR_CODE] == ERROR_CODES["busy"]
        it.set()
        it.line.triggers[0]["on_result"](record(1, trigger_id=it.line.triggers[0]["trigger_id"]))
        it.set(Command.TRIGGER)
        assert len({trigger["trigger_id"] for trigger in it.line.triggers}) == 2


@pytest.mark.parametrize("verdict", ["UNDECIDED", "ERROR"])
def test_no_verdict_is_neither_pass_nor_fail(verdict: str) -> None:
    with plc() as it:
        it.result(record(1, verdict))
        until(lambda: Status.RESULT_READY in it.status)
        assert it.status == Status.RESULT_READY | Status.UNDECIDED
        inputs = it.panel.inputs()
        assert (inputs[Input.REASON], inputs[Input.BOX_X2_PX]) == (REASON_CODES["deadline"], 0)


def test_without_the_handshake_bits_are_pulses_of_at_least_the_width_that_was_asked_for() -> None:
    class Stop(threading.Event):
        """Takes no time, and writes down for how long it was asked to."""

        def __init__(self) -> None:
            super().__init__()
            self.waits: list[tuple[float, Status]] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.waits.append((timeout or 0, it.status))
            return False

    it = Plc(handshake=False, hold_ms=150, gap_ms=30)
    it.panel = Panel(it.panel._settings, it.line, clock=lambda: 0.0)
    stop = Stop()
    it.panel.present(record(1, "OK").to_dict(), stop)
    assert stop.waits == [(0.15, Status.RESULT_READY | Status.PASS), (0.03, Status(0))]


def test_with_the_handshake_a_quick_acknowledgement_does_not_shorten_the_bits() -> None:
    with plc(hold_ms=300) as it:
        it.result(record(1, "OK"))
        until(lambda: Status.PASS in it.status)
        it.set(Command.ACKNOWLEDGE)
        assert Status.PASS in it.status
        until(lambda: it.presented == [1])
        assert Status.PASS not in it.status


def test_counters_count_a_result_that_is_shown_twice_once() -> None:
    with plc(handshake=False, hold_ms=1, gap_ms=0) as it:
        for one in (record(1, "OK"), record(1, "OK"), record(2, "NG"), record(3, "ERROR"), record(70_000, "OK")):
            it.panel.present(one.to_dict(), it.stop)
        inputs = it.panel.inputs()
        counts = [inputs[at + 1] for at in (Input.RESULTS, Input.PASSED, Input.FAILED, Input.UNDECIDED)]
        assert counts == [4, 2, 1, 1]
        assert inputs[Input.SEQUENCE : Input.SEQUENCE + 2] == [1, 70_000 - 65_536]


def test_state_ready_and_a_heartbeat() -> None:
    with plc(station="b") as it:
        for state in State:
            it.panel.show({"state": "Error", "stations": [{"name": "b", "state": state.value}]})
            assert (Status.READY in it.status) is (state.value in ("Ready", "SingleExecution", "ContinuousExecution"))
            assert it.panel.inputs()[Input.STATE] == STATE_CODES[state.value]
        assert it.panel.inputs()[Input.HEARTBEAT] == len(State)


def test_reset_and_halt_reach_the_line() -> None:
    with plc(station="b") as it:
        it.set(Command.RESET)
        it.set(Command.HALT)
        until(lambda: sorted(it.line.commands) == ["halt b", "reset b"])


def test_stopping_ends_a_wait_for_the_plc() -> None:
    with plc() as it:
        it.result(record(1, "OK"))
        until(lambda: Status.PASS in it.status)
        it.stop.set()
        until(lambda: it.presented == [1])
        assert it.status == Status(0)


def test_every_reason_verdict_and_state_has_its_number() -> None:
    assert set(REASON_CODES) == set(Reason)
    assert set(VERDICT_CODES) == {verdict.value for verdict in Verdict}
    assert set(STATE_CODES) == {state.value for state in State}


def test_the_documented_table_is_the_one_that_is_served() -> None:
    text = (Path(__file__).parents[3] / "docs" / "OUTPUTS.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    for kind, prefix in ((Status, "DI "), (Command, "CO "), (Holding, "HR "), (Input, "IR ")):
        served = {
            prefix + str(one.value.bit_length() - 1 if kind in (Status, Command) else one.value): one.name
            for one in kind
        }
        documented = {row[0]: row[1].strip("`") for row in rows if row[0].startswith(prefix)}
        assert documented == served
    assert max(Input) + 2 == INPUTS
