"""For camera tests: a clock that only moves when it is told to, drivers that do as they are told, files to read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.cameras.base import Camera, Frame, utc_now
from differad_edge.cameras.live import Grabbed
from differad_edge.errors import CameraError


class FakeClock:
    """Waiting moves it, and takes no time. ``waited``: for how long each time, in seconds."""

    def __init__(self) -> None:
        self.ns = 10**9
        self.waited: list[float] = []

    def now_ns(self) -> int:
        return self.ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waited.append(seconds)
        self.ns += round(seconds * 1e9)
        return event.is_set()


class FakeDriver:
    """Hands out ``pictures`` (None: nothing came; an exception is raised), and then waits until it is released."""

    simulated = False

    def __init__(self, pictures: Iterator[object], serial: str = "S1") -> None:
        self.serial = serial
        self.pictures = pictures
        self.released = threading.Event()
        self.let_go = threading.Event()
        """Ends the waiting."""
        self.threads: set[int] = set()

    def grab(self) -> Grabbed | None:
        self.threads.add(threading.get_ident())
        picture = next(self.pictures, self)
        if picture is self:
            self.let_go.wait(20)
            return None
        if isinstance(picture, BaseException):
            raise picture
        if picture is None:
            return None
        return Grabbed(picture, time.monotonic_ns(), utc_now(), "BGR8")  # type: ignore[arg-type]

    def release(self) -> None:
        self.threads.add(threading.get_ident())
        self.released.set()


class FakeCapture:
    """cv2.VideoCapture that grabs what ``frames`` gives: an array, None (retrieve fails), or False (grab fails)."""

    def __init__(self, frames: Iterator[object], properties: dict[int, float] | None = None) -> None:
        self.frames = frames
        self.properties = properties or {}
        self.fixed: set[int] = set()
        """Properties that take no notice of being set."""
        self.released = False
        self._at_hand: object = None

    def grab(self) -> bool:
        self._at_hand = next(self.frames, False)
        return self._at_hand is not False

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        return self._at_hand is not None, self._at_hand  # type: ignore[return-value]

    def get(self, property_id: int, /) -> float:
        return self.properties.get(property_id, 0.0)

    def set(self, property_id: int, value: float, /) -> bool:
        if property_id not in self.fixed:
            self.properties[property_id] = value
        return True

    def release(self) -> None:
        self.released = True


def picture(value: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """HxWx3 with a brightness that tells pictures apart, also after JPEG."""
    image = np.full((size[1], size[0], 3), value, np.uint8)
    image[: size[1] // 2] = 255 - value
    return image


def slowly(pictures: Iterator[object], period_s: float = 0.01) -> Iterator[object]:
    for each in pictures:
        time.sleep(period_s)
        yield each


def write_images(folder: Path, count: int) -> list[Path]:
    """part1.png, part2.png ... with the values 10, 20 ..."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"part{index + 1}.png" for index in range(count)]
    for index, file in enumerate(files):
        assert cv2.imwrite(str(file), picture(10 * (index + 1)))
    return files


def write_video(file: Path, count: int) -> Path:
    """An MJPG file whose frames have the values 10, 20 ..."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    assert writer.isOpened()
    for index in range(count):
        writer.write(picture(10 * (index + 1)))
    writer.release()
    return file


def values(frames: list[Frame]) -> list[int]:
    """What was given to `picture`, to the nearest ten."""
    return [10 * round(float(frame.image[-1].mean()) / 10) for frame in frames]


def camera_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("camera ")]


def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Poll; fails after ``limit_s``."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.005)


def error_of(call: Callable[[], object]) -> CameraError:
    """The CameraError that ``call`` raises."""
    try:
        call()
    except CameraError as error:
        return error
    raise AssertionError("no error was raised")


def reopen(camera: Camera, limit_s: float = 10.0) -> None:
    """As the runtime does it: open until it is there."""
    end = time.monotonic() + limit_s
    while True:
        try:
            camera.open()
            return
        except CameraError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
