"""One camera and what it looks at: exactly one result for each accepted trigger, and every drop counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_fakes import Bench, ManualCamera, ScriptedInspector, picture, running, until

from differad_edge.cameras import CameraInfo
from differad_edge.errors import CameraLostError, CameraNotFoundError, CameraTimeoutError, RefusedError, TornFrameError
from differad_edge.images import Image
from differad_edge.results import Verdict
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.states import State


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= before)


class Gate:
    """A script that waits until it is opened: a part in hand for as long as the test wants."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, image: Image, product: str) -> Verdict:
        self.entered.set()
        assert self.open.wait(10)
        return Verdict.OK


def ready(bench: Bench) -> None:
    until(lambda: bench.station.readiness.accepting)


ON_REQUEST = {"trigger": {"mode": "request", "frame_timeout_ms": 300}, "mailbox": {"policy": "queue", "capacity": 3}}


def test_every_frame_of_a_free_run_gets_one_result(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue", "capacity": 100})
    with running(bench):
        ready(bench)
        for _ in range(20):
            bench.camera.push()
        records = bench.wait_for(20)
    assert [r.sequence for r in records] == list(range(1, 21))
    assert [r.frame_sequence for r in records] == list(range(1, 21))
    assert len({r.trigger_id for r in records}) == 20
    first = records[0]
    assert (first.trigger, first.station, first.product, first.camera) == ("free", "main", "p", "manual-1")
    assert first.image_fingerprint is not None
    assert first.image_fingerprint.startswith("xxh3-128:")
    assert set(first.result.timings.stages) >= {"queue", "compare", "since_capture"}
    assert bench.ledger.records == records


def test_frames_that_are_superseded_are_told_with_the_next_result(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate))
    with running(bench):
        ready(bench)
        bench.camera.push()
        assert gate.entered.wait(5)
        for _ in range(4):
            bench.camera.push()
        until(lambda: bench.station.drops.totals == {"superseded": 3})
        gate.open.set()
        first, second = bench.wait_for(2)
    assert (first.frame_sequence, second.frame_sequence) == (1, 5)
    assert {**first.dropped, **second.dropped} == {"superseded": ((2, 4),)}


def test_refused_frames_are_counted(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate), mailbox={"policy": "refuse"})
    with running(bench):
        ready(bench)
        bench.camera.push()
        assert gate.entered.wait(5)
        bench.camera.push()
        bench.camera.push()
        until(lambda: bench.station.drops.totals == {"busy": 2})
        gate.open.set()
        bench.wait_for(1)


def test_frames_before_ready_are_dropped_by_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path, load=False)
    with running(bench):
        bench.camera.push()
        until(lambda: bench.station.drops.totals == {"not-ready": 1})
        bench.load()
        ready(bench)
        bench.camera.push()
        [record] = bench.wait_for(1)
    assert record.dropped == {"not-ready": ((1, 1),)}


def test_a_trigger_gets_the_next_frame_and_no_older_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)
        bench.camera.push()  # before the trigger
        time.sleep(0.05)
        accepted = bench.station.accept("request", trigger_id="t1", part_id="part-9", job_id="job-3")
        assert (accepted.trigger_id, accepted.station) == ("t1", "main")
        bench.camera.push()
        [record] = bench.wait_for(1)
    assert (record.trigger_id, record.frame_sequence, record.trigger) == ("t1", 2, "request")
    assert (record.part_id, record.job_id) == ("part-9", "job-3")
    assert bench.station.drops.totals == {}  # frames nobody asked for are no drops


def test_a_trigger_without_a_frame_is_undecided_in_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)
        began = time.monotonic()
        bench.station.accept("request")
        [record] = bench.wait_for(1)
        assert 0.25 < time.monotonic() - began < 1.5
    assert (record.verdict, record.result.reason) == (Verdict.UNDECIDED, "no-frame")
    assert record.result.detail is not None
    assert "300 ms" in record.result.detail
    assert record.result.reference_sha256 is not None


def test_a_burst_beyond_the_queue_is_refused_and_the_rest_answered(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate), **ON_REQUEST)
    answered: list[ResultRecord] = []
    with running(bench):
        ready(bench)
        accepted, refused = [], []
        for _ in range(10):
            try:
                accepted.append(bench.station.accept("image", image=picture(1), on_result=answered.append).trigger_id)
            except RefusedError as error:
                refused.append(error.code)
        gate.open.set()
        bench.wait_for(len(accepted))
    assert refused == ["busy"] * (10 - len(accepted))
    assert len(accepted) in (3, 4)  # three wait, and the first may already be in hand
    assert sorted(r.trigger_id for r in answered) == sorted(accepted)


def test_a_superseded_trigger_still_gets_its_result(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate), trigger={"mode": "request"})
    with running(bench):
        ready(bench)
        for identity in ("in-hand", "waits", "newer"):
            bench.station.accept("image", image=picture(1), trigger_id=identity)
            if identity == "in-hand":
                assert gate.entered.wait(5)
        gate.open.set()
        records = {r.trigger_id: r for r in bench.wait_for(3)}
    assert records["waits"].result.reason == "superseded"
    assert records["waits"].verdict is Verdict.UNDECIDED
    assert records["in-hand"].is_ok
    assert records["newer"].is_ok


def test_a_trigger_id_counts_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)
        bench.station.accept("image", image=picture(1), trigger_id="t")
        with pytest.raises(RefusedError, match="'t' again") as caught:
            bench.station.accept("image", image=picture(1), trigger_id="t")
        assert caught.value.code == "duplicate-trigger"
        bench.wait_for(1)
    assert len(bench.records) == 1


@pytest.mark.parametrize("name", ["trigger_id", "part_id", "job_id"])
@pytest.mark.parametrize("given", [5, ["a"], b"a", "x" * 257])
def test_an_id_that_no_journal_takes_is_refused(tmp_path: Path, name: str, given: object) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)
        with pytest.raises(RefusedError, match=f"{name}: got .*, allowed: a text of at most 256") as caught:
            bench.station.accept("image", image=picture(1), **{name: given})  # type: ignore[arg-type]
        assert caught.value.code == "bad-id"


def test_a_camera_that_does_not_answer_its_trigger_is_not_triggered_again_for_the_same_part(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trigger={"mode": "request", "frame_timeout_ms": 10_000}, mailbox={"policy": "queue"})
    bench.camera.info = ManualCamera(live=False).info
    bench.camera.check = lambda: None  # type: ignore[attr-defined]
    reads = []

    def read(timeout_ms: float) -> None:
        reads.append(timeout_ms)
        raise CameraTimeoutError("did not answer its trigger")

    bench.camera.read = read  # type: ignore[method-assign,assignment]
    with running(bench):
        ready(bench)
        bench.station.accept("request")
        [record] = bench.wait_for(1)
    assert (record.verdict, record.result.reason, len(reads)) == (Verdict.UNDECIDED, "no-frame", 1)


def test_a_refused_trigger_id_may_come_again(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(
        tmp_path, inspector=ScriptedInspector(gate), mailbox={"policy": "refuse"}, trigger={"mode": "request"}
    )
    with running(bench):
        ready(bench)
        bench.station.accept("image", image=picture(1))
        assert gate.entered.wait(5)
        with pytest.raises(RefusedError):
            bench.station.accept("image", image=picture(1), trigger_id="t")
        gate.open.set()
        bench.wait_for(1)
        until(lambda: bench.station.mailbox.idle)
        bench.station.accept("image", image=picture(1), trigger_id="t")
        bench.wait_for(2)


def test_triggers_before_ready_are_refused_by_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path, load=False, **ON_REQUEST)
    with running(bench), pytest.raises(RefusedError, match="Preoperational") as caught:
        bench.station.accept("request")
    assert caught.value.code == "not-ready"


def test_an_unknown_product_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    bench = Bench(tmp_path, products=("p", "q"), **ON_REQUEST)
    with running(bench):
        ready(bench)
        with pytest.raises(RefusedError, match="allowed: p, q"):
            bench.station.accept("image", image=picture(1), product="r")
        with pytest.raises(RefusedError, match="allowed: p, q"):
            bench.station.select("r")


def test_a_product_change_does_not_touch_the_part_in_hand_nor_those_that_wait(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, products=("p", "q"), inspector=ScriptedInspector(gate), **ON_REQUEST)
    with running(bench):
        ready(bench)
        bench.station.accept("image", image=picture(1), trigger_id="in-hand")
        assert gate.entered.wait(5)
        bench.station.accept("image", image=picture(1), trigger_id="waits")
        bench.station.select("q")
        bench.station.accept("image", image=picture(1), trigger_id="later")
        bench.station.accept("image", image=picture(1), trigger_id="own", product="p")
        gate.open.set()
        products = {r.trigger_id: r.product for r in bench.wait_for(4)}
    assert products == {"in-hand": "p", "waits": "p", "later": "q", "own": "p"}


def test_a_part_that_waits_too_long_is_undecided_on_time(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate), deadline_ms=150, **ON_REQUEST)
    with running(bench):
        ready(bench)
        bench.station.accept("image", image=picture(1), trigger_id="in-hand")
        assert gate.entered.wait(5)
        began = time.monotonic()
        bench.station.accept("image", image=picture(1), trigger_id="waits")
        [record] = bench.wait_for(1)
        waited_s = time.monotonic() - began
        gate.open.set()
        bench.wait_for(2)
    assert (record.trigger_id, record.result.reason) == ("waits", "deadline")
    assert waited_s < 0.5
    assert bench.inspector.seen[0][1] is not None
    assert 0 < bench.inspector.seen[0][1] <= 150


@pytest.mark.parametrize(
    ("failure", "verdict", "reason"),
    [
        (ZeroDivisionError("x"), Verdict.ERROR, "engine-failure"),
        (MemoryError(), Verdict.ERROR, "engine-failure"),
        (CameraNotFoundError("any of our own errors"), Verdict.ERROR, "engine-failure"),
    ],
)
def test_whatever_the_engine_does_the_part_gets_its_result(
    tmp_path: Path, failure: Exception, verdict: Verdict, reason: str
) -> None:
    def script(image: Image, product: str) -> Verdict:
        raise failure

    bench = Bench(tmp_path, inspector=ScriptedInspector(script), **ON_REQUEST)
    with running(bench):
        ready(bench)
        bench.station.accept("image", image=picture(1))
        [record] = bench.wait_for(1)
        bench.inspector.script = lambda image, product: Verdict.OK
        bench.station.accept("image", image=picture(1))
        assert bench.wait_for(2)[1].is_ok  # the thread lives on
    assert (record.verdict, record.result.reason) == (verdict, reason)


def test_a_lost_camera_answers_those_that_wait_and_refuses_others_until_it_is_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trigger={"mode": "request", "frame_timeout_ms": 5000})
    with running(bench):
        ready(bench)
        bench.station.accept("request", trigger_id="waits")
        bench.camera.refuse_opening = CameraNotFoundError("manual: unplugged")
        bench.camera.push(CameraLostError("manual: unplugged"))
        [record] = bench.wait_for(1)
        assert (record.trigger_id, record.result.reason) == ("waits", "no-frame")
        until(lambda: bench.station.readiness.machine.state is State.ERROR)
        with pytest.raises(RefusedError, match="unplugged"):
            bench.station.accept("request")
        assert [alarm["code"] for alarm in bench.outlet.alarms.active()] == ["camera-lost"]
        bench.camera.refuse_opening = None
        ready(bench)
        bench.station.accept("request")
        bench.camera.push()
        assert bench.wait_for(2)[1].is_ok
        assert bench.outlet.alarms.active() == []
    assert bench.events("alarm") == ["camera-lost"]
    assert bench.events("alarm-over") == ["camera-lost"]


def test_a_silent_live_camera_is_opened_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, camera={"source": "manual:", "read_timeout_ms": 50, "reconnect_min_ms": 5})
    with running(bench):
        until(lambda: bench.camera.openings >= 3)


def test_a_camera_that_waits_for_its_signal_may_be_silent(tmp_path: Path) -> None:
    bench = Bench(tmp_path, camera={"source": "manual:", "read_timeout_ms": 20, "reconnect_min_ms": 5})
    bench.camera.info = CameraInfo("manual", "manual:", "manual-1", live=True, triggered=True)
    with running(bench):
        ready(bench)
        time.sleep(0.2)
        bench.camera.push()
        assert bench.wait_for(1)[0].is_ok
    assert bench.camera.openings == 1
    assert bench.events("alarm") == []


def test_a_camera_that_nobody_wants_a_frame_of_is_asked_whether_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("differad_edge.runtime.capture._CHECK_S", 0.02)
    bench = Bench(tmp_path, **ON_REQUEST)
    checks: list[bool] = []

    def check() -> None:
        checks.append(bench.camera.refuse_opening is None)
        if not checks[-1]:
            raise CameraLostError("unplugged")

    bench.camera.info = ManualCamera(live=False).info
    bench.camera.check = check  # type: ignore[attr-defined]
    with running(bench):
        ready(bench)
        until(lambda: len(checks) >= 2)
        bench.camera.refuse_opening = CameraNotFoundError("unplugged")
        until(lambda: not bench.station.readiness.accepting)
        assert not checks[-1]
        bench.camera.refuse_opening = None
        ready(bench)
        bench.camera.push()
        bench.station.accept("request")
        assert bench.wait_for(1)[0].is_ok


def test_a_camera_that_is_absent_at_the_start_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.camera.refuse_opening = CameraNotFoundError("manual: no such device")
    with running(bench):
        until(lambda: bench.camera.openings >= 2)
        assert bench.station.readiness.machine.state is State.ERROR
        bench.camera.refuse_opening = None
        ready(bench)


def test_another_device_at_the_same_name_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, camera={"source": "manual:", "serial": "the-right-one", "reconnect_min_ms": 5})
    with running(bench):
        until(lambda: bench.station.readiness.machine.state is State.ERROR)
        assert "'manual-1'" in bench.station.readiness.machine.why
        assert "'the-right-one'" in bench.station.readiness.machine.why


def test_a_torn_frame_is_a_part_that_nobody_saw(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue"})
    with running(bench):
        ready(bench)
        bench.camera.push(TornFrameError("half of it is missing"))
        bench.camera.push()
        torn, sound = bench.wait_for(2)
    assert (torn.verdict, torn.result.reason) == (Verdict.UNDECIDED, "bad-frame")
    assert sound.is_ok


def test_a_torn_frame_answers_the_trigger_that_waited_for_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)
        bench.station.accept("request", trigger_id="t")
        bench.camera.push(TornFrameError("half of it is missing"))
        [record] = bench.wait_for(1)
    assert (record.trigger_id, record.result.reason) == ("t", "bad-frame")


def test_a_frozen_picture_is_never_inspected_twice_and_the_camera_opened_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue"})
    same = picture(3)
    with running(bench):
        ready(bench)
        bench.camera.push(same)
        bench.wait_for(1)
        bench.camera.push(same)
        bench.camera.push(same)
        until(lambda: bench.camera.openings == 2)
        bench.camera.push()
        records = bench.wait_for(2)
    assert [r.frame_sequence for r in records] == [1, 4]
    assert records[1].dropped == {"frozen": ((2, 3),)}


def test_lost_duplicated_and_older_frames_are_dropped_by_cause(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue"})
    with running(bench):
        ready(bench)
        bench.camera.push(sequence=1)
        bench.wait_for(1)
        bench.camera.push(sequence=1)  # again
        bench.camera.push(sequence=5)  # 2 to 4 were lost on the way
        records = bench.wait_for(2)
    assert bench.station.drops.totals == {"duplicate": 1, "lost-by-camera": 3}
    assert [r.frame_sequence for r in records] == [1, 5]
    assert records[1].dropped == {"duplicate": ((1, 1),), "lost-by-camera": ((2, 4),)}


def test_a_camera_that_comes_back_with_another_size_shows_no_part_that_can_be_ok(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue"})
    with running(bench):
        ready(bench)
        bench.camera.push()
        bench.wait_for(1)
        bench.camera.push(CameraLostError("unplugged"))
        until(lambda: bench.camera.openings == 2)
        ready(bench)
        bench.camera.push(picture(9, (32, 32)))
        record = bench.wait_for(2)[1]
    assert (record.verdict, record.result.reason) == (Verdict.UNDECIDED, "bad-frame")
    assert record.result.detail is not None
    assert "32x32" in record.result.detail
    assert "64x48" in record.result.detail


def test_files_are_read_one_by_one_and_none_is_dropped(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.camera.info = ManualCamera(live=False).info
    for _ in range(15):
        bench.camera.push()
    bench.camera.end()
    with running(bench):
        records = bench.wait_for(15)
        until(lambda: bench.station.readiness.ended)
    assert [r.frame_sequence for r in records] == list(range(1, 16))
    assert bench.station.drops.totals == {}


def test_a_trigger_takes_the_next_file_also_in_a_free_run_that_is_busy(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate), mailbox={"policy": "queue"})
    bench.camera.info = ManualCamera(live=False).info
    bench.camera.push()
    bench.camera.push()
    with running(bench):
        assert gate.entered.wait(5)
        bench.station.accept("request", trigger_id="t")
        gate.open.set()
        records = bench.wait_for(2)
    assert [(r.trigger, r.frame_sequence) for r in records] == [("free", 1), ("request", 2)]


def test_a_clock_triggers_at_its_rate(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trigger={"mode": "rate", "rate_hz": 50}, mailbox={"policy": "queue"})
    bench.camera.info = ManualCamera(live=False).info
    for _ in range(200):
        bench.camera.push()
    with running(bench):
        ready(bench)
        began = time.monotonic()
        records = bench.wait_for(25)
        took_s = time.monotonic() - began
    assert {r.trigger for r in records} == {"rate"}
    assert 0.3 < took_s < 3


def test_stopping_finishes_the_part_in_hand_and_answers_those_that_wait(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate), **ON_REQUEST)
    bench.station.start()
    ready(bench)
    for identity in ("in-hand", "waits-1", "waits-2"):
        bench.station.accept("image", image=picture(1), trigger_id=identity)
    assert gate.entered.wait(5)
    threading.Timer(0.1, gate.open.set).start()
    bench.camera.push(CameraLostError("so that its read returns"))
    bench.station.close(5.0)
    records = {r.trigger_id: r for r in bench.records}
    assert set(records) == {"in-hand", "waits-1", "waits-2"}
    assert records["in-hand"].is_ok
    assert records["waits-1"].result.reason == records["waits-2"].result.reason == "stopped"
    with pytest.raises(RefusedError) as caught:
        bench.station.accept("image", image=picture(1))
    assert caught.value.code == "stopping"


def test_halted_refuses_until_reset(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)
        bench.station.readiness.halt()
        with pytest.raises(RefusedError, match="Halted"):
            bench.station.accept("image", image=picture(1))
        bench.station.readiness.reset()
        bench.station.accept("image", image=picture(1))
        bench.wait_for(1)


def test_a_station_without_a_camera_takes_images_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, camera=None)
    with running(bench):
        ready(bench)
        bench.station.accept("image", image=picture(1))
        bench.wait_for(1)
        with pytest.raises(RefusedError, match="no camera") as caught:
            bench.station.accept("request")
        assert caught.value.code == "no-camera"


def test_one_result_for_each_trigger_whatever_happens(tmp_path: Path) -> None:
    """Bursts from several clients, triggers while busy, camera faults in between: the counts are exact."""

    def script(image: Image, product: str) -> Verdict:
        time.sleep(0.001)
        if image[0, 0, 0] % 7 == 0:
            raise RuntimeError("now and then")
        return Verdict.NG if image[0, 0, 0] % 3 == 0 else Verdict.OK

    bench = Bench(
        tmp_path,
        inspector=ScriptedInspector(script),
        trigger={"mode": "request", "frame_timeout_ms": 40},
        mailbox={"policy": "queue", "capacity": 5},
        deadline_ms=60,
    )
    accepted: list[str] = []
    refused: list[str] = []
    answered: list[str] = []
    busy = threading.Event()

    def client(number: int) -> None:
        for turn in range(40):
            try:
                if (turn + number) % 3:
                    got = bench.station.accept(
                        "image", image=picture(turn), on_result=lambda r: answered.append(r.trigger_id)
                    )
                else:
                    got = bench.station.accept("request", on_result=lambda r: answered.append(r.trigger_id))
                accepted.append(got.trigger_id)
            except RefusedError as error:
                refused.append(error.code)
            time.sleep(0.002 * (turn % 4 == 0))

    def shake() -> None:
        turn = 0
        while not busy.is_set():
            turn += 1
            bench.camera.push(
                TornFrameError("torn") if turn % 11 == 0 else CameraLostError("lost") if turn % 17 == 0 else None
            )
            time.sleep(0.003)

    with running(bench):
        ready(bench)
        shaker = threading.Thread(target=shake)
        clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for thread in [shaker, *clients]:
            thread.start()
        for thread in clients:
            thread.join()
        until(lambda: len(answered) >= len(accepted))
        busy.set()
        shaker.join()
        time.sleep(0.05)
    assert len(accepted) + len(refused) == 160
    assert accepted
    assert sorted(answered) == sorted(accepted)
    assert sorted(r.trigger_id for r in bench.records) == sorted(accepted)
    assert [r.sequence for r in bench.records] == list(range(1, len(accepted) + 1))


def test_a_camera_that_stays_frozen_is_not_believed_after_it_was_opened_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue"})
    same = picture(3)
    with running(bench):
        ready(bench)
        for _ in range(12):
            bench.camera.push(same)
        until(lambda: bench.station.drops.totals.get("frozen") == 11)
        assert not bench.station.readiness.accepting  # it was opened, and shows the old picture
        assert [alarm["code"] for alarm in bench.outlet.alarms.active()] == ["camera-lost"]
        bench.camera.push(picture(4))
        records = bench.wait_for(2)
    assert [r.frame_sequence for r in records] == [1, 13]
    assert bench.events("alarm") == ["camera-lost"]


def test_a_driver_that_was_left_behind_delivers_no_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path, camera={"source": "manual:", "read_timeout_ms": 60_000}, **ON_REQUEST)
    hanging, new = bench.camera, ManualCamera()
    with running(bench):
        ready(bench)
        time.sleep(0.02)  # it reads now
        feed = bench.station.feed
        assert feed is not None
        bench.camera = new
        assert feed.replace_if_stuck(0.01)
        ready(bench)
        hanging.push()  # the old driver comes back with what it had
        bench.station.accept("request")
        time.sleep(0.05)
        assert bench.ledger.records == []
        new.push(sequence=77)
        [record] = bench.wait_for(1)
        assert record.frame_sequence == 77
        assert not feed.replace_if_stuck(30)


def test_a_camera_whose_close_fails_is_opened_again_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.camera.close = lambda: 1 // 0  # type: ignore[assignment,return-value]
    with running(bench):
        ready(bench)
        bench.camera.push(CameraLostError("unplugged"))
        until(lambda: bench.camera.openings == 2)
        ready(bench)
        bench.camera.push()
        bench.wait_for(1)


def test_stamps_in_the_future_cost_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue"})
    with running(bench):
        ready(bench)
        for _ in range(3):
            bench.camera.push(ahead_ns=50_000_000)
            time.sleep(0.002)
        records = bench.wait_for(3)
        assert all(r.is_ok for r in records)
        assert bench.station.alive


def test_a_fault_of_the_line_itself_ends_no_thread_and_costs_no_trigger_its_result(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)
        finish, calls = bench.outlet.finish, []

        def fails_once(*args: object) -> ResultRecord:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("a bug")
            return finish(*args)  # type: ignore[arg-type]

        bench.outlet.finish = fails_once  # type: ignore[method-assign,assignment]
        bench.station.accept("image", image=picture(1), trigger_id="a")
        bench.station.accept("image", image=picture(1), trigger_id="b")
        records = {r.trigger_id: r for r in bench.wait_for(2)}
        assert bench.station.alive
    assert (records["a"].verdict, records["a"].result.reason) == (Verdict.ERROR, "engine-failure")
    assert records["b"].is_ok


def test_a_fault_after_the_result_is_out_gives_no_second_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **ON_REQUEST)
    with running(bench):
        ready(bench)

        def fails(*args: object) -> None:
            raise RuntimeError("a bug")

        bench.metrics.result = fails  # type: ignore[method-assign,assignment]
        bench.station.accept("image", image=picture(1))
        bench.wait_for(1)
        until(lambda: bench.station.mailbox.idle)
        assert bench.station.alive
    assert len(bench.records) == 1


def test_a_torn_frame_is_counted_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox={"policy": "queue"})
    with running(bench):
        ready(bench)
        bench.camera.push(sequence=1)
        bench.wait_for(1)
        bench.camera.push(TornFrameError("torn", 2))
        bench.camera.push(sequence=3)
        records = bench.wait_for(3)
    assert [r.frame_sequence for r in records] == [1, 2, 3]
    assert bench.station.drops.totals == {}


def test_a_torn_frame_that_finds_no_room_is_dropped_as_torn(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, inspector=ScriptedInspector(gate), mailbox={"policy": "refuse"})
    with running(bench):
        ready(bench)
        bench.camera.push(sequence=1)
        assert gate.entered.wait(5)
        bench.camera.push(TornFrameError("torn", 2))
        until(lambda: bench.station.drops.totals == {"torn": 1})
        gate.open.set()
        bench.wait_for(1)


def test_a_station_inspects_its_own_products_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, products=("p", "q"), own=("p",), **ON_REQUEST)
    with running(bench):
        ready(bench)
        with pytest.raises(RefusedError, match=r"allowed: p$"):
            bench.station.accept("image", image=picture(1), product="q")
        bench.station.allow("q")
        bench.station.accept("image", image=picture(1), product="q")
        assert bench.wait_for(1)[0].product == "q"
