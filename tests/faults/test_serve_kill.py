"""kill -9 and SIGTERM of a real server under load: what a subscriber heard stands in the journal."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from line_fakes import picture, until

from differad_edge.client import InspectionClient
from differad_edge.references.store import ReferenceStore
from differad_edge.results import Verdict
from differad_edge.runtime.journal_query import ResultQuery
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.record import RESULT_PREFIX

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("line_process.py")
KILLS = 50


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *options], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


class Listener:
    """Hears every result of a server until it is silent."""

    def __init__(self, address: str) -> None:
        self.heard: list[int] = []
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, RESULT_PREFIX)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(address)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(50):
                self.heard.append(json.loads(self._socket.recv())["sequence"])

    def close(self) -> None:
        time.sleep(0.05)  # what is still in the pipe was heard too
        self._stop.set()
        self._thread.join()
        self._context.destroy(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ReferenceStore(tmp_path / "store").register("p", [picture(7)])
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
def test_fifty_kills_under_load_lose_nothing_that_was_heard(folder: Path) -> None:
    chance = random.Random(5)
    heard: list[int] = []
    for _ in range(KILLS):
        with server(folder) as (process, addresses):
            listener = Listener(addresses["publish"])
            time.sleep(chance.uniform(0.15, 0.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
            listener.close()
        heard += listener.heard
    with JournalReader(folder / "journal.sqlite") as reader:
        written = [stored.record.sequence for stored in reader.all_results(ResultQuery())]
    assert len(heard) > 10 * KILLS  # it was under load
    assert len(set(heard)) == len(heard), "a number was published twice"
    assert set(heard) <= set(written)
    assert written == list(range(1, len(written) + 1))
    with sqlite3.connect(folder / "journal.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sigterm_finishes_the_part_in_hand_and_answers_those_that_wait(folder: Path) -> None:
    station = {"product": "p", "mailbox": {"policy": "queue"}, "trigger": {"mode": "request"}}
    settings = json.dumps({"stations": [{"camera": {"source": "fast:"}, **station}]})
    with server(folder, "--busy-ms", "300", "--settings", settings) as (process, addresses):
        with InspectionClient(addresses["control"], addresses["publish"]) as client:
            until(lambda: client.status()["ready"])
            accepted = [client.trigger(wait=False).trigger_id for _ in range(3)]
            until(lambda: client.status()["stations"][0]["state"] == "SingleExecution")
        process.terminate()
        assert process.wait(10) == 0
    with JournalReader(folder / "journal.sqlite") as reader:
        records = {stored.record.trigger_id: stored.record for stored in reader.results()}
    assert set(records) == set(accepted)
    assert records[accepted[0]].verdict in (Verdict.OK, Verdict.NG)
    assert [records[identity].result.reason for identity in accepted[1:]] == ["stopped", "stopped"]


def test_a_second_server_on_the_same_journal_or_port_says_so(folder: Path) -> None:
    with server(folder) as (_, addresses):
        for settings, code in (
            ({}, "journal"),
            ({"journal": {}, "wire": {"publish": addresses["publish"], "control": "tcp://127.0.0.1:0"}}, "address"),
        ):
            second = subprocess.run(
                [sys.executable, str(SCRIPT), str(folder), "--settings", json.dumps(settings)],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
                timeout=60,
            )
            assert second.returncode != 0
            assert {"journal": "JournalInUseError", "address": "AddressInUseError"}[code] in second.stderr
        with InspectionClient(addresses["control"], addresses["publish"]) as client:
            until(lambda: client.status()["ready"])  # the first one is not disturbed
