"""Emulated Basler cameras: what pylon makes of a picture, and settings that it takes or does not take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from device_cameras import flat, need_pylon, write_parts

from differad_edge.cameras import create_camera
from differad_edge.cameras.present import connected
from differad_edge.errors import CameraLostError, CameraNotFoundError


@pytest.fixture(autouse=True)
def _pylon() -> None:
    need_pylon()


@pytest.mark.parametrize(
    "name",
    [
        "RGB8Packed",
        "BGR8Packed",
        *(f"Bayer{first}{bits}" for first in ("RG", "GR", "GB", "BG") for bits in (8, 10, 12)),
    ],
)
def test_red_stays_red_in_every_format_that_pylon_sends(tmp_path: Path, name: str) -> None:
    red = flat(0)
    red[:] = (20, 60, 220)
    images = write_parts(tmp_path / "red", [red])
    camera = create_camera(f"basler:0815-0000?trigger=software&size=64x48&format={name}&images={images}")
    camera.open()
    frame = camera.read(5000)
    camera.close()
    assert frame.pixel_format == name
    np.testing.assert_array_equal(frame.image[4:-4, 4:-4], red[4:-4, 4:-4])


@pytest.mark.parametrize("name", ["Mono8", "Mono10", "Mono12", "Mono16"])
def test_grey_is_the_same_in_every_depth(tmp_path: Path, name: str) -> None:
    images = write_parts(tmp_path / "grey", [flat(137)])
    camera = create_camera(f"basler:0815-0000?trigger=software&size=64x48&format={name}&images={images}")
    camera.open()
    np.testing.assert_array_equal(camera.read(5000).image, flat(137))
    camera.close()


@pytest.mark.parametrize("trigger", ["free", "software", "line1"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("basler:", "several are connected, allowed: one of basler:SERIAL (0815-0000, 0815-0001)"),
        ("basler:4711", "is not there, allowed: a connected camera (0815-0000, 0815-0001)"),
        ("basler:0815-0000?exposure_us=90000000", "exposure_us: got 90000000.0, allowed: from 1 to 1e+07"),
        ("basler:0815-0000?gain=5000", "gain: got 5000.0, allowed: from "),
        ("basler:0815-0000?size=9000x10", "size: got 9000, allowed: from 1 to 4096"),
        ("basler:0815-0000?format=BayerRG12p", "format: got BayerRG12p, allowed: Mono8, Mono10"),
        ("basler:0815-0000?images=/nowhere", "images: got /nowhere, allowed: a folder"),
    ],
)
def test_what_the_camera_does_not_take_is_named(source: str, message: str, trigger: str) -> None:
    camera = create_camera(f"{source}{'&' if '?' in source else '?'}trigger={trigger}")
    with pytest.raises(CameraNotFoundError) as refused:
        camera.open()
    assert message in str(refused.value)
    assert source.partition("?")[0] in str(refused.value)


def test_an_input_that_the_camera_does_not_have() -> None:
    with pytest.raises(CameraNotFoundError, match="trigger: got Line9, allowed: Software, Line1, Line2"):
        create_camera("basler:0815-0000?trigger=line9").open()


def test_a_refused_camera_is_free_for_the_next_attempt() -> None:
    for _ in range(3):
        with pytest.raises(CameraNotFoundError):
            create_camera("basler:0815-0000?size=9000x10&trigger=software").open()
    camera = create_camera("basler:0815-0000?size=64x48&trigger=software")
    camera.open()
    assert camera.read(5000).sequence == 0
    camera.close()


def test_settings_reach_the_camera_and_an_old_trigger_is_taken_back() -> None:
    from differad_edge.cameras.basler import BaslerDevice
    from differad_edge.cameras.device import DeviceSettings

    settings = DeviceSettings("line2", 1500.0, 2.0, "Mono12", None, (640, 480))
    device = BaslerDevice("basler:0815-0000", "0815-0000", settings)
    camera = device.camera
    assert (camera.ExposureTime.Value, camera.PixelFormat.Value) == (1500.0, "Mono12")
    assert camera.Gain.Value == pytest.approx(2.0, abs=0.01)  # it has steps
    assert (camera.Width.Value, camera.Height.Value) == (640, 480)
    assert (camera.OffsetX.Value, camera.OffsetY.Value) == (camera.OffsetX.Max // 2, camera.OffsetY.Max // 2)
    modes = {}
    for name in camera.TriggerSelector.Symbolics:
        camera.TriggerSelector.Value = name
        modes[name] = (camera.TriggerMode.Value, camera.TriggerSource.Value)
    assert [name for name, (mode, _) in modes.items() if mode == "On"] == ["FrameStart"]
    assert modes["FrameStart"][1] == "Line2"
    device.check()
    device.release()
    for call in (device.check, lambda: device.next(10), device.restart, lambda: device.fire(10)):
        with pytest.raises(CameraLostError):
            call()


def test_a_dark_picture_shows_more_with_a_shift(tmp_path: Path) -> None:
    images = write_parts(tmp_path / "dark", [flat(10)])
    values = []
    for shift in ("", "&shift=2"):
        source = f"basler:0815-0000?trigger=software&size=64x48&format=Mono12&images={images}{shift}"
        camera = create_camera(source)
        camera.open()
        values.append(int(camera.read(5000).image[20, 20, 0]))
        camera.close()
    assert values[0] == 10
    assert 40 <= values[1] <= 43


def test_those_that_are_connected() -> None:
    assert connected("basler") == ["0815-0000", "0815-0001"]
