"""kill -9 of a writer at any moment: whatever it had announced is in the journal, and the journal opens."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commanded import CommandedProcess
from journals import record

from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_reader import JournalReader

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its writers"),
    pytest.mark.slow,
]

KILLS = 40


class Writers(CommandedProcess):
    """The warm parent of journal_writer.py."""

    def __init__(self) -> None:
        super().__init__(Path(__file__).with_name("journal_writer.py"))

    def run_and_kill(self, path: Path, durability: str, after_s: float) -> tuple[bool, int]:
        """Let a writer live for so long; return whether it had opened the journal, and the last result announced."""
        self._send(f"write {path} {durability}")
        # The child may be quicker than the parent that tells its pid.
        early: list[str] = []
        while not (line := self._line()).startswith("pid"):
            early.append(line)
        time.sleep(after_s)
        os.kill(int(line.split()[1]), signal.SIGKILL)
        self._send("reap")
        opened, last = False, 0
        while True:
            word, value = (early.pop(0) if early else self._line()).split()
            if word == "reaped":
                assert int(value) == -signal.SIGKILL
                return opened, last
            opened, last = True, int(value)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    writers = Writers()
    yield writers
    writers.close()


def check(path: Path, last: int) -> int:
    """The journal after a kill; returns its last sequence number."""
    with JournalReader(path) as reader:  # a reader may be the first to come, before any server
        numbers = [stored.record.sequence for stored in reader.all_results()]
    assert numbers == list(range(1, len(numbers) + 1)), "a gap"
    assert len(numbers) >= last, f"{last} was announced, {len(numbers)} are there"
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return len(numbers)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_kill_at_random_moments(tmp_path: Path, writers: Writers, durability: str) -> None:
    moments = random.Random(11)
    path, last = tmp_path / "line.sqlite", 0
    mid_work = 0
    for _ in range(KILLS):
        opened, announced = writers.run_and_kill(path, durability, moments.uniform(0.005, 0.12))
        if not path.exists():
            continue  # killed before it made the file
        mid_work += opened
        last = check(path, max(last, announced))
    assert mid_work >= KILLS // 2, "the kills came too early"
    with Journal(path) as journal:
        assert journal.last_sequence == last
        journal.append(record(last + 1, session="after"))
    print(f"{KILLS} kills, {mid_work} of them after the journal was open, {last} results")


def test_kill_while_the_journal_is_made(tmp_path: Path, writers: Writers) -> None:
    moments = random.Random(12)
    for number in range(KILLS):
        path = tmp_path / f"{number}" / "line.sqlite"
        _, announced = writers.run_and_kill(path, "process", moments.uniform(0.0, 0.02))
        with Journal(path) as journal:
            assert journal.last_sequence >= announced
            journal.append(record(journal.last_sequence + 1, session="after"))
        check(path, announced + 1)
