"""docs/OUTPUTS.md, "A line with a PLC": its files and commands, as written, one after the other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from output_fakes import free_port

DOCUMENT = Path(__file__).parents[2] / "docs" / "OUTPUTS.md"
BLOCK = re.compile(r"```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## A line with a PLC\n")[2]
    # As written, but for the port: another test may have the same one at this moment.
    section = section.replace("5020", str(free_port()))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["OMP_NUM_THREADS"] = "1"
    said: list[str] = []
    server: subprocess.Popen[bytes] | None = None
    try:
        for block in BLOCK.finditer(section):
            if block["kind"] == "yaml":
                (tmp_path / "line.yaml").write_text(block["text"], encoding="utf-8")
            elif block["kind"] == "python":
                (tmp_path / "plc.py").write_text(block["text"], encoding="utf-8")
            for command in re.findall(r"^\$ (.*)$", block["text"], re.MULTILINE):
                if " serve " in command:
                    with (tmp_path / "serve.log").open("wb") as log:
                        server = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=tmp_path, env=environment,
                                                  stderr=log)  # fmt: skip
                    _wait_for(tmp_path / "serve.log", "ready: main inspects gasket", server)
                else:
                    ran = subprocess.run(
                        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True,
                        timeout=120, check=False,
                    )  # fmt: skip
                    assert ran.returncode == 0, (command, ran.stderr)
                    said += ran.stdout.splitlines()
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    parts = [line for line in said if line.startswith("part ")]
    assert [line.split(":")[0] for line in parts] == [f"part {number}" for number in range(1, 6)], said
    assert all(re.fullmatch(r"part \d: (pass|fail), score [\d.]+, sequence \d", line) for line in parts), parts


def _wait_for(log: Path, text: str, server: subprocess.Popen[bytes]) -> None:
    import time

    give_up_s = time.monotonic() + 120
    while text not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < give_up_s, log.read_text()
        time.sleep(0.05)
