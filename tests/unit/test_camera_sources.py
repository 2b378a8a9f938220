"""Camera sources: what a text stands for, and what is wrong with one that stands for nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from camera_fakes import write_images, write_video

import differad_edge.cameras
from differad_edge.cameras import Camera, CameraInfo, camera_schemes, create_camera
from differad_edge.cameras.arrivals import natural_key
from differad_edge.cameras.source import shown
from differad_edge.errors import CameraError, CameraNotFoundError, ConfigError, DifferadError


class PluginCamera:
    def __init__(self, source: str) -> None:
        self.source = source

    def open(self) -> CameraInfo:
        return CameraInfo("plugin", self.source, "P1", live=True)

    def read(self, timeout_ms: float) -> None: ...

    def close(self) -> None: ...


def failing_plugin(source: str) -> None:
    raise RuntimeError("no licence")


def wrong_plugin(source: str) -> str:
    return source


def refusing_plugin(source: str) -> None:
    raise CameraNotFoundError("no such device")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        EntryPoint(name, f"{__name__}:{target}", "differad_edge.cameras")
        for name, target in [
            ("acme", "PluginCamera"), ("broken", "failing_plugin"), ("refusing", "refusing_plugin"),
            ("wrong", "wrong_plugin"), ("gone", "nowhere"),
        ]
    )  # fmt: skip
    monkeypatch.setattr(differad_edge.cameras, "entry_points", lambda group, **only: points.select(group=group, **only))


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("0", "LiveCamera"),
        ("12?size=1280x960&rate_hz=30&format=MJPG", "LiveCamera"),
        ("/dev/video0", "LiveCamera"),
        ("/dev/v4l/by-id/usb-046d_C920_1A2B-video-index0", "LiveCamera"),
        ("rtsp://user:p%40ss@10.0.0.7:8554/stream?channel=1&subtype=0", "LiveCamera"),
        ("RTSPS://10.0.0.7/x", "LiveCamera"),
        ("http://[::1]:8080/video.mjpg", "LiveCamera"),
        ("https://camera.local/video.mp4", "LiveCamera"),
        ("recording.MP4", "VideoCamera"),
        ("recording.avi?loop=1&rate_hz=5", "VideoCamera"),
        ("recording.mkv", "VideoCamera"),
        ("folder/", "FolderCamera"),
        ("folder/?loop=1&rate_hz=2.5", "FolderCamera"),
        ("shots/*.png", "FolderCamera"),
        ("part.jpeg", "FolderCamera"),
        ("folder/?watch=1&settle_ms=50", "DropFolderCamera"),
        ("sim:gasket", "SimulatedCamera"),
        ("sim:label?defect_rate=0.2&rate_hz=5&size=128&seed=1&count=100&pool=4&serial=A&script=torn@3,unplug@5:2s",
         "SimulatedCamera"),
    ],
)  # fmt: skip
def test_what_a_source_stands_for(source: str, kind: str) -> None:
    camera = create_camera(source)
    assert isinstance(camera, Camera)
    assert type(camera).__name__ == kind


def test_what_exists_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "folder", 1)
    write_images(tmp_path / "odd?name", 2)
    write_images(tmp_path / "sim:gasket", 3)
    monkeypatch.chdir(tmp_path)
    for source, count in (("folder", 1), ("odd?name", 2), ("sim:gasket", 3)):
        camera = create_camera(source)
        camera.open()
        assert [camera.read(100).sequence for _ in range(count)] == list(range(count))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("", CameraNotFoundError, "no such file or folder, allowed: an index, /dev/…"),
        ("no_such_thing", CameraNotFoundError, "'no_such_thing': no such file or folder"),
        ("ftp://a/b", ConfigError, "got the scheme 'ftp', allowed: .*rtsp, rtsps, http, https, sim"),
        ("rtsp:///x", ConfigError, "allowed: scheme://host:port/path"),
        ("rtsp://a:99999/x", ConfigError, "a port from 1 to 65535"),
        ("rtsp://a:port/x", ConfigError, "a port from 1 to 65535"),
        ("0?size=1280", ConfigError, "size: got '1280', allowed: WIDTHxHEIGHT"),
        ("0?format=MJPEG", ConfigError, "format: got 'MJPEG', allowed: four letters"),
        ("0?rate=3", ConfigError, "got the setting 'rate', allowed: size, rate_hz, format"),
        ("0?rate_hz=0", ConfigError, "rate_hz: got '0', allowed: a number above 0, at most 1000"),
        ("0?rate_hz=nan", ConfigError, "rate_hz: got 'nan'"),
        ("0?rate_hz=inf", ConfigError, "rate_hz: got 'inf'"),
        ("0?size", ConfigError, "got 'size', allowed: name=value&name=value"),
        ("0?size=1x1&size=2x2", ConfigError, "allowed: every setting once"),
        ("a.mp4?loop=often", ConfigError, "loop: got 'often', allowed: 1 or 0"),
        ("folder/?watch=1&loop=1", ConfigError, "got the setting 'loop', allowed: rate_hz, watch, settle_ms"),
        ("sim:", ConfigError, "product: got '', allowed: gasket, board, label"),
        ("sim:engine", ConfigError, "product: got 'engine', allowed: gasket, board, label"),
        ("sim:gasket?defect_rate=1.5", ConfigError, "defect_rate: got '1.5', allowed: a number from 0 to 1"),
        ("sim:gasket?defect_rate=-1", ConfigError, "defect_rate: got '-1'"),
        ("sim:gasket?size=64", ConfigError, "size: got '64', allowed: a whole number from 128 to 4096"),
        ("sim:gasket?seed=-1", ConfigError, "seed: got '-1', allowed: a whole number from 0"),
        ("sim:gasket?count=0", ConfigError, "count: got '0', allowed: a whole number from 1"),
        ("sim:gasket?count=1e3", ConfigError, "count: got '1e3'"),
        ("sim:gasket?pool=0&rate_hz=5", ConfigError, "pool: got 0, allowed: at least 1, and 0 without rate_hz"),
        ("sim:gasket?script=explode@3", ConfigError, "script: got the fault 'explode', allowed: unplug, absent"),
    ],
)
def test_what_stands_for_nothing_is_named_with_what_is_allowed(
    source: str, error: type[DifferadError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        create_camera(source)
    assert type(caught.value) is error


def test_a_missing_file_is_found_missing_when_it_is_opened(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.png", "folder/", "*.png"):
        camera = create_camera(f"{tmp_path}/{name}")
        with pytest.raises(CameraNotFoundError, match="allowed: "):
            camera.open()
    write_video(tmp_path / "a.avi", 1)
    create_camera(str(tmp_path / "a.avi")).open()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://admin:geheim@10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://admin@10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://a:p@ss@10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("http://h/v?user=admin&pwd=geheim&channel=1", "http://h/v?user=***&pwd=***&channel=1"),
        ("http://h/v?access_token=abc#x", "http://h/v?access_token=***#x"),
        ("rtsp://admin:ge/he#im?@10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://10.0.0.7/mail@home", "rtsp://home"),  # rather too little than a password
        ("/dev/v4l/by-id/usb-a@b", "/dev/v4l/by-id/usb-a@b"),
    ],
)
def test_what_is_shown_of_a_source_holds_no_secret(source: str, expected: str) -> None:
    assert shown(source) == expected


@pytest.mark.usefixtures("plugins")
class TestPlugins:
    def test_a_plugin_gets_the_whole_source(self) -> None:
        camera = create_camera("acme:bench-3?exposure_us=500")
        assert isinstance(camera, PluginCamera)
        assert camera.open().source == "acme:bench-3?exposure_us=500"
        assert camera_schemes() == (
            "rtsp",
            "rtsps",
            "http",
            "https",
            "sim",
            "basler",
            "aravis",
            "genicam",
            "acme",
            "broken",
            "gone",
            "refusing",
            "wrong",
        )

    @pytest.mark.parametrize(
        ("source", "error", "message"),
        [
            ("broken:1", CameraError, "'broken:1': its plugin failed: RuntimeError: no licence"),
            ("gone:1", CameraError, "its plugin failed: AttributeError"),
            ("wrong:1", CameraError, "its plugin gave str, allowed: a Camera with open, read and close"),
            ("refusing:1", CameraNotFoundError, "no such device"),
            ("other:1", ConfigError, "got the scheme 'other', allowed: .* genicam, acme, broken"),
        ],
    )
    def test_a_plugin_that_fails_is_named(self, source: str, error: type[DifferadError], message: str) -> None:
        with pytest.raises(error, match=message) as caught:
            create_camera(source)
        assert type(caught.value) is error


def test_names_are_sorted_as_people_count() -> None:
    names = ["part10.png", "Part2.png", "part1.png", "a.png", "10.png", "9.png", "part2b.png"]
    assert sorted(names, key=natural_key) == [
        "9.png", "10.png", "a.png", "part1.png", "Part2.png", "part2b.png", "part10.png",
    ]  # fmt: skip


def test_importing_the_cameras_loads_no_opencv() -> None:
    code = "import differad_edge.cameras, sys; print({'cv2', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
