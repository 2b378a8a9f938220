"""The tutorial "a ROS 2 cell", run as it is written in ros/README.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'differad-edge[ros]'")

from conftest import ROOT
from scenes import Scene

from differad_edge.results import Box

pytestmark = pytest.mark.slow


def blocks() -> list[tuple[str, str]]:
    """Language and text of every block of the tutorial."""
    text = (ROOT / "ros" / "README.md").read_text(encoding="utf-8")
    tutorial = text.split("## Tutorial: a ROS 2 cell\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", tutorial, flags=re.DOTALL)


def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    scene = Scene(3)
    cv2.imwrite(str(tmp_path / "golden.png"), scene.reference)
    cv2.imwrite(str(tmp_path / "good.png"), scene.seen(shift=(2.0, 1.0)))
    cv2.imwrite(str(tmp_path / "bad.png"), scene.with_defect(Box(100, 80, 150, 120)).reference)
    (tmp_path / "ros").symlink_to(ROOT / "ros")
    found = blocks()
    (program,) = (text for language, text in found if language == "python")
    (tmp_path / "robot.py").write_text(program, encoding="utf-8")
    steps = [text for language, text in found if language == "sh"]
    assert len(steps) == 5
    script = "set -e\ntrap 'kill $NODE 2>/dev/null || true' EXIT\n" + "\n".join(steps)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good.png OK" in done.stdout.splitlines()
    assert "bad.png NG" in done.stdout.splitlines()
