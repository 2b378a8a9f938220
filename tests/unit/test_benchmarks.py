"""The scripts in benchmarks/: what they write and where."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from commands import DEFECT, Pictures, use_engine

FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch)


def test_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "latency.json"
    monkeypatch.setattr("sys.argv", ["latency.py", "--size", "160", "--pairs", "3", "--out", str(out)])
    script("latency").main()
    assert json.loads(out.read_text())["n"] == 3
    assert "at 160x160 px" in capsys.readouterr().out


def test_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Pictures(tmp_path / "set")
    row = {"id": "a", "product": "p", "reference": "golden.png", "target": "bad.png", "boxes": [DEFECT], "label": "NG"}
    (tmp_path / "set" / "pairs.jsonl").write_text(json.dumps(row))
    (tmp_path / "set" / "set.json").write_text(json.dumps({"name": "two words/and a slash"}))
    for options, name in (([], ""), (["--calibrate", "2"], "-calibrate-2")):
        monkeypatch.setattr(
            "sys.argv", ["accuracy.py", str(tmp_path / "set"), "--out", str(tmp_path / "out"), *options]
        )
        script("accuracy").main()
        report = json.loads((tmp_path / "out" / f"two-words-and-a-slash{name}.json").read_text())
        assert (report["n"], report["micro"]["recall"]) == (1, 1.0)
    assert "1 pairs, f1 1.000, acc 1.000, tnr -, F 1.000" in capsys.readouterr().out
