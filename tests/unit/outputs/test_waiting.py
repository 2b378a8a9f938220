"""Queues: bounded, every result confirmed or counted, and the durable one goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.errors import OutputError
from differad_edge.outputs.acknowledged import Acknowledged
from differad_edge.outputs.base import Record
from differad_edge.outputs.waiting import DurableQueue, MemoryQueue


def rec(sequence: int, **more: Any) -> Record:
    return {"sequence": sequence, **more}


def numbers(records: Sequence[Record]) -> list[int]:
    return [record["sequence"] for record in records]


class Past:
    """A journal in memory; ``lost``: results that it could not take."""

    def __init__(self, lost: Sequence[int] = ()) -> None:
        self.records: list[Record] = []
        self.lost = set(lost)
        self.reads = 0

    def add(self, sequence: int) -> Record:
        record = rec(sequence)
        if sequence not in self.lost:
            self.records.append(record)
        return record

    def results_after(self, sequence: int, limit: int) -> Sequence[Record]:
        self.reads += 1
        return [record for record in self.records if record["sequence"] > sequence][:limit]


def durable(folder: Path, past: Past, *, last: int = 0, capacity: int = 10, most_behind: int = 1000) -> DurableQueue:
    acknowledged = Acknowledged(folder / "o.json", last)
    return DurableQueue(past, acknowledged, last_sequence=last, capacity=capacity, most_behind=most_behind)


def drained(queue: Any, limit: int = 4) -> list[int]:
    found: list[int] = []
    while batch := queue.take(limit, 0):
        found += numbers(batch)
        queue.done()
    return found


def test_memory_keeps_the_newest_and_counts_the_rest() -> None:
    queue = MemoryQueue(3)
    for sequence in range(1, 11):
        queue.put(rec(sequence))
    assert (queue.waiting, queue.dropped) == (3, {"full": 7})
    assert drained(queue) == [8, 9, 10]


def test_what_is_taken_comes_again_until_it_is_confirmed_and_is_never_pushed_out() -> None:
    queue = MemoryQueue(2)
    queue.put(rec(1))
    assert numbers(queue.take(5, 0)) == [1]
    for sequence in (2, 3, 4):
        queue.put(rec(sequence))
    assert numbers(queue.take(5, 0)) == [1]
    queue.refused()
    assert numbers(queue.take(5, 0)) == [3, 4]
    queue.close()
    assert queue.dropped == {"full": 1, "refused": 1, "stopped": 2}


@given(st.lists(st.sampled_from(["put", "take", "done", "refused"]), max_size=60), st.integers(1, 5))
def test_every_result_is_waiting_confirmed_or_counted(steps: list[str], capacity: int) -> None:
    queue, put, sent = MemoryQueue(capacity), 0, 0
    held: list[Record] = []
    for step in steps:
        if step == "put":
            put += 1
            queue.put(rec(put))
        elif step == "take":
            held = queue.take(2, 0)
        elif step == "done":
            sent += len(held)
            held = []
            queue.done()
        else:
            held = []
            queue.refused()
        assert queue.waiting + sent + sum(queue.dropped.values()) == put
        assert queue.waiting <= capacity + 2


def test_the_durable_one_reads_from_the_journal_what_its_memory_could_not_hold(tmp_path: Path) -> None:
    past = Past()
    queue = durable(tmp_path, past, capacity=3)
    for sequence in range(1, 21):
        queue.put(past.add(sequence))
    assert drained(queue) == list(range(1, 21))
    assert queue.dropped == {}
    reads = past.reads
    queue.put(past.add(21))
    assert drained(queue) == [21]
    assert past.reads == reads  # a live line is not read back from the disk


def test_it_goes_on_after_a_restart_where_it_was_and_sends_nothing_from_before_it_existed(
    tmp_path: Path,
) -> None:
    past = Past()
    for sequence in range(1, 6):
        past.add(sequence)
    queue = durable(tmp_path, past, last=5)
    assert drained(queue) == []
    for sequence in range(6, 10):
        queue.put(past.add(sequence))
    queue.take(2, 0)
    queue.done()
    queue.take(2, 0)  # and the process ends
    queue.close()
    assert drained(durable(tmp_path, past, last=9)) == [8, 9]


def test_results_that_the_journal_could_not_take_are_sent_from_memory_or_counted(tmp_path: Path) -> None:
    past = Past(lost=range(3, 9))
    queue = durable(tmp_path, past, capacity=4)
    for sequence in range(1, 11):
        queue.put(past.add(sequence))
    assert drained(queue) == [1, 2, 7, 8, 9, 10]
    assert queue.dropped == {"not-in-journal": 4}


def test_too_far_behind_the_oldest_are_given_up_and_counted(tmp_path: Path) -> None:
    past = Past()
    queue = durable(tmp_path, past, most_behind=5)
    for sequence in range(1, 101):
        queue.put(past.add(sequence))
    assert drained(queue) == [96, 97, 98, 99, 100]
    assert queue.dropped == {"too-far-behind": 95}


def test_a_journal_that_was_begun_anew_begins_anew_here_too(tmp_path: Path) -> None:
    Acknowledged(tmp_path / "o.json", 500)
    past = Past()
    queue = durable(tmp_path, past, last=0)
    queue.put(past.add(1))
    assert drained(queue) == [1]


@pytest.mark.parametrize("text", ["", "{", '{"acknowledged": -1}', '{"acknowledged": true}', "[]", '{"a": 1}'])
def test_a_damaged_file_sends_everything_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "o.json").write_text(text)
    assert Acknowledged(tmp_path / "o.json", 7).sequence == 0


def test_the_number_is_on_the_disk_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "deep" / "o.json"
    acknowledged = Acknowledged(file, 0, clock=lambda: now[0])
    for sequence in range(1, 100):
        acknowledged.advance(sequence)
    assert Acknowledged(file, 0).sequence == 0
    now[0] = 0.3
    acknowledged.advance(100)
    acknowledged.advance(99)
    assert Acknowledged(file, 0).sequence == 100
    acknowledged.advance(101)
    acknowledged.save()
    assert Acknowledged(file, 0).sequence == 101
    with pytest.raises(OutputError, match="cannot be written"):
        Acknowledged(file / "below-a-file.json", 0)
