"""What takes long and is asked for by several modules here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def write_beside(folder: Path) -> None:
    """What an export holds beside its graphs, for those who do not read it."""
    for name in ("tokenizer.json", "golden.npz"):
        (folder / name).write_bytes(b"")


@pytest.fixture(scope="session")
def random_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A random model and the folder of its export in float32; nobody may change either."""
    from students import QUESTION, student

    from differad_edge.export.onnx import write_export

    model, folder = student(5), tmp_path_factory.mktemp("export") / "out"
    write_export(model, QUESTION, folder, identity="x", mean=(0.5,) * 3, std=(0.5,) * 3, write_beside=write_beside)
    return model, folder


@pytest.fixture(scope="session")
def head_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """The same model with a random box head: model, head and folder; nobody may change any."""
    pytest.importorskip("onnxscript")
    from students import QUESTION, box_head, student

    from differad_edge.export.onnx import write_export

    model, head, folder = student(5), box_head(5), tmp_path_factory.mktemp("export") / "out"
    options: dict[str, Any] = {"identity": "x", "mean": (0.5,) * 3, "std": (0.5,) * 3, "box_head": head}
    write_export(model, QUESTION, folder, write_beside=write_beside, **options)
    return model, head, folder
