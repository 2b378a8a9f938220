"""An outbox with a scripted other side: it is slow, dead, comes back, refuses; the line never waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from line_fakes import until
from output_fakes import ScriptedControl, ScriptedOutput

from differad_edge import outputs
from differad_edge.errors import ConfigError, JournalError, OutputError, OutputRefusedError
from differad_edge.outputs import create_output
from differad_edge.outputs.backoff import Backoff
from differad_edge.outputs.outbox import Outbox
from differad_edge.outputs.settings import PluginSettings
from differad_edge.outputs.waiting import MemoryQueue


def box(output: ScriptedOutput, capacity: int = 100) -> Outbox:
    return Outbox("o", "scripted", output, MemoryQueue(capacity), Backoff(1, 4, seed=1), durable=False)


@contextmanager
def running(outbox: Outbox) -> Iterator[Outbox]:
    outbox.start()
    try:
        yield outbox
    finally:
        outbox.close(2.0)


def fill(outbox: Outbox, count: int, first: int = 1) -> None:
    for sequence in range(first, first + count):
        outbox.put({"sequence": sequence})


def test_results_go_out_in_order_in_batches_and_are_counted() -> None:
    output = ScriptedOutput(most_at_once=4)
    with running(box(output)) as outbox:
        fill(outbox, 30)
        until(lambda: outbox.stats().sent == 30)
        assert output.got == list(range(1, 31))
        assert max(output.batches) <= 4
    assert (outbox.stats().waiting, outbox.stats().open, output.closings) == (0, False, 1)


def test_a_peer_that_can_be_reached_and_takes_nothing_is_one_fault_until_it_takes_something() -> None:
    output = ScriptedOutput()
    output.fail_sending = 5
    outbox = box(output)
    faults: set[str | None] = set()
    opening = output.open

    def opened() -> None:
        opening()
        faults.add(outbox.stats().fault)

    output.open = opened  # type: ignore[method-assign]
    fill(outbox, 1)
    with running(outbox):
        until(lambda: outbox.stats().sent == 1)
        assert output.openings == 6
        assert faults == {None, "peer: it is not there"}
        until(lambda: outbox.stats().fault is None)


class TornJournal(MemoryQueue):
    """Cannot be read the first times."""

    failures = 3

    def take(self, limit: int, timeout_s: float) -> list[Any]:
        if self.failures:
            self.failures -= 1
            raise JournalError("journal: cannot be read")
        return super().take(limit, timeout_s)


def test_a_journal_that_cannot_be_read_cuts_nobody_off() -> None:
    output = ScriptedOutput()
    outbox = Outbox("o", "scripted", output, TornJournal(10), Backoff(1, 4, seed=1), durable=False)
    fill(outbox, 2)
    with running(outbox):
        until(lambda: outbox.stats().sent == 2)
        assert (output.openings, output.closings, outbox.stats().failures) == (1, 0, 0)


def test_a_dead_peer_never_holds_up_whoever_puts() -> None:
    """Structurally: the thread that puts finishes while the thread that sends hangs for ever in the other side."""
    output = ScriptedOutput()
    output.gate = threading.Event()
    outbox = box(output, capacity=50)
    outbox.start()
    outbox.put({"sequence": 1})
    assert output.entered.wait(5)
    putter = threading.Thread(target=fill, args=(outbox, 10_000, 2))
    putter.start()
    putter.join(20)
    assert not putter.is_alive()
    stats = outbox.stats()
    assert (stats.waiting, stats.dropped, stats.sent) == (51, {"full": 9950}, 0)
    assert output.got == []  # it hangs still
    outbox.close(0.05)
    assert outbox.stats().dropped == {"full": 9950, "stopped": 51}


def test_a_broken_connection_is_opened_again_and_nothing_is_lost() -> None:
    output = ScriptedOutput(most_at_once=3)
    output.fail_opening, output.fail_sending = 3, 2
    with running(box(output)) as outbox:
        fill(outbox, 10)
        until(lambda: outbox.stats().sent == 10)
        assert output.got == list(range(1, 11))
        stats = outbox.stats()
        assert (stats.failures, stats.fault, stats.open) == (5, None, True)
    assert output.closings == 6


@pytest.mark.parametrize("error", [OutputError("gone"), JournalError("disk"), RuntimeError("a bug"), KeyError("x")])
def test_whatever_an_output_raises_it_is_tried_again(error: Exception) -> None:
    output = ScriptedOutput()
    output.error, output.fail_sending = error, 1
    with running(box(output)) as outbox:
        fill(outbox, 2)
        until(lambda: outbox.stats().sent == 2)


def test_a_result_that_is_refused_for_good_is_counted_and_the_next_one_goes_out() -> None:
    output = ScriptedOutput()
    output.refuse, output.refusal = {2}, OutputRefusedError("never")
    with running(box(output)) as outbox:
        fill(outbox, 3)
        until(lambda: outbox.stats().sent == 2)
        assert output.got == [1, 3]
        assert outbox.stats().dropped == {"refused": 1}


def test_what_waits_at_the_end_is_sent_when_the_other_side_is_there() -> None:
    output = ScriptedOutput()
    output.gate = threading.Event()
    outbox = box(output)
    outbox.start()
    fill(outbox, 20)
    outbox.end()
    output.gate.set()
    outbox.close(5.0)
    assert (output.got, outbox.stats().dropped) == (list(range(1, 21)), {})


def test_an_idle_connection_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs.outbox, "_POLL_S", 0.01)
    output = ScriptedOutput()
    with running(box(output)):
        until(lambda: output.checks > 3)


def test_pauses_double_up_to_the_limit_and_differ() -> None:
    backoff = Backoff(100, 800, seed=3)
    pauses = [backoff.next_s() for _ in range(6)]
    for pause, most in zip(pauses, (0.1, 0.2, 0.4, 0.8, 0.8, 0.8), strict=True):
        assert most / 2 <= pause <= most
    assert len(set(pauses)) == 6
    backoff.reset()
    assert backoff.next_s() <= 0.1


class Point:
    """An entry point of a plugin."""

    name = "lamp"

    def __init__(self, made: Any) -> None:
        self._made = made

    def load(self) -> Any:
        return self._made


def plugged(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    monkeypatch.setattr(outputs, "entry_points", lambda group, name="lamp": [Point(made)] if name == "lamp" else [])


def test_a_plugin_gets_its_options_and_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    output = ScriptedOutput()
    plugged(monkeypatch, lambda options, line: seen.append((options, line)) or output)
    control = ScriptedControl()
    settings = PluginSettings.model_validate({"type": "plugin", "plugin": "lamp", "options": {"pin": 4}})
    assert create_output(settings, control) is output
    assert seen == [({"pin": 4}, control)]
    with pytest.raises(ConfigError, match="output 'plugin': plugin: got 'horn', allowed: lamp"):
        create_output(settings.model_copy(update={"plugin": "horn"}), control)
    plugged(monkeypatch, lambda options, line: object())
    with pytest.raises(OutputError, match="its plugin gave object"):
        create_output(settings, control)
    plugged(monkeypatch, lambda options, line: 1 / 0)
    with pytest.raises(OutputError, match="its plugin failed: ZeroDivisionError"):
        create_output(settings, control)
