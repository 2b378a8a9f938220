"""The waiting parts: policies, frames for triggers, expiry."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_fakes import picture

from differad_edge.cameras.base import Frame
from differad_edge.results import Reason
from differad_edge.runtime.job import Fault, Job
from differad_edge.runtime.mailbox import Mailbox, Policy


def frame(captured_ns: int = 100, sequence: int = 1) -> Frame:
    return Frame(picture(1), sequence, captured_ns, "2026-01-01T00:00:00.000000Z", "BGR8", "c")


def free(identity: str = "f") -> Job:
    return Job(identity, "free", "main", "p", 100, frame=frame())


def asked(identity: str = "a", since_ns: int = 50, **more: int) -> Job:
    return Job(identity, "request", "main", "p", since_ns, **more)


def brought(identity: str = "i") -> Job:
    return Job(identity, "image", "main", "p", 50, frame=frame())


def fill(job: Job, taken: Frame) -> None:
    job.frame = taken


def test_latest_keeps_the_newest() -> None:
    mailbox = Mailbox("latest", 8)
    first, second = free("1"), free("2")
    assert mailbox.offer(first).accepted
    offer = mailbox.offer(second)
    assert (offer.accepted, offer.displaced) == (True, first)
    assert mailbox.take(0) is second
    assert mailbox.take(0) is None


def test_queue_refuses_beyond_its_capacity() -> None:
    mailbox = Mailbox("queue", 2)
    jobs = [free(str(i)) for i in range(3)]
    assert [mailbox.offer(job).accepted for job in jobs] == [True, True, False]
    assert [mailbox.take(0), mailbox.take(0)] == jobs[:2]


def test_refuse_lets_none_wait_while_one_is_in_hand() -> None:
    mailbox = Mailbox("refuse", 8)
    assert mailbox.offer(brought("1")).accepted
    assert not mailbox.offer(brought("2")).accepted  # one waits
    assert mailbox.take(0) is not None
    assert not mailbox.offer(brought("3")).accepted  # one is in hand
    mailbox.done()
    assert mailbox.offer(brought("4")).accepted


@pytest.mark.parametrize("policy", ["latest", "queue"])
def test_a_part_that_was_asked_for_never_makes_room_for_a_free_frame(policy: Policy) -> None:
    mailbox = Mailbox(policy, 1)
    wanted, by_itself = asked(), free()
    assert mailbox.offer(wanted).accepted
    assert not mailbox.offer(by_itself).accepted
    mailbox.give_frame(frame(), fill)
    assert mailbox.take(0) is wanted


@pytest.mark.parametrize("policy", ["latest", "queue"])
def test_a_free_frame_makes_room_for_a_part_that_was_asked_for(policy: Policy) -> None:
    mailbox = Mailbox(policy, 1)
    by_itself, wanted = free(), asked()
    mailbox.offer(by_itself)
    offer = mailbox.offer(wanted)
    assert (offer.accepted, offer.displaced) == (True, by_itself)


def test_a_frame_goes_to_the_oldest_trigger_that_came_before_it() -> None:
    mailbox = Mailbox("queue", 8)
    early, later = asked("early", since_ns=10), asked("later", since_ns=200)
    mailbox.offer(early)
    mailbox.offer(later)
    assert mailbox.give_frame(frame(captured_ns=5), fill) is None  # captured before both
    assert mailbox.give_frame(frame(captured_ns=100), fill) is early
    assert mailbox.give_frame(frame(captured_ns=150), fill) is None  # the later trigger came after it
    assert mailbox.take(0) is early
    assert mailbox.take(0) is None
    assert mailbox.give_frame(frame(captured_ns=300), fill) is later


def test_a_brought_image_need_not_wait_for_another_triggers_frame() -> None:
    mailbox = Mailbox("queue", 8)
    mailbox.offer(asked())
    image = brought()
    mailbox.offer(image)
    assert mailbox.take(0) is image


def test_jobs_expire_on_time_with_their_reason() -> None:
    now_ns = [0]
    mailbox = Mailbox("queue", 8, clock_ns=lambda: now_ns[0])
    frameless = asked("frameless", since_ns=0, frame_due_ns=5_000_000)
    slow = Job("slow", "image", "main", "p", 0, deadline_ns=9_000_000, frame=frame())
    mailbox.offer(frameless)
    mailbox.offer(slow)
    assert mailbox.wait_for_expired(0) == []
    now_ns[0] = 5_000_000
    [(job, fault)] = mailbox.wait_for_expired(0)
    assert (job, fault.reason) == (frameless, Reason.NO_FRAME)
    assert "5 ms" in fault.detail
    now_ns[0] = 9_000_000
    [(job, fault)] = mailbox.wait_for_expired(0)
    assert (job, fault.reason) == (slow, Reason.DEADLINE)
    assert len(mailbox) == 0


def test_a_waiting_expiry_wakes_for_an_earlier_one() -> None:
    mailbox = Mailbox("queue", 8)
    found: list[str] = []

    def watch() -> None:
        found.extend(job.trigger_id for job, _ in mailbox.wait_for_expired(5.0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    mailbox.offer(asked("now", since_ns=0, frame_due_ns=1))
    watcher.join(2.0)
    assert found == ["now"]


def test_failing_the_waiting_ones_leaves_those_with_a_frame() -> None:
    mailbox = Mailbox("queue", 8)
    image, first, second = brought(), asked("1"), asked("2")
    for job in (image, first, second):
        mailbox.offer(job)
    fault = Fault(Reason.NO_FRAME, "gone")
    assert mailbox.fail_waiting(fault, only_first=True) == 1
    assert (image.fault, first.fault, second.fault) == (None, fault, None)
    assert mailbox.fail_waiting(fault) == 1
    assert [mailbox.take(0), mailbox.take(0), mailbox.take(0)] == [image, first, second]


def test_closing_hands_out_the_rest_and_accepts_no_more() -> None:
    mailbox = Mailbox("queue", 8)
    jobs = [asked("1"), brought("2")]
    for job in jobs:
        mailbox.offer(job)
    assert mailbox.close() == jobs
    assert not mailbox.offer(asked("3")).accepted
    assert mailbox.take(10) is None  # at once


def test_a_job_is_claimed_once() -> None:
    job = asked()
    claims: list[bool] = []
    barrier = threading.Barrier(8)

    def claim() -> None:
        barrier.wait()
        claims.append(job.claim())

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == [False] * 7 + [True]


@given(
    policy=st.sampled_from(["latest", "queue", "refuse"]),
    capacity=st.integers(1, 4),
    steps=st.lists(st.sampled_from(["free", "ask", "bring", "frame", "take", "done"]), max_size=60),
)
def test_no_accepted_job_is_ever_lost(policy: Policy, capacity: int, steps: list[str]) -> None:
    mailbox = Mailbox(policy, capacity)
    accepted: set[str] = set()
    left: list[str] = []
    made = {"free": free, "ask": asked, "bring": brought}
    for number, step in enumerate(steps):
        if step in made:
            job = made[step](f"{step}{number}")
            offer = mailbox.offer(job)
            if offer.accepted:
                accepted.add(job.trigger_id)
            if offer.displaced is not None:
                assert offer.accepted
                left.append(offer.displaced.trigger_id)
        elif step == "frame":
            mailbox.give_frame(frame(), fill)
        elif step == "take":
            taken = mailbox.take(0)
            if taken is not None:
                left.append(taken.trigger_id)
        else:
            mailbox.done()
        assert len(mailbox) <= (capacity if policy == "queue" else 1)
    left += [job.trigger_id for job in mailbox.close()]
    assert sorted(left) == sorted(accepted)
