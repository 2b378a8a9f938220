"""What the figures were measured on. Every report carries it, because a latency without its machine says nothing."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["describe_machine"]

# Several distributions provide the same module; the first one that is installed is named.
_PACKAGES = {
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"),
}
_GIB = 2**30


def describe_machine(root: Path = Path("/")) -> dict[str, Any]:
    """Describe this machine in plain JSON types, without its name, users or paths; what cannot be told is None.

    Keys: ``cpu`` (model), ``board`` (of a single-board computer), ``logical_cores``, ``usable_cores`` (after affinity
    and container quota), ``memory_gib`` (after a container's limit), ``gpus`` (models of NVIDIA cards), ``os``,
    ``architecture``, ``python``, and the versions of ``numpy``, ``opencv`` and ``onnxruntime``. Nothing heavy is
    imported and no program is run. ``root`` is where proc and sys lie, for tests.
    """
    return {
        "cpu": _cpu_model(root),
        "board": _read(root / "proc/device-tree/model"),
        "logical_cores": os.cpu_count(),
        "usable_cores": _usable_cores(root),
        "memory_gib": _memory_gib(root),
        "gpus": _gpus(root),
        "os": f"{platform.system()} {platform.release()}".strip() or None,
        "architecture": platform.machine() or None,
        "python": platform.python_version(),
        **{name: _version(candidates) for name, candidates in _PACKAGES.items()},
    }


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def _field(text: str | None, name: str) -> str | None:
    """The value of the first ``name : value`` line."""
    for line in (text or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == name and value.strip():
            return value.strip()
    return None


def _cpu_model(root: Path) -> str | None:
    text = _read(root / "proc/cpuinfo")
    for name in ("model name", "hardware", "cpu model"):  # x86, older ARM, MIPS
        model = _field(text, name)
        if model:
            return model
    return platform.processor() or None


def _usable_cores(root: Path) -> float | None:
    """Cores that this process may use; a quota of a container may leave a fraction of one."""
    count: float | None = os.cpu_count()
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
    quota, _, period = (_read(root / "sys/fs/cgroup/cpu.max") or "").partition(" ")
    if count is not None and quota.isdigit() and period.isdigit() and int(period) > 0:
        count = min(count, round(int(quota) / int(period), 2))
    return count


def _memory_gib(root: Path) -> float | None:
    total: int | None = None
    kilobytes = (_field(_read(root / "proc/meminfo"), "memtotal") or "").split(" ")[0]
    if kilobytes.isdigit():
        total = int(kilobytes) * 1024
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _read(root / "sys/fs/cgroup/memory.max") or ""
    if total is not None and limit.isdigit():
        total = min(total, int(limit))
    return None if total is None else round(total / _GIB, 1)


def _gpus(root: Path) -> list[str]:
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    return [model for model in (_field(_read(file), "model") for file in files) if model]


def _version(candidates: tuple[str, ...]) -> str | None:
    for distribution in candidates:
        try:
            return f"{metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    return None
