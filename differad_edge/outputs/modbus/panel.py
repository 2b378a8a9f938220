"""The panel without its wires: what the PLC's commands do, and what it sees. The handshake:

    PLC                         panel
    TRIGGER 1            ─▶     ACCEPTED 1, BUSY 1      or TRIGGER_ERROR 1 and a code: no result will come
                         ◀─     BUSY 0, RESULT_READY 1, and PASS or FAIL or UNDECIDED, and the result's registers
    ACKNOWLEDGE 1        ─▶     RESULT_READY 0, PASS 0, FAIL 0, UNDECIDED 0 (not before they stood for ``hold_ms``)
    TRIGGER 0, ACKNOWLEDGE 0 ─▶ ACCEPTED 0, TRIGGER_ERROR 0; the next result, if one waits

Without the handshake the bits stand for ``hold_ms`` and are off for ``gap_ms``: pulses for a digital output.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from differad_edge.errors import DifferadError
from differad_edge.outputs.base import ACCEPTING_STATES, LineControl, Record, state_of
from differad_edge.outputs.codes import state_code
from differad_edge.outputs.modbus.registers import (
    INPUTS,
    Command,
    Input,
    Status,
    error_code,
    result_registers,
    split32,
)
from differad_edge.outputs.settings import ModbusSettings

__all__ = ["Panel"]

_log = logging.getLogger(__name__)

_VERDICT_BITS = Status.RESULT_READY | Status.PASS | Status.FAIL | Status.UNDECIDED
_POLL_S = 0.1


class Panel:
    """Every method may be called from any thread. ``reset`` and ``halt`` are called from threads of their own."""

    def __init__(
        self, settings: ModbusSettings, line: LineControl, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._line = line
        self._clock = clock
        self._changed = threading.Condition()
        self._inputs = [0] * INPUTS
        self._status = Status(0)
        self._command = Command(0)
        self._pending: str | None = None
        self._ended: str | None = None
        self._ended_sequence = 0
        self._prefix = f"{settings.name}:{secrets.token_hex(4)}:"
        self._triggers = self._refused = self._heartbeat = 0
        self._counts = dict.fromkeys((Input.RESULTS, Input.PASSED, Input.FAILED, Input.UNDECIDED), 0)
        self._newest = 0

    # -- the PLC's side -----------------------------------------------------------------------------------------------

    def inputs(self) -> list[int]:
        """The input registers of this moment."""
        with self._changed:
            return list(self._inputs)

    def command(self, command: Command, trigger_number: int) -> None:
        """What the PLC has set now; returns at once."""
        with self._changed:
            rising, falling = command & ~self._command, self._command & ~command
            self._command = command
            if Command.TRIGGER in falling:
                self._set(Status.ACCEPTED | Status.TRIGGER_ERROR, False)
                self._inputs[Input.ERROR_CODE] = 0
            self._changed.notify_all()
        if Command.TRIGGER in rising:
            self._trigger(trigger_number)
        if Command.RESET in rising:
            self._ask("reset", self._line.reset)
        if Command.HALT in rising:
            self._ask("halt", self._line.halt)

    # -- the line's side ----------------------------------------------------------------------------------------------

    def show(self, pulse: Mapping[str, Any]) -> None:
        """What the station is doing."""
        state = state_of(pulse, self._settings.station)
        with self._changed:
            self._set(Status.READY, state in ACCEPTING_STATES)
            self._set(Status.STATION_ERROR, state == "Error")
            self._inputs[Input.STATE] = state_code(state)
            self._heartbeat = self._heartbeat + 1 & 0xFFFF
            self._inputs[Input.HEARTBEAT] = self._heartbeat

    def present(self, record: Record, stop: threading.Event) -> None:
        """Show one result; returns when the PLC has taken it or the pulse is over, and soon after ``stop`` is set."""
        handshake = self._settings.handshake
        with self._changed:
            if handshake and not self._wait_for_acknowledge(False, stop):
                return
            self._raise_result(record)
            shown_s = self._clock()
            if handshake and not self._wait_for_acknowledge(True, stop):
                self._set(_VERDICT_BITS, False)  # nobody has taken it: a durable output shows it again
                return
        self._pause(shown_s + self._settings.hold_ms / 1000.0 - self._clock(), stop)
        with self._changed:
            self._set(_VERDICT_BITS, False)
        if not handshake:
            self._pause(self._settings.gap_ms / 1000.0, stop)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _trigger(self, number: int) -> None:
        with self._changed:
            if self._pending is not None and self._pending != self._ended:
                self._refuse("busy")
                return
            if self._settings.handshake and Status.RESULT_READY in self._status:
                # Whoever waits for RESULT_READY next would take that result for the one of this part.
                self._refuse("result-waiting")
                return
            self._triggers += 1
            # The number travels in the id: it comes back with the result even after a restart.
            identity = self._pending = f"{self._prefix}{self._triggers}:{number}"
            self._set(Status.ACCEPTED | Status.BUSY, True)  # before the result can come
        part_id = str(number) if number else None
        try:
            self._line.trigger(
                station=self._settings.station, trigger_id=identity, part_id=part_id, on_result=self._result_is_out
            )
        except DifferadError as error:
            with self._changed:
                self._pending = None
                self._set(Status.ACCEPTED | Status.BUSY, False)
                self._refuse(error.code)

    def _refuse(self, code: str) -> None:
        self._refused += 1
        self._set(Status.TRIGGER_ERROR, True)
        self._inputs[Input.ERROR_CODE] = error_code(code)
        self._set32(Input.REFUSED_TRIGGERS, self._refused)

    def _result_is_out(self, record: Any) -> None:
        """It may wait for its turn still; the next trigger is accepted from now on."""
        with self._changed:
            self._ended, self._ended_sequence = record.trigger_id, record.sequence

    def _raise_result(self, record: Record) -> None:
        verdict, trigger_id = record["verdict"], str(record["trigger_id"])
        for address, value in result_registers(record, _number_in(trigger_id, self._settings.name)).items():
            self._inputs[address] = value
        if record["sequence"] > self._newest:  # one that is shown again is not counted again
            self._newest = record["sequence"]
            counter = {"OK": Input.PASSED, "NG": Input.FAILED}.get(verdict, Input.UNDECIDED)
            for address in (Input.RESULTS, counter):
                self._counts[address] += 1
                self._set32(address, self._counts[address])
        over = self._pending is not None and self._pending == self._ended
        if trigger_id == self._pending or (over and record["sequence"] > self._ended_sequence):  # or it was dropped
            self._pending = None
            self._set(Status.BUSY, False)
        bit = {"OK": Status.PASS, "NG": Status.FAIL}.get(verdict, Status.UNDECIDED)
        self._set(_VERDICT_BITS, False)
        self._set(bit | Status.RESULT_READY, True)

    def _wait_for_acknowledge(self, on: bool, stop: threading.Event) -> bool:
        while (Command.ACKNOWLEDGE in self._command) is not on:
            if stop.is_set():
                return False
            self._changed.wait(_POLL_S)
        return True

    @staticmethod
    def _pause(seconds: float, stop: threading.Event) -> None:
        if seconds > 0:
            stop.wait(seconds)

    def _set(self, bits: Status, on: bool) -> None:
        self._status = self._status | bits if on else self._status & ~bits
        self._inputs[Input.STATUS] = int(self._status)

    def _set32(self, address: int, value: int) -> None:
        self._inputs[address], self._inputs[address + 1] = split32(value)

    def _ask(self, name: str, command: Callable[..., object]) -> None:
        def run() -> None:
            try:
                command(station=self._settings.station)
            except DifferadError as error:
                _log.warning("output %s: the PLC's %s is refused: %s", self._settings.name, name, error)

        threading.Thread(target=run, name=f"{self._settings.name}-{name}", daemon=True).start()


def _number_in(trigger_id: str, name: str) -> int:
    """What the PLC called the part; 0 when it has not triggered it. Others may choose an id that looks similar."""
    found = re.fullmatch(rf"{re.escape(name)}:[0-9a-f]{{8}}:[0-9]+:([0-9]{{1,5}})", trigger_id)
    number = int(found[1]) if found else 0
    return number if number <= 0xFFFF else 0
