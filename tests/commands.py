"""The command line in tests: run a command in this process, with an engine that needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import PixelEngine
from numpy.typing import NDArray
from scenes import Scene, planted
from typer.testing import CliRunner

from differad_edge.cli import app
from differad_edge.engines.base import Engine
from differad_edge.results import Box

DEFECT = Box(100, 80, 130, 104)
"""Where `Pictures.bad` has its defect, in pixels."""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error line; fails when standard error holds anything else."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error ["), self.err
        return lines[0]


def run(*arguments: object) -> Ran:
    """``differad-edge ARGUMENTS`` in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Ran(result.exit_code, result.stdout, result.stderr)


def use_engine(monkeypatch: pytest.MonkeyPatch, engine: Engine | None = None) -> Engine:
    """Every inspector that is made from now on has ``engine``, by default one that compares pixels."""
    chosen = PixelEngine() if engine is None else engine
    for module in ("differad_edge.inspector", "differad_edge.health"):
        monkeypatch.setattr(f"{module}.create_engine", lambda name, **_: chosen)
    return chosen


def save(file: Path, image: NDArray[np.uint8]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)
    return file


class Pictures:
    """Files of one product below ``folder``: golden.png, good/0.png to good/3.png, bad.png and black.png."""

    def __init__(self, folder: Path, goods: int = 4) -> None:
        scene = Scene(3)
        self.folder = folder
        self.golden = save(folder / "golden.png", scene.reference)
        self.good_folder = folder / "good"
        self.good: Sequence[Path] = [
            save(self.good_folder / f"{index}.png", scene.seen(shift=(2.0 + index, -1.5)))  # exposure stays
            for index in range(goods)
        ]
        self.bad = save(folder / "bad.png", planted(scene.reference, DEFECT))
        self.black = save(folder / "black.png", np.zeros_like(scene.reference))
        self.store = folder / "store"
