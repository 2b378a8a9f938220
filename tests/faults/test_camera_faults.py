"""Faults of cameras: every one ends in a typed error or a gap in the numbers, none in an old or a broken picture."""

from __future__ import annotations

import http.server
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_fakes import (
    FakeCapture,
    FakeClock,
    FakeDriver,
    camera_threads,
    error_of,
    picture,
    reopen,
    slowly,
    until,
    values,
    write_images,
    write_video,
)
from rtsp_server import RtspServer

from differad_edge.cameras import Camera, Frame, create_camera, opencv
from differad_edge.cameras.folder import DropFolderCamera
from differad_edge.cameras.live import LiveCamera
from differad_edge.cameras.opencv import UsbSettings, network_camera, usb_camera
from differad_edge.cameras.simulated import FaultScript, SimulatedCamera, SimulatedProduct
from differad_edge.cameras.video import VideoCamera
from differad_edge.errors import (
    CameraEndedError,
    CameraError,
    CameraLostError,
    CameraNotFoundError,
    CameraTimeoutError,
    TornFrameError,
)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= before)


def end_of(camera: Camera, frames: list[Frame] | None = None) -> CameraError:
    """Read until there is an error; ``frames`` gets what came before."""
    got = [] if frames is None else frames
    return error_of(lambda: [got.append(camera.read(3000)) for _ in range(200)])


def live(*drivers: FakeDriver, open_timeout_ms: float = 2000) -> LiveCamera:
    """Each opening takes the next driver."""
    queue = iter(drivers)
    return LiveCamera("fake", "line-camera", lambda: next(queue), open_timeout_ms=open_timeout_ms)


class TestLiveStreams:
    def test_a_stream_that_breaks_off_gives_its_last_frame_once_and_then_errors(self) -> None:
        camera = live(FakeDriver(slowly(iter([picture(1), CameraLostError("unplugged")]))))
        camera.open()
        frame = camera.read(2000)
        assert int(frame.image[-1, 0, 0]) == 1
        for _ in range(3):  # LeRobot 1083: it went on returning the last frame
            with pytest.raises(CameraLostError, match="unplugged"):
                camera.read(2000)

    def test_the_newest_frame_is_read_and_the_gap_tells_what_was_missed(self) -> None:
        taken = threading.Event()

        def pictures() -> Iterator[object]:
            yield picture(0)
            taken.wait(5)
            yield from (picture(10 * value) for value in range(1, 6))

        driver = FakeDriver(pictures())
        camera = live(driver)
        camera.open()
        first = camera.read(2000)
        taken.set()
        until(lambda: camera._session._sequence == 6)  # type: ignore[union-attr]
        newest = camera.read(2000)
        assert (first.sequence, newest.sequence, values([newest])) == (0, 5, [50])
        with pytest.raises(CameraTimeoutError):
            camera.read(20)
        driver.let_go.set()
        camera.close()

    def test_a_driver_that_gives_nothing_is_a_timeout_and_not_an_end(self) -> None:
        camera = live(FakeDriver(slowly(iter([*[None] * 20, picture(1), CameraLostError("the end")]))))
        camera.open()
        with pytest.raises(CameraTimeoutError, match="'line-camera': no frame within 20 ms"):
            camera.read(20)
        assert camera.read(5000).sequence == 0

    @pytest.mark.parametrize(
        "broken",
        [
            None,
            np.zeros((0, 0, 3), np.uint8),
            np.zeros((0, 5), np.uint8),
            np.zeros((48, 64, 2), np.uint8),  # YUYV that nobody converted
            np.zeros((48, 64, 3), np.uint16),
            np.zeros(99, np.uint8),
            np.zeros((4, 48, 64, 3), np.uint8),
            [[1, 2], [3, 4]],
        ],
        ids=lambda broken: str(getattr(broken, "shape", broken)),
    )
    def test_a_frame_of_an_odd_shape_is_torn_and_the_next_one_is_read(self, broken: object) -> None:
        gate = threading.Semaphore(0)

        def pictures() -> Iterator[object]:
            for frame in [broken, picture(7), False]:
                gate.acquire(timeout=5)
                yield frame

        capture = FakeCapture(pictures())
        camera = usb_camera_of(capture)
        camera.open()
        gate.release()
        with pytest.raises(TornFrameError):
            camera.read(2000)
        gate.release()
        frame = camera.read(2000)
        assert (frame.sequence, int(frame.image[-1, 0, 0])) == (1, 7)
        gate.release()
        camera.close()

    def test_grey_and_bgra_become_bgr(self) -> None:
        grey = picture(50)[:, :, 0]
        for raw in (grey, grey[:, :, None], np.dstack([grey] * 4), np.dstack([grey] * 3)):
            camera = usb_camera_of(FakeCapture(slowly(iter([raw, False]))))
            camera.open()
            np.testing.assert_array_equal(camera.read(2000).image, picture(50))
            camera.close()

    def test_whatever_a_driver_throws_is_a_lost_camera(self) -> None:
        for error in (cv2.error("bang"), OSError(19, "no such device"), ValueError("what")):
            camera = live(FakeDriver(slowly(iter([picture(1), error]), 0.05)))
            camera.open()
            camera.read(2000)
            caught = error_of(lambda camera=camera: camera.read(2000))
            assert isinstance(caught, CameraLostError)
            assert caught.__cause__ is error

    def test_only_one_thread_touches_the_driver_and_it_lets_go(self) -> None:
        driver = FakeDriver(slowly(picture(value % 250) for value in itertools.count()))
        camera = live(driver)
        camera.open()
        camera.read(2000)
        camera.close()
        assert driver.released.wait(2)
        assert len(driver.threads) == 1
        assert threading.get_ident() not in driver.threads


def usb_camera_of(capture: FakeCapture) -> LiveCamera:
    return usb_camera(
        "/dev/null", UsbSettings(), open_timeout_ms=2000, capture=lambda source, backend, parameters: capture
    )


class TestHangingDrivers:
    def test_a_driver_that_hangs_in_read_is_left_behind_and_frees_the_device_when_it_returns(self) -> None:
        hanging, sound = FakeDriver(iter(())), FakeDriver(slowly(picture(9) for _ in range(1000)))
        camera = live(hanging, sound)
        camera.open()
        with pytest.raises(CameraTimeoutError):
            camera.read(30)
        began = time.monotonic()
        camera.close()
        assert time.monotonic() - began < 2
        camera.open()
        assert int(camera.read(2000).image[-1, 0, 0]) == 9
        assert not hanging.released.is_set()
        hanging.let_go.set()
        assert hanging.released.wait(2)
        assert int(camera.read(2000).image[-1, 0, 0]) == 9
        camera.close()

    def test_what_a_driver_delivers_after_it_was_left_behind_reaches_nobody(self) -> None:
        late = threading.Event()

        def pictures() -> Iterator[object]:
            late.wait(10)
            yield picture(66)

        camera = live(FakeDriver(pictures()), FakeDriver(slowly(iter([None, CameraLostError("the end")]), 0.2)))
        camera.open()
        camera.close()
        camera.open()
        late.set()
        with pytest.raises(CameraLostError, match="the end"):
            camera.read(3000)

    def test_a_hang_in_open_ends_at_the_time_limit(self) -> None:
        gate = threading.Event()

        def connect() -> FakeDriver:
            gate.wait(20)
            return FakeDriver(iter([CameraLostError("the end")]))

        camera = LiveCamera("fake", "line-camera", connect, open_timeout_ms=50)
        began = time.monotonic()
        with pytest.raises(CameraLostError, match="did not open within 50 ms"):
            camera.open()
        assert time.monotonic() - began < 3
        gate.set()

    def test_closing_ends_an_open_that_waits(self) -> None:
        gate = threading.Event()

        def connect() -> FakeDriver:
            gate.wait(20)
            raise CameraNotFoundError("never")

        camera = LiveCamera("fake", "line-camera", connect, open_timeout_ms=20_000)
        got: list[CameraError] = []
        thread = threading.Thread(target=lambda: got.append(error_of(camera.open)))
        thread.start()
        until(lambda: len(camera_threads()) == 1)
        camera.close()
        thread.join(3)
        assert [type(error) for error in got] == [CameraLostError]
        gate.set()

    def test_threads_that_hang_do_not_pile_up(self) -> None:
        drivers = [FakeDriver(iter(())) for _ in range(3)]
        camera = live(*drivers)
        for _ in drivers:
            camera.open()
            camera.close()
        with pytest.raises(CameraLostError, match="still hangs in 3 earlier sessions"):
            camera.open()
        for driver in drivers:
            driver.let_go.set()


class TestUsb:
    def test_a_camera_that_is_not_there_is_named_with_those_that_are(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(CameraNotFoundError, match="camera '99': /dev/video99 is not there, allowed: a connected"):
            create_camera("99").open()
        assert capfd.readouterr().err == ""

    def test_a_failed_grab_is_final_because_the_next_may_show_an_old_picture(self) -> None:
        camera = usb_camera_of(FakeCapture(slowly(iter([picture(1), False, picture(1)]))))
        camera.open()
        camera.read(2000)
        for _ in range(2):  # OpenCV 14044: after an unplugging the second read succeeds
            with pytest.raises(CameraLostError, match="broke off"):
                camera.read(2000)

    def test_a_camera_that_waits_for_its_hardware_trigger_is_not_lost_until_it_is_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opencv, "_SELECT_TIMEOUT_S", 0.05)
        device = tmp_path / "video0"
        device.touch()

        def frames() -> Iterator[object]:
            for each in (False, False, picture(3), False):
                time.sleep(0.1)
                if each is not False:
                    yield each
                    device.unlink()
                else:
                    yield False

        capture = FakeCapture(frames())
        camera = usb_camera(str(device), UsbSettings(), open_timeout_ms=2000, capture=lambda *a: capture)
        camera.open()
        with pytest.raises(CameraTimeoutError):
            camera.read(20)
        assert camera.read(3000).sequence == 0
        with pytest.raises(CameraLostError):
            camera.read(3000)

    def test_a_device_that_another_program_has_is_lost(self) -> None:
        camera = usb_camera("/dev/null", UsbSettings(), open_timeout_ms=2000, capture=lambda *a: None)
        with pytest.raises(CameraLostError, match="another program"):
            camera.open()

    def test_a_size_that_the_camera_does_not_have_is_refused(self) -> None:
        capture = FakeCapture(iter(()), {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480})
        capture.fixed = {cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT}
        camera = usb_camera(
            "/dev/null", UsbSettings(size_px=(1280, 960)), open_timeout_ms=2000, capture=lambda *a: capture
        )
        with pytest.raises(CameraNotFoundError, match="size: got 1280x960, allowed: what it has, such as 640x480"):
            camera.open()
        assert capture.released


@pytest.mark.slow
class TestRtsp:
    def test_stopped_and_started_again_on_its_port(self) -> None:
        server = RtspServer()
        camera = create_camera(server.url, open_timeout_ms=3000, read_timeout_ms=1500)
        camera.open()
        frames = [camera.read(2000) for _ in range(3)]
        server.stop()
        began = time.monotonic()
        assert isinstance(end_of(camera), CameraLostError)
        assert time.monotonic() - began < 1.5
        with pytest.raises(CameraNotFoundError, match="cannot be reached"):
            camera.open()
        with RtspServer(port=server.port, size=(640, 480)):
            reopen(camera)
            after = [camera.read(2000) for _ in range(3)]
            camera.close()
        assert frames[0].image.shape == (240, 320, 3)
        assert after[0].image.shape == (480, 640, 3)
        numbers = [frame.sequence for frame in [*frames, *after]]
        assert numbers == sorted(set(numbers))

    def test_a_stream_that_falls_silent_is_a_timeout_and_then_lost(self) -> None:
        with RtspServer() as server:
            camera = create_camera(server.url, open_timeout_ms=3000, read_timeout_ms=800)
            camera.open()
            camera.read(2000)
            server.silent.set()
            errors = [error_of(lambda: [camera.read(200) for _ in range(4)]) for _ in range(6)]
            assert isinstance(errors[0], CameraTimeoutError)
            assert isinstance(errors[-1], CameraLostError)
            server.silent.clear()
            camera.open()
            camera.read(2000)
            camera.close()

    def test_the_first_frame_is_fresh_and_not_from_the_queue(self) -> None:
        with RtspServer(rate_hz=20) as server:
            camera = create_camera(server.url, open_timeout_ms=3000)
            camera.open()
            frame = camera.read(2000)
            sent = server.sent
            camera.close()
        # About 15 frames queue up while the stream is opened; they are neither shown nor counted.
        assert sent - server.number_of(frame.image) <= 6
        assert frame.sequence <= 6

    def test_a_path_that_the_server_does_not_have(self) -> None:
        with RtspServer() as server:
            camera = create_camera(server.url.replace("live", "nothing"), open_timeout_ms=2000)
            with pytest.raises(CameraLostError, match="check path, user and password"):
                camera.open()


class TestNetwork:
    def test_a_server_that_is_not_there_is_named_without_its_password(self, capfd: pytest.CaptureFixture[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"rtsp://admin:geheim@127.0.0.1:{free.getsockname()[1]}/live?token=verysecret"
            caught = error_of(create_camera(url, open_timeout_ms=1000).open)
        assert isinstance(caught, CameraNotFoundError)
        assert "cannot be reached" in str(caught)
        shown = str(caught) + capfd.readouterr().err
        assert not any(secret in shown for secret in ("admin", "geheim", "verysecret"))

    def test_a_server_that_accepts_and_says_nothing_ends_at_the_time_limit(self) -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            url = f"rtsp://127.0.0.1:{mute.getsockname()[1]}/live"
            began = time.monotonic()
            with pytest.raises(CameraLostError):
                create_camera(url, open_timeout_ms=400).open()
            assert time.monotonic() - began < 3

    def test_the_environment_stays_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)
        seen: list[object] = []

        def capture(url: str | int, backend: int, parameters: object) -> None:
            import os

            seen.extend([url, backend, dict(os.environ).get("OPENCV_FFMPEG_CAPTURE_OPTIONS")])

        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/live"
            with pytest.raises(CameraLostError):
                network_camera(url, open_timeout_ms=500, read_timeout_ms=500, capture=capture).open()
        assert seen == [url, cv2.CAP_FFMPEG, None]

    @pytest.mark.slow
    def test_an_http_stream_that_ends_is_lost(self) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for value in range(60):
                    _, data = cv2.imencode(".jpg", picture(value, (320, 240)))
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data.tobytes() + b"\r\n")
                    time.sleep(0.03)

            def log_message(self, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            camera = create_camera(f"http://127.0.0.1:{server.server_port}/stream", open_timeout_ms=4000)
            assert camera.open().live
            assert camera.read(3000).image.shape == (240, 320, 3)
            assert isinstance(end_of(camera), CameraLostError)
            camera.close()
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class TestFiles:
    def test_an_unreadable_image_is_torn_and_the_next_one_is_read(self, tmp_path: Path) -> None:
        files = write_images(tmp_path, 4)
        files[1].write_bytes(files[1].read_bytes()[:50])
        files[2].write_bytes(b"")
        camera = create_camera(str(tmp_path))
        camera.open()
        first = camera.read(100)
        for name in ("part2.png", "part3.png"):
            with pytest.raises(TornFrameError, match=name):
                camera.read(100)
        last = camera.read(100)
        assert (first.sequence, last.sequence) == (0, 3)
        with pytest.raises(CameraEndedError):
            camera.read(100)

    def test_an_image_that_was_deleted_is_torn(self, tmp_path: Path) -> None:
        files = write_images(tmp_path, 2)
        camera = create_camera(str(tmp_path))
        camera.open()
        files[0].unlink()
        with pytest.raises(TornFrameError, match="no such file"):
            camera.read(100)
        assert camera.read(100).sequence == 1

    def test_a_file_is_not_read_before_it_is_complete(self, tmp_path: Path) -> None:
        (whole,) = write_images(tmp_path / "elsewhere", 1)
        data = whole.read_bytes()
        folder = tmp_path / "drop"
        folder.mkdir()
        clock = FakeClock()
        camera = DropFolderCamera(folder, settle_ms=200, clock=clock)
        camera.open()
        with (folder / "a.png").open("wb") as file:
            for byte in range(0, len(data), max(1, len(data) // 5)):
                file.write(data[byte : byte + max(1, len(data) // 5)])
                file.flush()
                with pytest.raises(CameraTimeoutError):
                    camera.read(100)
        assert camera.read(400).sequence == 0
        with pytest.raises(CameraTimeoutError):
            camera.read(2000)

    def test_a_drop_folder_that_vanishes_is_lost_and_found_again(self, tmp_path: Path) -> None:
        folder = tmp_path / "drop"
        write_images(folder, 1)
        camera = DropFolderCamera(folder, settle_ms=1)
        camera.open()
        camera.read(2000)
        (folder / "part1.png").unlink()
        folder.rmdir()
        with pytest.raises(CameraLostError, match="cannot be read"):
            camera.read(2000)
        with pytest.raises(CameraNotFoundError):
            camera.open()
        write_images(folder, 1)
        camera.open()
        assert camera.read(2000).sequence == 1

    def test_closing_while_it_opens_leaves_it_closed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        camera = VideoCamera(write_video(tmp_path / "a.avi", 3))
        opening, go_on = threading.Event(), threading.Event()
        connect = camera._connect

        def slow() -> None:
            opening.set()
            go_on.wait(5)
            connect()

        monkeypatch.setattr(camera, "_connect", slow)
        threads = [threading.Thread(target=camera.open), threading.Thread(target=camera.close)]
        threads[0].start()
        assert opening.wait(5)
        threads[1].start()
        go_on.set()
        for thread in threads:
            thread.join(5)
        with pytest.raises(CameraLostError, match="not open"):
            camera.read(100)

    def test_what_is_no_video_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "a.mp4"
        with pytest.raises(CameraNotFoundError, match="no such file"):
            VideoCamera(file).open()
        file.write_bytes(b"not a video" * 100)
        with pytest.raises(CameraNotFoundError, match="is no video"):
            VideoCamera(file).open()

    def test_a_video_that_was_cut_off_ends(self, tmp_path: Path) -> None:
        file = write_video(tmp_path / "a.avi", 20)
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
        camera = VideoCamera(file, loop=False)
        camera.open()
        frames: list[Frame] = []
        assert isinstance(end_of(camera, frames), CameraEndedError)
        assert 0 < len(frames) < 20


def scripted(
    script: str, *, rate_hz: float | None = None, count: int | None = None
) -> tuple[SimulatedCamera, FakeClock]:
    clock = FakeClock()
    camera = SimulatedCamera(
        PRODUCT, rate_hz=rate_hz, count=count, pool=8, script=FaultScript.parse(script), clock=clock
    )
    camera.open()
    return camera, clock


PRODUCT = SimulatedProduct("label", 128)


def numbers(camera: Camera, count: int) -> list[int]:
    return [camera.read(1000).sequence for _ in range(count)]


class TestScripted:
    """Each fault of the simulated camera does what its description says: the runtime's tests stand on that."""

    def test_unplug(self) -> None:
        camera, clock = scripted("unplug@2:3s")
        assert numbers(camera, 2) == [0, 1]
        for match in ("unplugged", "not open"):
            with pytest.raises(CameraLostError, match=match):
                camera.read(1000)
        clock.ns += 2_900_000_000
        with pytest.raises(CameraNotFoundError):
            camera.open()
        clock.ns += 200_000_000
        camera.open()
        assert numbers(camera, 2) == [2, 3]

    def test_absent_at_start(self) -> None:
        clock = FakeClock()
        camera = SimulatedCamera(PRODUCT, pool=2, script=FaultScript.parse("absent:2s"), clock=clock)
        for _ in range(2):
            with pytest.raises(CameraNotFoundError):
                camera.open()
        clock.ns += 2_000_000_001
        camera.open()
        assert numbers(camera, 1) == [0]

    def test_freeze(self) -> None:
        camera, _ = scripted("freeze@2:3")
        frames = [camera.read(1000) for _ in range(6)]
        assert [np.array_equal(frame.image, frames[1].image) for frame in frames] == [
            False, True, True, True, True, False,
        ]  # fmt: skip
        assert [frame.sequence for frame in frames] == list(range(6))
        assert len({frame.captured_ns for frame in frames}) == 1  # the clock stands still, the frames do not care

    def test_duplicate(self) -> None:
        camera, _ = scripted("duplicate@1")
        frames = [camera.read(1000) for _ in range(4)]
        assert [frame.sequence for frame in frames] == [0, 1, 1, 2]
        assert frames[1] is frames[2]

    def test_torn(self) -> None:
        camera, _ = scripted("torn@1")
        assert numbers(camera, 1) == [0]
        with pytest.raises(TornFrameError, match="frame 1 is incomplete"):
            camera.read(1000)
        assert numbers(camera, 1) == [2]

    def test_lose(self) -> None:
        assert numbers(scripted("lose@1:3")[0], 3) == [0, 4, 5]

    @pytest.mark.parametrize("rate_hz", [None, 10.0])
    def test_late(self, rate_hz: float | None) -> None:
        camera, clock = scripted("late@1:300ms", rate_hz=rate_hz)
        camera.read(1000)
        with pytest.raises(CameraTimeoutError):
            camera.read(200)
        frame = camera.read(1000)
        assert frame.sequence == 1
        assert clock.ns - frame.captured_ns == pytest.approx(300_000_000, abs=1e3)

    def test_back(self) -> None:
        camera, _ = scripted("back@1:5s", rate_hz=10)
        frames = [camera.read(1000) for _ in range(3)]
        stamps = [frame.captured_ns - frames[0].captured_ns for frame in frames]
        assert stamps == [0, 100_000_000 - 5_000_000_000, 200_000_000]
        assert frames[1].captured_utc < frames[0].captured_utc < frames[2].captured_utc

    def test_size_and_format_after_reconnect(self) -> None:
        camera, _ = scripted("unplug@1:0s,size@1:96x64,format@2:Mono8")
        sizes = [camera.read(1000).image.shape]
        with pytest.raises(CameraLostError):
            camera.read(1000)
        camera.open()
        frames = [camera.read(1000) for _ in range(2)]
        sizes += [frame.image.shape for frame in frames]
        assert sizes == [(128, 128, 3), (64, 96, 3), (64, 96, 3)]
        assert [frame.pixel_format for frame in frames] == ["BGR8", "Mono8"]
        grey = frames[1].image
        assert np.array_equal(grey[:, :, 0], grey[:, :, 2])

    def test_another_serial_after_reconnect(self) -> None:
        camera, _ = scripted("unplug@1:0s,serial@1:B7")
        assert camera.read(1000).serial == "sim-label-0"
        with pytest.raises(CameraLostError):
            camera.read(1000)
        assert camera.open().serial == "B7"
        assert camera.read(1000).serial == "B7"

    def test_hang_in_read_takes_no_notice_of_the_time_limit(self) -> None:
        camera, clock = scripted("hang@1:7s")
        camera.read(10)
        before = clock.ns
        assert camera.read(10).sequence == 1
        assert clock.ns - before == 7_000_000_000
        assert numbers(camera, 1) == [2]

    def test_hang_in_open_happens_once(self) -> None:
        camera, clock = scripted("hang-open@1:7s")
        camera.read(10)
        for expected in (7_000_000_000, 0):
            before = clock.ns
            camera.open()
            assert clock.ns - before == expected

    def test_a_slow_reader_of_a_live_camera_misses_frames_but_no_fault(self) -> None:
        camera, clock = scripted("torn@7,unplug@20:1s", rate_hz=10)
        camera.read(1000)
        clock.ns += 450_000_000
        assert numbers(camera, 1) == [4]
        clock.ns += 900_000_000
        with pytest.raises(TornFrameError):
            camera.read(1000)
        clock.ns += 5_000_000_000
        with pytest.raises(CameraLostError):
            camera.read(1000)
        clock.ns += 2_000_000_000
        camera.open()
        assert numbers(camera, 2) == [20, 21]

    def test_the_count_ends_it(self) -> None:
        for rate_hz in (None, 100.0):
            camera, _ = scripted("", rate_hz=rate_hz, count=3)
            assert numbers(camera, 3) == [0, 1, 2]
            for _ in range(2):
                with pytest.raises(CameraEndedError, match="its 3 frames"):
                    camera.read(1000)
