"""Restart budgets and periodic duties, on a clock that the test moves."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from line_fakes import until

from differad_edge.runtime.watchdog import Occasional, Periodic, RestartBudget, tell_systemd


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_budget_is_spent_and_comes_back_with_time() -> None:
    clock = FakeClock()
    budget = RestartBudget(2, 60.0, clock=clock)
    assert [budget.spend(), budget.spend(), budget.spend()] == [True, True, False]
    clock.now_s += 61
    assert budget.spend()
    assert budget.spend()
    assert not budget.spend()
    budget.renew()
    assert budget.spend()


def test_no_restarts_is_a_setting() -> None:
    assert not RestartBudget(0, 60.0).spend()


def test_duties_keep_their_period_and_do_not_catch_up() -> None:
    clock = FakeClock()
    done: list[float] = []
    duty = Periodic(10.0, lambda: done.append(clock.now_s), clock=clock)
    for now_s in (100, 105, 110, 111, 190, 191, 199, 200):
        clock.now_s = float(now_s)
        duty.tick()
    assert done == [100, 110, 190, 200]


def test_long_work_is_done_once_at_a_time() -> None:
    began, go_on = threading.Semaphore(0), threading.Event()

    def work() -> None:
        began.release()
        assert go_on.wait(5)

    prune = Occasional("prune", work)
    prune.start()
    assert began.acquire(timeout=5)
    prune.start()
    assert not began.acquire(timeout=0.05)
    go_on.set()
    until(lambda: (prune.start(), began.acquire(blocking=False))[1])


def test_a_duty_that_fails_is_done_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise RuntimeError("broken duty")

    duty = Periodic(1.0, fails, clock=clock)
    duty.tick()
    clock.now_s += 1
    duty.tick()
    assert len(calls) == 2
    assert "broken duty" in caplog.text


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd talks over Unix sockets")
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.path.relpath(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        tell_systemd("READY=1")
        assert systemd.recv(64) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    tell_systemd("READY=1")  # nobody listens: nothing happens
