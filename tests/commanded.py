"""A process that a test tells what to do, a line at a time, and that answers in lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class CommandedProcess:
    """Runs the Python script ``script`` with ``arguments``; it ends when its standard input is closed."""

    def __init__(self, script: Path, *arguments: str) -> None:
        self._name = script.name
        self._process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()

    def _send(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._name} ended"
        return line.strip()
