"""What several test modules share; `scenes` and `fakes` beside this file can be imported by all of them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from differad_edge.engines.lite import LiteEngine

if TYPE_CHECKING:
    from wire_fakes import Served


# Two emulated Basler cameras, for whoever has pylon: it looks at this when it first looks for cameras.
os.environ.setdefault("PYLON_CAMEMU", "2")


@pytest.fixture(scope="session")
def lite() -> LiteEngine:
    """The embedded engine, loaded once. One thread: results do not depend on the machine, nor the other tests on it."""
    return LiteEngine(threads=1)


@pytest.fixture
def closed_sockets() -> Iterator[None]:
    """Fails the test when a ZeroMQ socket or a thread outlives it."""
    from wire_fakes import nothing_left_open

    with nothing_left_open():
        yield


@pytest.fixture
def served(closed_sockets: None) -> Iterator[Served]:
    """A scripted line behind real sockets."""
    from wire_fakes import Served

    with Served() as served:
        yield served


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """`serve` sets up logging for its process; the next test wants the records for itself."""
    logger = logging.getLogger("differad_edge")
    kept = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)
