"""Industrial cameras without a camera: pylon's emulation, Aravis' GigE camera on loopback, a GenTL producer."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import pytest
from typing_extensions import Self

from differad_edge.errors import MissingSystemPackageError
from differad_edge.images import Image

_FAKE_GIGE = "arv-fake-gv-camera-0.8"


def need_pylon() -> None:
    """Skip where there is none. PYLON_CAMEMU is set in conftest."""
    pytest.importorskip("pypylon", reason="the extra 'cameras' is not installed")


def need_producer() -> Path:
    """The GenTL producer that comes with the Python package genicam; its cameras show a game."""
    pytest.importorskip("harvesters", reason="the extra 'cameras' is not installed")
    spec = importlib.util.find_spec("genicam")
    assert spec is not None
    assert spec.origin is not None
    producer = Path(spec.origin).parent / "viky.cti"
    if not producer.is_file():
        pytest.skip("this build of genicam has no viky.cti")
    return producer


def need_aravis() -> Any:
    """differad_edge.cameras.aravis; skips where scripts/system-packages could not install what it needs."""
    if shutil.which(_FAKE_GIGE) is None:
        pytest.skip(f"{_FAKE_GIGE} is not installed (scripts/system-packages)")
    try:
        import differad_edge.cameras.aravis as module
    except MissingSystemPackageError as error:
        pytest.skip(str(error))
    return module


class FakeGigE:
    """A GigE Vision camera of its own process on 127.0.0.1, where there can be one at a time.

    ``lost``: how many of a thousand of its stream's packets never arrive.
    """

    def __init__(self, serial: str = "GV01", *, lost: int = 0) -> None:
        self._find = need_aravis().aravis_ids
        self.id = f"Aravis-Fake-{serial}"
        self._command = [_FAKE_GIGE, "-i", "127.0.0.1", "-s", serial, "-r", str(lost)]
        self.start()

    def start(self) -> None:
        """Again, after `stop`."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.id in self._find(), 20)

    def stop(self) -> None:
        """As if somebody pulled its plug."""
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def wait_until(condition: Callable[[], Any], limit_s: float) -> None:
    """Fails after ``limit_s``."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


def write_parts(folder: Path, images: list[Image]) -> Path:
    """What an emulated Basler camera shows in turn, as it takes it: one file each, in order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"part{index:03d}.png"), image)
    return folder


def flat(value: int, size_px: tuple[int, int] = (64, 48)) -> Image:
    """HxWx3 of one grey."""
    return np.full((size_px[1], size_px[0], 3), value, np.uint8)
