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
def messages() -> Path:
    """Where differad_edge_msgs and vision_msgs are built; kept in build/ until their definitions change."""
    if not HAS_ROS:
        pytest.skip("rclpy is not installed: pip install 'differad-edge[ros]'")
    if importlib.util.find_spec("rosidl_adapter") is None or not (
        Path(sys.prefix, "share", "rosidl_default_generators").is_dir() and shutil.which("cmake")
    ):
        pytest.skip("message packages cannot be built: pip install 'differad-edge[ros-build]', and cmake and g++")
    sources = [ROOT / "ros" / "differad_edge_msgs", ROOT / "tests" / "ros" / "vision_msgs"]
    digest = hashlib.sha256(sys.version.encode())
    for source in sources:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            digest.update(file.read_bytes())
    prefix = ROOT / "build" / f"ros-messages-{digest.hexdigest()[:12]}"
    if not (prefix / "complete").exists():
        for source in sources:
            subprocess.run(
                [str(ROOT / "ros" / "build_messages"), str(source), str(prefix)],
                env={**os.environ, "PYTHON": sys.executable},
                check=True,
            )
        (prefix / "complete").touch()
    return prefix
