"""Frames from files: order, pace, loops, and folders that images are dropped into."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest
from camera_fakes import FakeClock, picture, values, write_images, write_video

from differad_edge.cameras import Camera, create_camera
from differad_edge.cameras.folder import DropFolderCamera, FolderCamera
from differad_edge.cameras.video import VideoCamera
from differad_edge.errors import CameraEndedError, CameraTimeoutError


def read(camera: Camera, count: int) -> list[int]:
    return values([camera.read(1000) for _ in range(count)])


class TestFolder:
    def test_natural_order_and_then_the_end(self, tmp_path: Path) -> None:
        write_images(tmp_path, 11)
        (tmp_path / "notes.txt").write_text("no image")
        (tmp_path / ".hidden.png").write_bytes(b"")
        (tmp_path / "sub.png").mkdir()
        camera = create_camera(str(tmp_path))
        info = camera.open()
        assert (info.kind, info.live, info.serial, info.simulated) == ("folder", False, tmp_path.name, False)
        assert read(camera, 11) == [10 * value for value in range(1, 12)]
        for _ in range(2):
            with pytest.raises(CameraEndedError, match="its 11 images"):
                camera.read(0)
        camera.open()
        assert read(camera, 1) == [10]

    def test_a_loop_begins_again(self, tmp_path: Path) -> None:
        write_images(tmp_path, 2)
        camera = create_camera(f"{tmp_path}?loop=1")
        camera.open()
        assert read(camera, 5) == [10, 20, 10, 20, 10]

    def test_a_pattern_and_a_single_image(self, tmp_path: Path) -> None:
        write_images(tmp_path, 11)
        for source, expected in (("part1*.png", [10, 100, 110]), ("part3.png", [30])):
            camera = create_camera(str(tmp_path / source))
            camera.open()
            assert read(camera, len(expected)) == expected

    @pytest.mark.parametrize("kind", ["folder", "video"])
    def test_a_rate_spaces_frames_and_a_late_reader_gets_no_burst(self, tmp_path: Path, kind: str) -> None:
        write_images(tmp_path, 11)
        clock = FakeClock()
        camera: Camera = FolderCamera(str(tmp_path), rate_hz=10, clock=clock)
        if kind == "video":
            camera = VideoCamera(write_video(tmp_path / "a.avi", 11), rate_hz=10, clock=clock)
        assert not camera.open().live
        start = clock.ns
        times = []
        for _ in range(3):
            camera.read(1000)
            times.append(clock.ns - start)
        assert times == [0, 100_000_000, 200_000_000]
        with pytest.raises(CameraTimeoutError, match="no frame within 30 ms; the next is due in 100 ms"):
            camera.read(30)
        clock.ns += 1_000_000_000
        late = clock.ns
        camera.read(1000)
        camera.read(1000)
        camera.read(1000)
        assert clock.ns - late >= 100_000_000


class TestVideo:
    def test_every_frame_once_and_then_the_end(self, tmp_path: Path) -> None:
        camera = create_camera(str(write_video(tmp_path / "a.avi", 12)))
        info = camera.open()
        assert (info.kind, info.live) == ("video", False)
        frames = [camera.read(1000) for _ in range(12)]
        assert values(frames) == [10 * value for value in range(1, 13)]
        assert [frame.sequence for frame in frames] == list(range(12))
        assert {frame.pixel_format for frame in frames} == {"MJPG"}
        for _ in range(2):
            with pytest.raises(CameraEndedError):
                camera.read(1000)

    def test_a_loop_begins_again_and_goes_on_counting(self, tmp_path: Path) -> None:
        camera = create_camera(f"{write_video(tmp_path / 'a.avi', 3)}?loop=1")
        camera.open()
        frames = [camera.read(1000) for _ in range(7)]
        assert values(frames) == [10, 20, 30, 10, 20, 30, 10]
        assert [frame.sequence for frame in frames] == list(range(7))


class TestDropFolder:
    def test_what_lies_there_comes_first_and_then_what_arrives(self, tmp_path: Path) -> None:
        for place, file in enumerate(write_images(tmp_path, 3)):
            os.utime(file, (1000 - place, 1000 - place))  # the last one is the oldest
        clock = FakeClock()
        camera = DropFolderCamera(tmp_path, settle_ms=200, clock=clock)
        assert not camera.open().live
        assert read(camera, 3) == [30, 20, 10]
        with pytest.raises(CameraTimeoutError, match="no new image within 500 ms"):
            camera.read(500)
        cv2.imwrite(str(tmp_path / "new.png"), picture(90))
        assert read(camera, 1) == [90]

    def test_a_file_renamed_into_place_comes_and_its_hidden_name_does_not(self, tmp_path: Path) -> None:
        camera = DropFolderCamera(tmp_path, settle_ms=200, clock=FakeClock())
        camera.open()
        cv2.imwrite(str(tmp_path / ".new.png"), picture(70))
        with pytest.raises(CameraTimeoutError):
            camera.read(2000)
        (tmp_path / ".new.png").rename(tmp_path / "new.png")
        assert read(camera, 1) == [70]

    def test_a_file_that_is_written_anew_comes_again(self, tmp_path: Path) -> None:
        camera = DropFolderCamera(tmp_path, settle_ms=200, clock=FakeClock())
        camera.open()
        for value in (50, 60, 70):
            cv2.imwrite(str(tmp_path / "latest.png"), picture(value))
            os.utime(tmp_path / "latest.png", (value, value))
            assert values([camera.read(3000)]) == [value]

    def test_opened_again_it_goes_on_with_what_is_new(self, tmp_path: Path) -> None:
        write_images(tmp_path, 2)
        camera = DropFolderCamera(tmp_path, settle_ms=1, clock=FakeClock())
        camera.open()
        assert len(read(camera, 2)) == 2
        camera.close()
        camera.open()
        with pytest.raises(CameraTimeoutError):
            camera.read(1500)
        cv2.imwrite(str(tmp_path / "new.png"), picture(90))
        assert read(camera, 1) == [90]

    def test_it_remembers_no_more_files_than_there_are(self, tmp_path: Path) -> None:
        camera = DropFolderCamera(tmp_path, settle_ms=1, clock=FakeClock())
        camera.open()
        for index in range(6):
            file = tmp_path / f"{index}.png"
            cv2.imwrite(str(file), picture(50))
            camera.read(3000)
            file.unlink()
        with pytest.raises(CameraTimeoutError):
            camera.read(1500)
        assert camera._arrivals._taken == {}
