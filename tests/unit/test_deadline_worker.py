"""A caller gets its answer in time, whatever the work does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from line_fakes import until

from differad_edge.deadline import Deadline
from differad_edge.deadline_worker import DeadlineWorker
from differad_edge.errors import DeadlineExceeded


def test_work_in_time_returns_its_result_and_its_errors() -> None:
    worker: DeadlineWorker[int] = DeadlineWorker("test")
    assert worker.call(lambda: 7, Deadline.after_ms(5000)) == 7
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0, Deadline.after_ms(5000))
    worker.close()


def test_a_caller_leaves_on_time_and_the_next_one_is_told_why_it_waits() -> None:
    worker: DeadlineWorker[int] = DeadlineWorker("test")
    release = threading.Event()

    def hang() -> int:
        release.wait(10)
        return 1

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        worker.call(hang, Deadline.after_ms(60))
    assert time.monotonic() - began < 5
    ran = []
    with pytest.raises(DeadlineExceeded, match="could start"):
        worker.call(lambda: ran.append(1) or 2, Deadline.after_ms(40))
    release.set()
    assert worker.call(lambda: 3, Deadline.after_ms(5000)) == 3
    assert ran == [], "work whose caller has left before its turn must not run"
    worker.close()


def test_a_timeout_error_of_the_work_itself_is_not_taken_for_the_deadline() -> None:
    worker: DeadlineWorker[int] = DeadlineWorker("test")

    def fail() -> int:
        raise TimeoutError("the camera's own")

    with pytest.raises(TimeoutError, match="camera"):
        worker.call(fail, Deadline.after_ms(5000))
    worker.close()


def test_it_works_again_after_close() -> None:
    worker: DeadlineWorker[int] = DeadlineWorker("test")
    assert worker.call(lambda: 1, Deadline.after_ms(5000)) == 1
    for result in range(50):  # no pause: the thread that was told to end may still be there
        worker.close()
        assert worker.call(lambda result=result: result, Deadline.after_ms(5000)) == result  # type: ignore[misc]
    worker.close()
    worker.close()


def test_a_late_result_goes_to_whoever_wants_late_ones_and_to_nobody_else() -> None:
    worker: DeadlineWorker[int] = DeadlineWorker("test")
    release, late = threading.Event(), []

    def slow() -> int:
        assert release.wait(10)
        return 1

    with pytest.raises(DeadlineExceeded):
        worker.call(slow, Deadline.after_ms(40), on_late=late.append)
    assert late == []
    until(lambda: worker.busy_ms >= 30)
    release.set()
    assert worker.call(lambda: 2, Deadline.after_ms(5000), on_late=late.append) == 2
    assert late == [1]
    assert worker.busy_ms == 0.0
    worker.close()


def test_work_that_fails_late_or_never_began_is_told_to_nobody() -> None:
    worker: DeadlineWorker[int] = DeadlineWorker("test")
    release, late = threading.Event(), []

    def fails() -> int:
        assert release.wait(10)
        raise ZeroDivisionError

    with pytest.raises(DeadlineExceeded):
        worker.call(fails, Deadline.after_ms(40), on_late=late.append)
    with pytest.raises(DeadlineExceeded):
        worker.call(lambda: 1, Deadline.after_ms(20), on_late=late.append)
    release.set()
    assert worker.call(lambda: 3, Deadline.after_ms(5000)) == 3
    assert late == []
    worker.close()


LATE = """
import sys, time
import cv2, numpy as np
from differad_edge.deadline import Deadline
from differad_edge.deadline_worker import DeadlineWorker
from differad_edge.errors import DeadlineExceeded

picture = np.zeros((1000, 1000, 3), np.uint8)

def work():
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        cv2.GaussianBlur(picture, (31, 31), 5)

try:
    DeadlineWorker("late").call(work, Deadline.after_ms(20))
except DeadlineExceeded:
    sys.exit(3)
"""


def test_a_program_that_ends_while_work_is_late_has_its_own_exit_code() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
