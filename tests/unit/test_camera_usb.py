"""USB cameras: the device behind a name, and which camera it is."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import pytest
from camera_fakes import FakeCapture, picture, slowly

from differad_edge.cameras.opencv import UsbSettings, fourcc_name, usb_camera
from differad_edge.cameras.usb import device_path, usb_serial
from differad_edge.errors import CameraNotFoundError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices and sysfs as Linux has them")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """/dev and /sys of a machine with one camera at video2: interface 1-1:1.0 of the USB device 1-1."""
    dev, sysfs = tmp_path / "dev", tmp_path / "sys"
    interface = sysfs / "devices" / "1-1" / "1-1:1.0"
    (interface / "video4linux" / "video2").mkdir(parents=True)
    (interface / "video4linux" / "video2" / "device").symlink_to(interface)
    (sysfs / "class" / "video4linux").mkdir(parents=True)
    (sysfs / "class" / "video4linux" / "video2").symlink_to(interface / "video4linux" / "video2")
    (dev / "v4l" / "by-id").mkdir(parents=True)
    (dev / "video2").touch()
    (dev / "v4l" / "by-id" / "usb-ACME_1A2B-video-index0").symlink_to(dev / "video2")
    return tmp_path


def serial(machine: Path, name: str) -> str:
    return usb_serial(name, dev=machine / "dev", sysfs=machine / "sys")


def test_the_serial_of_the_usb_descriptor_by_every_name(machine: Path) -> None:
    (machine / "sys" / "devices" / "1-1" / "serial").write_text("1A2B\n")
    by_id = machine / "dev" / "v4l" / "by-id" / "usb-ACME_1A2B-video-index0"
    assert {serial(machine, name) for name in ("2", str(machine / "dev" / "video2"), str(by_id))} == {"1A2B"}


def test_without_a_serial_the_by_id_name_and_without_that_what_was_given(machine: Path) -> None:
    assert serial(machine, "2") == "usb-ACME_1A2B-video-index0"
    (machine / "sys" / "devices" / "1-1" / "serial").write_text(" \n")
    assert serial(machine, "2") == "usb-ACME_1A2B-video-index0"
    (machine / "dev" / "v4l" / "by-id" / "usb-ACME_1A2B-video-index0").unlink()
    assert serial(machine, "2") == "2"


def test_a_link_leads_to_its_device_and_one_that_leads_nowhere_is_named(machine: Path) -> None:
    dev = machine / "dev"
    link = dev / "v4l" / "by-id" / "usb-ACME_1A2B-video-index0"
    assert device_path(str(link), dev=dev) == device_path("2", dev=dev) == dev / "video2"
    with pytest.raises(CameraNotFoundError, match=r"'3': .*video3 is not there, allowed: .*usb-ACME_1A2B"):
        device_path("3", dev=dev)
    (dev / "video2").unlink()
    with pytest.raises(CameraNotFoundError, match="is not there"):
        device_path(str(link), dev=dev)


def test_settings_are_applied_format_first_and_asked_back(machine: Path) -> None:
    asked: list[tuple[int, float]] = []

    class Recording(FakeCapture):
        def set(self, property_id: int, value: float, /) -> bool:
            asked.append((property_id, value))
            return super().set(property_id, value)

    opened: list[object] = []

    def capture(source: str | int, backend: int, parameters: object) -> FakeCapture:
        opened.extend([source, backend])
        return Recording(slowly(iter([picture(1), False])))

    device = str(machine / "dev" / "video2")
    camera = usb_camera(device, UsbSettings((64, 48), 30.0, "MJPG"), open_timeout_ms=2000, capture=capture)
    info = camera.open()
    frame = camera.read(2000)
    camera.close()
    assert (info.kind, info.live, info.source) == ("usb", True, device)
    assert opened == [device, cv2.CAP_V4L2]
    assert asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 64),
        (cv2.CAP_PROP_FRAME_HEIGHT, 48),
        (cv2.CAP_PROP_FPS, 30.0),
    ]
    assert frame.pixel_format == "MJPG"


@pytest.mark.parametrize(("code", "name"), [(0.0, "BGR8"), (-1.0, "BGR8"), (1196444237.0, "MJPG"), (22.0, "BGR8")])
def test_the_name_of_a_format(code: float, name: str) -> None:
    assert fourcc_name(FakeCapture(iter(()), {cv2.CAP_PROP_FOURCC: code})) == name
