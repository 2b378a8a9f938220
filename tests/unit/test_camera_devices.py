"""What follows from what a device says, with a device that says what it is told to."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from camera_fakes import error_of, until

from differad_edge.cameras import Camera, create_camera
from differad_edge.cameras.device import Block, DeviceSettings, device_camera
from differad_edge.cameras.pixel_formats import RawImage
from differad_edge.cameras.source import Query
from differad_edge.errors import CameraLostError, CameraTimeoutError, ConfigError, TornFrameError


class FakeDevice:
    """``answers``: to each trigger what comes (None: nothing, a list: several). ``unasked``: what lies there before."""

    serial = "D1"
    simulated = True

    def __init__(self, *answers: object, streaming: bool = False) -> None:
        self.answers: Iterator[object] = iter(answers)
        self.queue: list[Block] = []
        self.streaming = streaming
        self.fired = self.restarts = self.checks = 0
        self.ready = self.alive = True
        self.released = False

    def fire(self, timeout_ms: float) -> None:
        if not self.ready:
            raise CameraTimeoutError("takes no trigger")
        self.fired += 1
        self._answer()

    def next(self, timeout_ms: float) -> Block | None:
        if self.streaming and not self.queue:
            time.sleep(0.01)
            self._answer()
        return self.queue.pop(0) if self.queue else None

    def _answer(self) -> None:
        answer = next(self.answers, None)
        blocks = answer if isinstance(answer, list) else [answer]
        self.queue += [block for block in blocks if isinstance(block, Block)]

    def restart(self) -> None:
        self.restarts += 1
        self.queue.clear()

    def check(self) -> None:
        self.checks += 1
        if not self.alive:
            raise CameraLostError("was unplugged")

    def release(self) -> None:
        self.released = True


def block(number: int | None, value: int = 0, stamp_ns: int = 0) -> Block:
    data = np.full((20, 30), value, np.uint8).tobytes()
    return Block(RawImage(data, (30, 20), "Mono8"), number, stamp_ns)


TORN = Block("the frame is incomplete: missing packets", None, 0)


def opened(device: FakeDevice, trigger: str = "software") -> Camera:
    camera = device_camera("fake", "line-camera", lambda: device, DeviceSettings(trigger=trigger), open_timeout_ms=2000)
    camera.open()
    return camera


class TestSoftwareTrigger:
    def test_each_read_triggers_once_and_takes_the_answer(self) -> None:
        device = FakeDevice(*(block(number, number) for number in range(1, 6)))
        camera = opened(device)
        for value in range(1, 6):
            before = time.monotonic_ns()
            frame = camera.read(1000)
            assert int(frame.image[0, 0, 0]) == value
            assert (frame.sequence, device.fired) == (value - 1, value)
            assert before <= frame.captured_ns <= time.monotonic_ns()
            assert (frame.serial, frame.pixel_format) == ("D1", "Mono8")
        camera.close()
        assert device.released

    def test_it_comes_when_it_is_asked_for_and_says_that_it_is_simulated(self) -> None:
        info = device_camera(
            "fake", "line-camera", FakeDevice, DeviceSettings(trigger="software"), open_timeout_ms=1
        ).open()
        assert (info.kind, info.serial, info.live, info.simulated, info.triggered) == ("fake", "D1", False, True, False)

    def test_the_stamp_is_that_of_the_trigger_and_not_of_the_arrival(self) -> None:
        class Slow(FakeDevice):
            def next(self, timeout_ms: float) -> Block | None:
                if self.queue:
                    time.sleep(0.05)
                return super().next(timeout_ms)

        frame = opened(Slow(block(1))).read(1000)
        assert time.monotonic_ns() - frame.captured_ns > 50_000_000

    def test_a_late_answer_to_an_earlier_trigger_is_never_taken_for_this_part(self) -> None:
        device = FakeDevice(None, block(2, 22))
        camera = opened(device)
        with pytest.raises(CameraTimeoutError, match="did not answer its trigger within 20 ms"):
            camera.read(20)
        device.queue.append(block(1, 11))  # it comes now
        assert int(camera.read(1000).image[0, 0, 0]) == 22
        assert device.restarts == 1

    def test_frames_that_nobody_asked_for_are_a_gap(self) -> None:
        device = FakeDevice(block(1), [block(2), block(3, 99)], block(4, 44))
        camera = opened(device)
        assert [camera.read(1000).sequence for _ in range(2)] == [0, 1]
        frame = camera.read(1000)
        assert (frame.sequence, int(frame.image[0, 0, 0])) == (3, 44)

    def test_a_device_that_takes_no_notice_of_the_trigger_is_lost(self) -> None:
        device = FakeDevice(*(block(number) for number in range(1000)), streaming=True)
        with pytest.raises(CameraLostError, match="sends frames without a trigger"):
            opened(device).read(1000)

    def test_frames_that_come_by_themselves_and_slower_than_its_buffers_fill_are_found_out_too(self) -> None:
        device = FakeDevice(*(block(number) for number in range(100)))
        camera = opened(device)
        for number in range(50, 52):
            device.queue.append(block(number))
            camera.read(1000)
        device.queue.append(block(52))
        with pytest.raises(CameraLostError, match="sends frames without a trigger"):
            camera.read(1000)

    def test_three_triggers_in_a_row_without_an_answer_are_a_lost_camera(self) -> None:
        device = FakeDevice()
        camera = opened(device)
        kinds = [type(error_of(lambda: camera.read(5))) for _ in range(3)]
        assert kinds == [CameraTimeoutError, CameraTimeoutError, CameraLostError]
        assert device.checks == 3

    def test_a_device_that_is_not_ready_for_a_trigger_is_no_answer(self) -> None:
        device = FakeDevice(block(1))
        device.ready = False
        camera = opened(device)
        with pytest.raises(CameraTimeoutError):
            camera.read(5)
        device.ready = True
        assert camera.read(100).sequence == 0

    def test_one_that_was_unplugged_is_lost_at_once(self) -> None:
        device = FakeDevice()
        device.alive = False
        with pytest.raises(CameraLostError, match="unplugged"):
            opened(device).read(5)

    def test_a_torn_frame_is_counted_and_the_next_one_is_sound(self) -> None:
        camera = opened(FakeDevice(block(1), TORN, block(3)))
        assert camera.read(1000).sequence == 0
        torn = error_of(lambda: camera.read(1000))
        assert isinstance(torn, TornFrameError)
        assert (torn.sequence, str(torn)) == (1, "camera 'line-camera': the frame is incomplete: missing packets")
        assert camera.read(1000).sequence == 2

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            (block(1, stamp_ns=9), "frame 1 came twice"),
            (block(2, stamp_ns=4), "its time stamp is no later"),
            (block(2, stamp_ns=5), "its time stamp is no later"),
            (Block(RawImage(bytes(599), (30, 20), "Mono8"), 2, 9), "got 599 bytes for 30x20 px of Mono8"),
            (Block(RawImage(bytes(600), (30, 20), "0x1080001"), 2, 9), "got a frame of pixel format '0x1080001'"),
        ],
    )
    @pytest.mark.parametrize("trigger", ["software", "line1"])
    def test_what_cannot_be_this_parts_picture_is_torn(self, trigger: str, second: Block, message: str) -> None:
        device = FakeDevice(block(1, stamp_ns=5), streaming=trigger == "line1")
        camera = opened(device, trigger)
        assert camera.read(1000).sequence == 0
        device.answers = iter([second])
        torn = error_of(lambda: camera.read(1000))
        assert isinstance(torn, TornFrameError)
        assert message in str(torn)
        assert torn.sequence == 1
        camera.close()

    def test_what_is_missing_is_a_gap(self) -> None:
        camera = opened(FakeDevice(block(1), block(5)))
        assert [camera.read(1000).sequence for _ in range(2)] == [0, 4]

    def test_opened_again_it_goes_on_counting_and_misses_nothing(self) -> None:
        devices = iter([FakeDevice(block(700)), FakeDevice(block(1))])
        camera = device_camera(
            "fake", "c", lambda: next(devices), DeviceSettings(trigger="software"), open_timeout_ms=1
        )
        numbers = []
        for _ in range(2):
            camera.open()
            numbers.append(camera.read(100).sequence)
        assert numbers == [0, 1]


class TestStreaming:
    def test_a_camera_that_waits_for_a_signal_is_asked_whether_it_is_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("differad_edge.cameras.device._SILENCE_S", 0.03)
        device = FakeDevice(streaming=True)
        camera = opened(device, "line1")
        until(lambda: device.checks >= 2)
        with pytest.raises(CameraTimeoutError):
            camera.read(10)
        device.alive = False
        with pytest.raises(CameraLostError, match="unplugged"):
            camera.read(2000)
        camera.close()
        assert device.released

    @pytest.mark.parametrize(("trigger", "triggered"), [("free", False), ("line0", True), ("line9", True)])
    def test_only_a_signal_may_be_silent(self, trigger: str, triggered: bool) -> None:
        camera = device_camera("fake", "c", FakeDevice, DeviceSettings(trigger=trigger), open_timeout_ms=2000)
        info = camera.open()
        assert (info.live, info.triggered, info.simulated) == (True, triggered, True)
        camera.close()

    def test_gaps_and_torn_frames_keep_their_numbers(self) -> None:
        device = FakeDevice(block(10), streaming=True)
        camera = opened(device, "free")
        got: list[int | None] = [camera.read(1000).sequence]
        for each in (TORN, block(12), block(15)):
            device.answers = iter([each])
            try:
                got.append(camera.read(1000).sequence)
            except TornFrameError as error:
                got.append(error.sequence)
        assert got == [0, 1, 2, 5]
        camera.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("basler:1?trigger=line10", "trigger: got 'line10', allowed: free, software, line0"),
        ("basler:1?trigger=Software", "trigger: got 'Software', allowed: free, software"),
        ("aravis:?exposure_us=0", "exposure_us: got '0', allowed: a number above 0"),
        ("aravis:?gain=much", "gain: got 'much'"),
        ("genicam:a.cti?format=Mono9", "format: got 'Mono9', allowed: Mono8, Mono10"),
        ("basler:1?shift=9", "shift: got '9', allowed: a whole number from 0 to 8"),
        ("basler:1?size=big", "size: got 'big', allowed: WIDTHxHEIGHT"),
        ("basler:1?serial=2", "got the setting 'serial', allowed: shift, trigger"),
        ("aravis:?packet_bytes=100", "packet_bytes: got '100', allowed: a whole number from 220"),
        ("aravis:?images=x", "got the setting 'images'"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_is_opened(source: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        create_camera(source)
    assert message in str(refused.value)


def test_settings_are_read() -> None:
    text = "trigger=software&exposure_us=1500&gain=-3.5&format=BayerRG12p&shift=0&size=640x480&rate_hz=25"
    query = Query(text, "basler:1")
    settings = DeviceSettings.read(query)
    query.finish()
    assert settings == DeviceSettings("software", 1500.0, -3.5, "BayerRG12p", 0, (640, 480), 25.0)
    assert (settings.line, DeviceSettings("line2").line, DeviceSettings().line) == (None, "Line2", None)
    with pytest.raises(ConfigError, match="rate_hz: got 25 with trigger=line2, allowed: the signal's own rate"):
        DeviceSettings.read(Query("trigger=line2&rate_hz=25", "basler:1"))
    assert DeviceSettings.read(Query("", "basler:1")) == DeviceSettings()


@pytest.mark.parametrize(
    ("source", "blocked", "code", "remedy"),
    [
        ("basler:1", "pypylon", "missing-extra", "pip install 'differad-edge[cameras]'"),
        ("genicam:a.cti", "harvesters", "missing-extra", "pip install 'differad-edge[cameras]'"),
        ("aravis:1", "gi", "missing-system-package", "scripts/system-packages"),
    ],
)
def test_what_is_not_installed_is_said_with_its_remedy(source: str, blocked: str, code: str, remedy: str) -> None:
    script = (
        f"import sys; sys.modules[{blocked!r}] = None\n"
        "from differad_edge import DifferadError\n"
        "from differad_edge.cameras import create_camera\n"
        f"try: create_camera({source!r})\n"
        "except DifferadError as error: print(error.code, error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{code} ")
    assert remedy in done.stdout
    assert len(done.stdout.splitlines()) == 1
