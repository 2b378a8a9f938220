"""What the ROS tests share. Without rclpy those that need it are skipped; the others need no ROS at all."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ros_process import Cell

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "ros" / "differad_edge_ros")]

# Nothing leaves the machine, and test runs side by side do not hear each other.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(20 + os.getpid() % 80)
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(ROOT / "ros" / "differad_edge_ros" / "config" / "fastdds.xml")

HAS_ROS = importlib.util.find_spec("rclpy") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "cell" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def cell() -> Iterator[Cell]:
    """A place for node processes, and a camera and a listener in this one."""
    if not HAS_ROS:
        pytest.skip("rclpy is not installed: pip install 'differad-edge[ros]'")
    from ros_process import Cell

    with Cell() as cell:
        yield cell


@pytest.fixture(scope="session")
def installed() -> Path:
    """Where colcon has installed the packages below ros/, and vision_msgs; kept in build/ until they change."""
    if not HAS_ROS:
        pytest.skip("rclpy is not installed: pip install 'differad-edge[ros]'")
    if importlib.util.find_spec("colcon_ros") is None or not (shutil.which("cmake") and shutil.which("g++")):
        pytest.skip("nothing can be built: pip install 'differad-edge[ros-build]', and scripts/system-packages")
    sources = [ROOT / "ros", ROOT / "tests" / "ros" / "vision_msgs"]
    digest = hashlib.sha256(sys.version.encode())
    for source in sources:
        for file in sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            digest.update(file.read_bytes())
    prefix = ROOT / "build" / f"ros-{digest.hexdigest()[:12]}"
    if not (prefix / "complete").exists():
        subprocess.run(
            [str(ROOT / "ros" / "colcon_build"), str(prefix), *map(str, sources)],
            env={**os.environ, "PYTHON": sys.executable},
            check=True,
        )
        (prefix / "complete").touch()
    return prefix
