"""The tutorials of docs/CAMERAS.md, run as they are written, with pylon's emulated camera."""

from __future__ import annotations

import csv
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from device_cameras import need_pylon

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "CAMERAS.md"
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(title: str, folder: Path) -> str:
    """Writes the section's Python blocks into ``folder`` and gives its commands as one shell script."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## Tutorial: {title}\n")[1].split("\n## ")[0]
    lines: list[str] = []
    for language, text in _BLOCK.findall(section):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name is not None
            (folder / name[1]).write_text(text, encoding="utf-8")
        else:
            lines += [re.sub(r"^\$ ", "", line) for line in text.splitlines()]
    return "\n".join(["set -e", *lines])


def run(text: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYLON_CAMEMU": "1", "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the first tutorial, and what it printed."""
    need_pylon()
    for port in (5570, 5571):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"a server runs on this machine at the default port {port}")
    folder = tmp_path_factory.mktemp("basler")
    return folder, run(script("a Basler camera", folder), folder)


def test_a_basler_camera(line: tuple[Path, str]) -> None:
    folder, printed = line
    assert re.search(r"cameras basler +ok +connected: 0815-0000", printed)
    said = [text for text in printed.splitlines() if text.startswith("part-")]
    assert said == [f"part-{number} {'NG' if number == 3 else 'OK'}  0815-0000" for number in range(4)]
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["part_id"], row["verdict"]) for row in rows] == [
        ("part-0", "OK"), ("part-1", "OK"), ("part-2", "OK"), ("part-3", "NG"),
    ]  # fmt: skip


def test_embed_in_robot_code(line: tuple[Path, str]) -> None:
    folder, _ = line
    printed = run(script("embed in robot code", folder), folder)
    actions = re.findall(r"^part (\d): (\w+)$", printed, re.MULTILINE)
    assert actions == [("0", "tray"), ("1", "tray"), ("2", "tray"), ("3", "bin")]
    assert printed.count("Box(") == 1
