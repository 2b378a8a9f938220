"""A GigE Vision camera of its own process on loopback: settings, formats, and who may have it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from device_cameras import FakeGigE, need_aravis

from differad_edge.cameras import create_camera
from differad_edge.cameras.present import connected
from differad_edge.errors import CameraLostError, CameraNotFoundError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gige() -> Iterator[FakeGigE]:
    need_aravis()
    with FakeGigE("GV7") as camera:
        yield camera


@pytest.mark.parametrize("name", ["", "Aravis-Fake-GV7", "GV7", "127.0.0.1"])
def test_it_is_found_by_id_serial_number_address_or_alone(gige: FakeGigE, name: str) -> None:
    camera = create_camera(f"aravis:{name}?trigger=software&size=64x48")
    info = camera.open()
    assert (info.serial, info.kind, info.live, info.simulated) == ("GV7", "aravis", False, True)
    assert camera.read(5000).image.shape == (48, 64, 3)
    camera.close()
    assert connected("aravis") == ["Aravis-Fake-GV7"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("exposure_us=90000000", "exposure_us: got 90000000.0, allowed: from 10 to 1e+07"),
        ("gain=5000", "gain: got 5000.0, allowed: from 0 to 10"),
        ("size=9000x10", "size: got 9000, allowed: from 1 to 2048"),
        ("size=10x9000", "size: got 9000, allowed: from 1 to 2048"),
        ("format=YUV422_8", "format: got YUV422_8, allowed: BayerBG8, "),
        ("trigger=line9", "trigger: got Line9, allowed: Line0, Software"),
        ("rate_hz=0.01", "rate_hz: got 0.01, allowed: from 0.1 to 1000"),
    ],
)
def test_what_the_camera_does_not_take_is_named(gige: FakeGigE, setting: str, message: str) -> None:
    with pytest.raises(CameraNotFoundError) as refused:
        create_camera(f"aravis:GV7?{setting}").open()
    assert message in str(refused.value)


def test_another_id_is_named_with_those_that_are_there(gige: FakeGigE) -> None:
    with pytest.raises(CameraNotFoundError, match=r"'aravis:GV8': is not there, allowed: .*\(Aravis-Fake-GV7\)"):
        create_camera("aravis:GV8").open()


def test_the_region_lies_in_the_middle(gige: FakeGigE) -> None:
    from differad_edge.cameras.aravis import AravisDevice
    from differad_edge.cameras.device import DeviceSettings

    device = AravisDevice("aravis:GV7", "GV7", DeviceSettings(size_px=(640, 480), exposure_us=1500.0, gain=2.0))
    region = device._camera.get_region()
    assert tuple(region) == ((2048 - 640) // 2, (2048 - 480) // 2, 640, 480)
    assert (device._camera.get_exposure_time(), device._camera.get_gain()) == (1500.0, 2.0)
    device.check()
    device.release()
    for call in (device.check, lambda: device.next(10), device.restart, lambda: device.fire(10)):
        with pytest.raises(CameraLostError):
            call()


def test_a_camera_belongs_to_one_program_and_is_free_after_it(gige: FakeGigE) -> None:
    first = create_camera("aravis:GV7?trigger=software&size=64x48")
    second = create_camera("aravis:GV7?trigger=software&size=64x48")
    first.open()
    with pytest.raises((CameraLostError, CameraNotFoundError)):
        second.open()
    assert first.read(5000).sequence == 0
    first.close()
    second.open()
    assert second.read(5000).sequence == 0
    second.close()


@pytest.mark.parametrize(
    ("name", "channels"), [("Mono8", 1), ("BayerRG8", 3), ("BayerGB8", 3), ("RGB8", 3)]
)  # fmt: skip
def test_formats(gige: FakeGigE, name: str, channels: int) -> None:
    camera = create_camera(f"aravis:GV7?trigger=software&size=64x48&format={name}")
    camera.open()
    frame = camera.read(5000)
    camera.close()
    assert frame.pixel_format == name
    assert frame.image.shape == (48, 64, 3)
    if channels == 1:
        assert np.array_equal(frame.image[:, :, 0], frame.image[:, :, 2])
