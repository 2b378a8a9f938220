"""What every camera keeps to, whatever stands behind it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from camera_fakes import (
    FakeCapture,
    FakeDriver,
    camera_threads,
    error_of,
    picture,
    slowly,
    until,
    write_images,
    write_video,
)
from device_cameras import FakeGigE, need_producer, need_pylon
from rtsp_server import RtspServer

from differad_edge.cameras import Camera, Frame, create_camera
from differad_edge.cameras.live import LiveCamera
from differad_edge.cameras.opencv import UsbSettings, network_camera, usb_camera
from differad_edge.errors import CameraError, CameraLostError, CameraTimeoutError


@dataclass
class Bench:
    """``giving``: a camera with ten frames and more; ``starving``: one whose next frame is far away."""

    giving: Camera
    starving: Camera
    let_go: Callable[[], None] = lambda: None


def sim(folder: Path) -> Bench:
    return Bench(
        create_camera("sim:gasket?size=128&pool=2"), create_camera("sim:gasket?size=128&pool=2&script=late@0:60s")
    )


def sim_live(folder: Path) -> Bench:
    return Bench(
        create_camera("sim:gasket?size=128&pool=2&rate_hz=100"),
        create_camera("sim:gasket?size=128&pool=2&rate_hz=100&script=late@0:60s"),
    )


def images(folder: Path) -> Bench:
    write_images(folder / "a", 12)
    return Bench(create_camera(f"{folder}/a/"), paced(create_camera(f"{folder}/a/?rate_hz=0.02")))


def drop(folder: Path) -> Bench:
    write_images(folder / "a", 12)
    (folder / "b").mkdir()
    return Bench(
        create_camera(f"{folder}/a?watch=1&settle_ms=1"), create_camera(f"{folder}/b?watch=1&settle_ms=1")
    )  # fmt: skip


def video(folder: Path) -> Bench:
    file = write_video(folder / "a.avi", 12)
    return Bench(create_camera(f"{file}?loop=1"), paced(create_camera(f"{file}?rate_hz=0.02")))


class Paced:
    """The camera after its first frame: from there on it waits."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self.read, self.close = camera.read, camera.close

    def open(self) -> object:
        info = self._camera.open()
        self._camera.read(1000)
        return info


def paced(camera: Camera) -> Camera:
    return Paced(camera)  # type: ignore[return-value]


def driver(folder: Path) -> Bench:
    hungry: list[FakeDriver] = []

    def connect_starving() -> FakeDriver:
        hungry.append(FakeDriver(iter(())))
        return hungry[-1]

    def let_go() -> None:
        for each in hungry:
            each.let_go.set()

    pictures = (picture(value % 250) for value in itertools.count())
    return Bench(
        LiveCamera("fake", "fake", lambda: FakeDriver(slowly(pictures))),
        LiveCamera("fake", "hungry", connect_starving),
        let_go,
    )


def usb(folder: Path) -> Bench:
    device = folder / "video0"
    device.touch()
    waiting = threading.Event()

    def starve() -> Iterator[object]:
        waiting.wait(20)
        yield False

    def capture(frames: Callable[[], Iterator[object]]) -> Callable[..., FakeCapture]:
        return lambda source, backend, parameters: FakeCapture(frames())

    settings = UsbSettings()
    return Bench(
        usb_camera(
            str(device),
            settings,
            open_timeout_ms=2000,
            capture=capture(lambda: slowly(picture(value % 250) for value in itertools.count())),
        ),
        usb_camera(str(device), settings, open_timeout_ms=2000, capture=capture(starve)),
        waiting.set,
    )


def rtsp(folder: Path) -> Bench:
    server, silent = RtspServer(), RtspServer()

    def let_go() -> None:
        server.stop()
        silent.stop()

    class Silenced(Paced):
        def open(self) -> object:
            silent.silent.clear()
            info = self._camera.open()
            silent.silent.set()
            time.sleep(0.1)  # what is under way arrives
            error_of(lambda: [self._camera.read(10) for _ in range(5)])
            return info

    return Bench(
        network_camera(server.url, open_timeout_ms=5000, read_timeout_ms=3000),
        Silenced(network_camera(silent.url, open_timeout_ms=5000, read_timeout_ms=3000)),  # type: ignore[arg-type]
        let_go,
    )


def basler(folder: Path) -> Bench:
    need_pylon()
    return Bench(
        create_camera("basler:0815-0000?size=64x48&rate_hz=100"), create_camera("basler:0815-0001?trigger=line1")
    )


def basler_software(folder: Path) -> Bench:
    need_pylon()
    return Bench(
        create_camera("basler:0815-0000?size=64x48&trigger=software&format=BayerRG12"),
        create_camera("basler:0815-0001?size=64x48&trigger=line1&format=RGB8Packed"),
    )


def genicam(folder: Path) -> Bench:
    producer = need_producer()
    return Bench(
        create_camera(f"genicam:{producer}?serial=0&format=Mono8&size=100x100&rate_hz=100"),
        paced(create_camera(f"genicam:{producer}?serial=1&rate_hz=1")),
    )


def aravis(folder: Path) -> Bench:
    camera = FakeGigE("contract")
    return Bench(
        create_camera("aravis:contract?size=64x48&rate_hz=100"),
        create_camera("aravis:contract?trigger=line0"),
        camera.stop,
    )


def aravis_software(folder: Path) -> Bench:
    camera = FakeGigE("contract")
    return Bench(
        create_camera("aravis:contract?size=64x48&format=BayerGB8&trigger=software"),
        create_camera("aravis:contract?trigger=line0"),
        camera.stop,
    )


MAKERS = [
    sim, sim_live, images, drop, video, driver, usb, basler, basler_software, genicam,
    *(pytest.param(each, marks=pytest.mark.slow) for each in (rtsp, aravis, aravis_software)),
]  # fmt: skip


@pytest.fixture(params=MAKERS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made: Bench = request.param(tmp_path)
    yield made
    made.giving.close()
    made.starving.close()
    made.let_go()
    until(lambda: camera_threads() == [])


def read(camera: Camera, count: int) -> list[Frame]:
    return [camera.read(3000) for _ in range(count)]


def test_frames_are_pictures_with_rising_numbers_and_stamps(bench: Bench) -> None:
    assert isinstance(bench.giving, Camera)
    before = time.monotonic_ns()
    info = bench.giving.open()
    frames = read(bench.giving, 5)
    after = time.monotonic_ns()
    for frame in frames:
        assert (frame.image.dtype, frame.image.ndim, frame.image.shape[2]) == (np.uint8, 3, 3)
        assert frame.image.flags.c_contiguous
        assert frame.pixel_format
        assert frame.serial == info.serial
        assert before <= frame.captured_ns <= after
        assert frame.captured_utc.endswith("Z")
    for earlier, later in itertools.pairwise(frames):
        assert later.sequence > earlier.sequence
        assert later.captured_ns > earlier.captured_ns
        assert later.captured_utc >= earlier.captured_utc
        assert not np.shares_memory(later.image, earlier.image)


def test_a_read_keeps_its_time_limit(bench: Bench) -> None:
    bench.starving.open()
    for timeout_ms in (0, 60):
        began = time.monotonic()
        with pytest.raises(CameraTimeoutError):
            bench.starving.read(timeout_ms)
        waited_ms = (time.monotonic() - began) * 1e3
        assert timeout_ms - 1 <= waited_ms < timeout_ms + 500


def test_closing_ends_a_read_that_waits(bench: Bench) -> None:
    bench.starving.open()
    got: list[CameraError] = []
    thread = threading.Thread(target=lambda: got.append(error_of(lambda: bench.starving.read(30_000))))
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    bench.starving.close()
    thread.join(2)
    assert not thread.is_alive()
    assert isinstance(got[0], CameraLostError)


def test_a_camera_that_is_not_open_is_lost(bench: Bench) -> None:
    with pytest.raises(CameraLostError, match="not open"):
        bench.giving.read(10)
    bench.giving.open()
    read(bench.giving, 1)
    bench.giving.close()
    for _ in range(2):
        with pytest.raises(CameraLostError, match="not open"):
            bench.giving.read(10)


def test_closing_twice_is_closing_once_and_never_raises(bench: Bench) -> None:
    bench.giving.close()
    bench.giving.open()
    bench.giving.close()
    bench.giving.close()


def test_opened_again_it_gives_frames_and_goes_on_counting(bench: Bench) -> None:
    infos = [bench.giving.open()]
    frames = read(bench.giving, 2)
    bench.giving.close()
    infos.append(bench.giving.open())
    frames += read(bench.giving, 2)
    infos.append(bench.giving.open())  # without a close in between, as after CameraLostError
    frames += read(bench.giving, 2)
    assert infos[0] == infos[1] == infos[2]
    assert sorted({frame.sequence for frame in frames}) == [frame.sequence for frame in frames]
