"""Golden samples from a camera, and `differad-edge register --camera`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from camera_fakes import FakeDriver, picture, slowly, write_images
from commands import run, use_engine

from differad_edge.cameras import create_camera, snapshot
from differad_edge.cameras.live import LiveCamera
from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.cameras.snapshot import golden_samples
from differad_edge.errors import CameraError, CameraNotFoundError
from differad_edge.references import ReferenceStore


@pytest.fixture(autouse=True)
def _pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch)


def test_frames_of_a_live_camera_that_is_still_settling_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_SETTLE_MS", 100.0)

    def pictures() -> Iterator[object]:
        for value in range(1, 200):
            yield None if value % 3 else picture(value)

    camera = LiveCamera("fake", "fake", lambda: FakeDriver(slowly(pictures())))
    first, second = golden_samples(camera, 2)
    assert int(second[-1, 0, 0]) > int(first[-1, 0, 0]) >= 9


def test_torn_frames_are_passed_over_and_the_camera_is_closed(tmp_path: Path) -> None:
    write_images(tmp_path, 3)[0].write_bytes(b"")
    camera = create_camera(str(tmp_path))
    assert [int(image[-1, 0, 0]) for image in golden_samples(camera, 2)] == [20, 30]
    with pytest.raises(CameraError, match="not open"):
        camera.read(1)


def test_only_torn_frames_are_an_error(tmp_path: Path) -> None:
    for file in write_images(tmp_path, 12):
        file.write_bytes(b"")
    with pytest.raises(CameraError, match="10 frames in a row cannot be used"):
        golden_samples(create_camera(str(tmp_path)), 1)


def test_a_camera_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CameraNotFoundError):
        golden_samples(create_camera(f"{tmp_path}/none/"), 1)


class TestRegister:
    def test_a_simulated_camera_gives_its_golden_sample(self, tmp_path: Path) -> None:
        shown = run("register", "g", "--camera", "sim:gasket?size=192&seed=3", "--store", tmp_path)
        assert (shown.code, shown.err) == (0, "")
        (reference,) = ReferenceStore(tmp_path).load("g").references
        np.testing.assert_array_equal(reference.image, SimulatedProduct("gasket", 192, seed=3).golden())
        expected = f"differad-edge serve --camera 'sim:gasket?size=192&seed=3' --product g --store {tmp_path}"
        assert expected in shown.out.replace("\n", " ").replace("  ", " ")

    def test_several_frames(self, tmp_path: Path) -> None:
        shown = run("register", "g", "--camera", "sim:gasket?size=192", "--frames", "3", "--store", tmp_path)
        assert shown.code == 0
        assert len(ReferenceStore(tmp_path).load("g").references) == 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--camera", "sim:engine"], "error [invalid-config]: product: got 'engine'"),
            (["--camera", "nothing"], "error [camera-not-found]: camera 'nothing': no such file or folder"),
            ([], "error [invalid-config]: golden samples: got neither images nor --camera, allowed: one of the two"),
            (["a.png", "--camera", "0"], "error [invalid-config]: golden samples: got images and --camera, allowed"),
        ],
    )
    def test_bad_input_is_named(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        shown = run("register", "g", *arguments, "--store", tmp_path)
        assert (shown.code, shown.out) == (2, "")
        assert shown.error.startswith(message)
