"""The front door: what it shows, and how little it loads."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import differad_edge
from differad_edge import errors, results

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = {"cv2", "onnxruntime", "torch", "numpy", "pydantic", "yaml", "typer", "rich"}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``code``."""
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_but_itself() -> None:
    loaded = loaded_by("import differad_edge")
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("differad_edge")} == {"differad_edge"}


def test_results_and_errors_come_without_opencv_engine_or_runtime() -> None:
    loaded = loaded_by("from differad_edge import Verdict, InspectionResult, DifferadError")
    assert loaded & HEAVY == set()
    assert not any(name.startswith("differad_edge.engines") for name in loaded)


def test_all_names_are_there_and_are_what_their_module_defines() -> None:
    for name in differad_edge.__all__:
        value = getattr(differad_edge, name)
        if name != "__version__":
            assert getattr(importlib.import_module(value.__module__), name) is value
    assert set(differad_edge.__all__) <= set(dir(differad_edge))


def test_all_holds_every_error_and_the_result_types() -> None:
    expected = {*errors.__all__, *results.__all__, "EdgeInspector", "__version__"} - {"SCHEMA_VERSION"}
    assert set(differad_edge.__all__) == expected
    assert differad_edge.__all__ == sorted(differad_edge.__all__)


@pytest.mark.parametrize("path", sorted((ROOT / "differad_edge").rglob("*.py")), ids=lambda path: path.stem)
def test_every_all_names_only_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not re.search(r"^__all__ = ", text, re.MULTILINE):
        return
    parts = path.relative_to(ROOT).with_suffix("").parts
    try:
        module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    except (errors.MissingExtraError, errors.MissingSystemPackageError) as error:
        pytest.skip(str(error))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert len(set(module.__all__)) == len(module.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'differad_edge' has no attribute 'Inspector'"):
        _ = differad_edge.Inspector


def test_the_version_is_that_of_the_changelog() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1] == differad_edge.__version__


@pytest.mark.slow
def test_the_package_imports_in_less_than_0_3_s() -> None:
    def best_s(code: str) -> float:
        script = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
        runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, check=True) for _ in range(3)]
        return min(float(run.stdout) for run in runs)

    assert best_s("import differad_edge") < 0.3
