"""A GenTL producer that plays, and one that says what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cameras import need_producer

from differad_edge.cameras import create_camera
from differad_edge.errors import CameraLostError, CameraNotFoundError


@pytest.fixture
def producer() -> Path:
    return need_producer()


@pytest.mark.parametrize("name", ["Mono8", "RGBa8"])
def test_frames_of_a_producer(producer: Path, name: str) -> None:
    camera = create_camera(f"genicam:{producer}?serial=1&format={name}&size=200x150")
    info = camera.open()
    assert (info.kind, info.serial, info.live) == ("genicam", "1", True)
    frame = camera.read(5000)
    camera.close()
    assert (frame.image.shape, frame.pixel_format) == ((150, 200, 3), name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "serial: got '', allowed: serial=one of those that the producer knows (0, 1, 2)"),
        ("?serial=9", "serial: got '9', allowed: serial=one of those that the producer knows (0, 1, 2)"),
        ("?serial=1&format=Mono12", "format: got Mono12, allowed: RGBa8, Mono8"),
        ("?serial=1&size=10x10", "size: got 10, allowed: from 100 to 800"),
        ("?serial=1&trigger=software", "trigger: got On, allowed: no value"),
        ("?serial=1&exposure_us=5", "exposure_us: got 5.0, allowed: no value"),
    ],
)
def test_what_it_does_not_take_is_named(producer: Path, settings: str, message: str) -> None:
    with pytest.raises(CameraNotFoundError) as refused:
        create_camera(f"genicam:{producer}{settings}").open()
    assert message in str(refused.value)


def test_what_is_no_producer_is_named(producer: Path, tmp_path: Path) -> None:
    with pytest.raises(CameraNotFoundError, match=r"no such file, allowed: the \.cti file"):
        create_camera("genicam:/nowhere/maker.cti?serial=1").open()
    file = tmp_path / "maker.cti"
    file.write_bytes(b"no library")
    with pytest.raises((CameraNotFoundError, CameraLostError), match=r"maker\.cti"):
        create_camera(f"genicam:{file}?serial=1").open()


class Raw:
    """A GenTL buffer with 4x3 px of Mono8."""

    width, height, frame_id, timestamp_ns, padding_x, image_offset = 4, 3, 7, 1_000, 0, 0
    raw_buffer = bytes(range(64))
    size_filled = 12
    pixel_format = 0x01080001

    def __init__(self, **changes: Any) -> None:
        self.__dict__.update(changes)
        self.parent, self.queued = self, 0

    def queue_buffer(self, raw: Raw) -> None:
        self.queued += 1


class Acquirer:
    """Hands out ``raw``; "incomplete": Harvesters threw one away; an exception is raised."""

    def __init__(self, device: Any, raw: object) -> None:
        self.device, self.raw = device, raw

    def try_fetch(self, *, timeout: float, is_raw: bool) -> object:
        assert timeout > 0, "Harvesters takes 0 for without end"
        if isinstance(self.raw, Exception):
            raise self.raw
        if self.raw == "incomplete":
            self.device._incomplete.emit()
            return None
        return self.raw

    def destroy(self) -> None: ...


@pytest.fixture
def device(producer: Path) -> Any:
    from differad_edge.cameras.device import DeviceSettings
    from differad_edge.cameras.genicam import GenicamDevice

    device = GenicamDevice("genicam:x", producer, "2", DeviceSettings(pixel_format="Mono8"))
    device.check()
    device.restart()
    real = device._acquirer
    yield device
    device._acquirer = real
    device.release()


def test_what_a_buffer_says_is_what_comes_out(device: Any) -> None:
    raw = Raw(padding_x=2, image_offset=3, size_filled=21)
    device._acquirer = Acquirer(device, raw)
    block = device.next(0.0)
    assert (block.number, block.stamp_ns, block.picture.row_bytes, block.picture.size_px) == (7, 1_000, 6, (4, 3))
    assert bytes(block.picture.data) == bytes(range(3, 21))
    assert raw.queued == 1


@pytest.mark.parametrize(
    ("raw", "why"),
    [("incomplete", "the frame is incomplete"), (Raw(size_filled=11), "the frame is incomplete: 11 of 12 bytes")],
)
def test_a_buffer_that_was_not_filled_is_torn(device: Any, raw: object, why: str) -> None:
    device._acquirer = Acquirer(device, raw)
    block = device.next(10.0)
    assert (block.picture, block.number) == (why, None)


def test_nothing_in_time_is_nothing(device: Any) -> None:
    device._acquirer = Acquirer(device, None)
    assert device.next(1.0) is None


def test_another_format_in_the_middle_is_named_by_its_code(device: Any) -> None:
    device._acquirer = Acquirer(device, Raw(pixel_format=0x01080009))
    assert device.next(1.0).picture.pixel_format == "0x1080009"


def test_every_error_of_genapi_and_gentl_is_a_lost_camera(device: Any) -> None:
    from genicam import genapi, gentl

    for module in (genapi, gentl):
        names = [name for name in dir(module) if name.endswith("Exception")]
        assert len(names) > 5
        for name in names:
            if issubclass(getattr(module, name), Exception):
                device._acquirer = Acquirer(device, getattr(module, name)("what"))
                with pytest.raises(CameraLostError, match=f"'genicam:x': broke off: {name}"):
                    device.next(1.0)


def test_pictures_are_copies(producer: Path) -> None:
    camera = create_camera(f"genicam:{producer}?serial=0&format=Mono8&size=100x100")
    camera.open()
    first, second = camera.read(5000), camera.read(5000)
    camera.close()
    assert not np.shares_memory(first.image, second.image)
