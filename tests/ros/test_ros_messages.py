"""As colcon builds it: typed results, detections, and the services inspect, register, select_product."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'differad-edge[ros]'")

from ros_process import ROOT, environment
from scenes import Scene

from differad_edge import EdgeInspector
from differad_edge.results import Box

if TYPE_CHECKING:
    from ros_process import Cell

pytestmark = pytest.mark.slow


def test_a_robot_program_sees_typed_results_and_services(cell: Cell, installed: Path, tmp_path: Path) -> None:
    scene, box = Scene(3), Box(100, 80, 150, 120)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), scene.reference)
    cv2.imwrite(str(bad), scene.with_defect(box).reference)
    with EdgeInspector(store=tmp_path / "store", engine="lite", threads=1) as inspector:
        inspector.register("board", [good])
    params = {"store": str(tmp_path / "store"), "product": "board", "threads": 1, "autostart": True}
    cell.start(params, installed=installed)
    probe = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("typed_probe.py")), str(good), str(bad)],
        env=environment(installed, ROOT / "tests"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert probe.returncode == 0, probe.stderr
    told = json.loads(probe.stdout.splitlines()[-1])
    assert told["registered"] == [True, ["ref-001"]]
    assert not told["unknown"][0]
    assert told["unknown"][1].startswith("unknown-product: ")
    assert (told["selected"], told["answers"], told["same"]) == (True, [True] * 3, [True] * 3)
    assert told["unset"] == 0
    assert told["verdicts"] == [3, 2, 1]
    assert told["products"] == ["board-2"] * 3
    assert told["sequences"] == [1, 2, 3]
    assert told["stamps"] == [1_700_000_000_000_000_000 + number * 100_000_000 for number in (1, 2, 3)]
    assert told["reasons"] == ["", "", "bad-frame"]
    assert told["classes"] == [[], ["defect"] * len(told["findings"][1]), ["undecided"]]
    x1, y1, x2, y2 = told["findings"][1][0]
    assert told["boxes"][1][0] == [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    assert x1 < box.center[0] < x2
    assert y1 < box.center[1] < y2


def test_what_colcon_installs_is_what_launch_and_rosdep_look_for(installed: Path) -> None:
    share = installed / "share" / "differad_edge_ros"
    assert (installed / "share/ament_index/resource_index/packages/differad_edge_ros").is_file()
    assert {file.name for file in share.rglob("*") if file.is_file()} >= {
        "package.xml",
        "cell.launch.py",
        "cell.rviz",
        "cell.yaml",
        "fastdds.xml",
    }
