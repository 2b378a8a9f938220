"""describe_machine: from written-down proc and sys files, and on the machine at hand."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest

from differad_edge.machine import describe_machine


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_it_is_json_and_names_the_versions() -> None:
    machine = json.loads(json.dumps(describe_machine(), allow_nan=False))
    assert machine["numpy"] == np.__version__
    assert machine["python"] == platform.python_version()
    assert machine["logical_cores"] >= machine["usable_cores"] > 0
    assert machine["opencv"]
    assert machine["onnxruntime"]


def test_it_does_not_name_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "line7-pc-of-plant-3")
    assert (platform.node() or "-") not in json.dumps(describe_machine())


def test_an_x86_machine(tmp_path: Path) -> None:
    write(
        tmp_path,
        "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Some CPU @ 2.50GHz\n\nprocessor\t: 1\nmodel name\t: x\n",
    )
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    write(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t Some GPU\nIRQ: 4\n")
    machine = describe_machine(tmp_path)
    assert (machine["cpu"], machine["memory_gib"], machine["gpus"]) == ("Some CPU @ 2.50GHz", 16.0, ["Some GPU"])


def test_a_container_is_described_by_its_limits(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "2147483648\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000\n")
    machine = describe_machine(tmp_path)
    assert (machine["memory_gib"], machine["usable_cores"]) == (2.0, 0.5)


def test_a_single_board_computer_without_a_model_name(tmp_path: Path) -> None:
    write(tmp_path, "proc/device-tree/model", "Some Board Rev 1.0\0")
    write(tmp_path, "proc/cpuinfo", "processor : 0\nCPU architecture: 8\n")
    assert describe_machine(tmp_path)["board"] == "Some Board Rev 1.0"


def test_a_machine_without_proc_still_gets_a_description(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path)
    assert machine["gpus"] == []
    assert machine["board"] is None
    assert machine["python"]
