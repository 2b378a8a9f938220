"""The simulated camera: its rate, its truth, its script, its golden samples."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from camera_fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.cameras.simulated import Fault, FaultScript, SimulatedCamera, SimulatedProduct
from differad_edge.errors import CameraTimeoutError, ConfigError

PRODUCT = SimulatedProduct("label", 128, defect_rate=0.5)


def opened(clock: FakeClock | None = None, **settings: object) -> SimulatedCamera:
    camera = SimulatedCamera(PRODUCT, clock=clock or FakeClock(), **settings)  # type: ignore[arg-type]
    camera.open()
    return camera


@pytest.mark.parametrize("rate", [0.0, 0.2, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_the_defect_rate_holds_over_any_stretch(rate: float, seed: int) -> None:
    product = SimulatedProduct("gasket", 128, seed=seed, defect_rate=rate)
    defective = [product._fate(index)[0] for index in range(300)]
    for first in range(0, 200, 7):
        assert abs(sum(defective[first : first + 100]) - 100 * rate) <= 1
    turns = [product._fate(index)[1] for index in range(300) if defective[index]]
    assert turns == list(range(turns[0], turns[0] + len(turns))) if turns else rate == 0


def test_the_truth_is_what_the_frame_shows() -> None:
    camera = opened(pool=4, script=FaultScript.parse("freeze@2:1,size@5:96x64"))
    frames = [camera.read(1000) for _ in range(8)]
    truths = [camera.truth(frame.sequence) for frame in frames]
    for frame, truth in zip(frames, truths, strict=True):
        np.testing.assert_array_equal(frame.image, truth.image)
        assert bool(truth.boxes) == (truth.defect is not None)
    assert {truth.defect is None for truth in truths} == {True, False}
    assert truths[2].defect == truths[1].defect
    for truth in truths[5:]:
        assert all(0 <= box.x1 < box.x2 <= 96 and 0 <= box.y1 < box.y2 <= 64 for box in truth.boxes)


def test_without_a_pool_every_part_is_another_and_known_afterwards() -> None:
    camera = opened()
    frames = [camera.read(1000) for _ in range(4)]
    for earlier, later in itertools.pairwise(frames):
        assert not np.array_equal(earlier.image, later.image)
    for frame in frames:
        np.testing.assert_array_equal(frame.image, camera.truth(frame.sequence).image)
        np.testing.assert_array_equal(frame.image, PRODUCT.part(frame.sequence).image)


def test_a_pool_is_shown_in_turn_without_a_copy_and_cannot_be_written_to() -> None:
    camera = opened(pool=3)
    frames = [camera.read(1000) for _ in range(6)]
    assert [frame.sequence for frame in frames] == list(range(6))
    assert frames[0].image is frames[3].image
    with pytest.raises(ValueError, match="read-only"):
        frames[0].image[0, 0, 0] = 1


def test_the_pool_is_no_larger_than_the_count() -> None:
    camera = opened(pool=50, count=2)
    assert len(camera._parts) == 2


def test_a_rate_stamps_frames_when_they_are_due() -> None:
    clock = FakeClock()
    camera = opened(clock, rate_hz=10, pool=2)
    start = clock.ns
    assert [camera.read(1000).captured_ns - start for _ in range(3)] == [0, 100_000_000, 200_000_000]
    clock.ns += 70_000_000
    assert camera.read(1000).captured_ns - start == 300_000_000
    assert sum(clock.waited) == pytest.approx(0.23)
    with pytest.raises(CameraTimeoutError):
        camera.read(50)
    assert camera.read(60).sequence == 4


def test_without_a_rate_nothing_is_waited_for() -> None:
    clock = FakeClock()
    camera = opened(clock, pool=2)
    assert not camera.open().live
    assert [camera.read(0).sequence for _ in range(50)] == list(range(50))
    assert clock.waited == []


def test_golden_samples_do_not_come_along_in_the_stream() -> None:
    camera = SimulatedCamera(PRODUCT)
    golden, good = camera.golden_samples(2)
    np.testing.assert_array_equal(golden, PRODUCT.golden())
    np.testing.assert_array_equal(good, PRODUCT.good(0))


class TestScript:
    def test_what_is_written_is_what_is_meant(self) -> None:
        text = (
            "unplug@10:2s, freeze@20:5,torn@30,size@40:320x240,late@50:300ms,back@60:1.5s,lose@70:3,duplicate@80,"
            "format@90:Mono8,serial@90:B7,hang@95:1s,hang-open:4s,absent:3s,"
        )
        assert set(FaultScript.parse(text).faults) == {
            Fault("unplug", 10, seconds=2.0),
            Fault("freeze", 20, count=5),
            Fault("torn", 30),
            Fault("size", 40, size_px=(320, 240)),
            Fault("late", 50, seconds=0.3),
            Fault("back", 60, seconds=1.5),
            Fault("lose", 70, count=3),
            Fault("duplicate", 80),
            Fault("format", 90, text="Mono8"),
            Fault("serial", 90, text="B7"),
            Fault("hang", 95, seconds=1.0),
            Fault("hang-open", 0, seconds=4.0),
            Fault("absent", 0, seconds=3.0),
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("unplug@10", "got 'unplug@10', allowed: an argument behind a colon"),
            ("unplug@10:2", "unplug: got '2', allowed: a time such as 2s or 300ms"),
            ("unplug:2s", "got 'unplug:2s', allowed: unplug@FRAME"),
            ("torn@3:1", "got 'torn@3:1', allowed: no argument"),
            ("freeze@3:0", "freeze: got '0', allowed: a number of frames"),
            ("size@3:0x5", "size: got '0x5', allowed: WIDTHxHEIGHT"),
            ("format@3:RGB8", "format: got 'RGB8', allowed: Mono8, BGR8"),
            ("explode@3", "got the fault 'explode', allowed: unplug, absent, freeze"),
            ("torn@-1", "got 'torn@-1', allowed: FAULT@FRAME:ARGUMENT"),
            ("torn 3", "got 'torn 3', allowed"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            FaultScript.parse(text)

    def test_an_unknown_kind_in_an_object_is_refused_as_well(self) -> None:
        with pytest.raises(ConfigError, match="got the fault 'explode'"):
            FaultScript([Fault("explode")])

    @given(st.text(alphabet="abcdefghijlnoprtuz@:,x0123456789sm-.", max_size=30))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with contextlib.suppress(ConfigError):
            FaultScript.parse(text)
