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
    monkeypatch.setattr("sys.argv", ["latency.py", "--size", "160", "--pairs", "3", "--json", str(out)])
    script("latency").main()
    assert json.loads(out.read_text())["n"] == 3
    assert capsys.readouterr().out.startswith("160x160 px: p50 ")


def test_latency_of_a_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "latency.json"
    options = ["--engine", "vlm", "--shape", "tiny", "--random-weights", "--pairs", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", ["latency.py", *options, "--device", "cpu", "--dtype", "float32"])
    script("latency").main()
    report = json.loads(out.read_text())
    assert list(report["rows"]) == ["reference", "ok", "ng", "ng_drafted", "ng_described", "naive"]
    assert all(row["p50_ms"] > 0 and row["roofline_share"] is None for row in report["rows"].values())
    assert report["predicted"]["measured"] is False
    assert "naive: p50 " in capsys.readouterr().out
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    tiny = ["--engine", "vlm", "--shape", "tiny", "--random-weights"]
    for wrong, words in (
        (["--shape", "tiny"], "allowed together only"),
        (["--engine", "vlm", "--shape", "huge", "--random-weights"], "huge"),
        (["--engine", "lite", "--shape", "tiny", "--random-weights"], "allowed together only"),
        ([*tiny, "--pairs", "0"], "--pairs: got 0, allowed: 1 or more"),
        ([*tiny, "--device", "cuda"], "--device: got 'cuda', allowed here: cpu"),
    ):
        monkeypatch.setattr("sys.argv", ["latency.py", *wrong, "--json", str(out)])
        with pytest.raises(SystemExit) as caught:
            script("latency").main()
        assert caught.value.code == 2
        assert words in capsys.readouterr().err


def test_the_work_of_the_real_shape_is_that_of_the_published_count() -> None:
    roofline, shapes = (importlib.import_module(f"benchmarks.{name}") for name in ("roofline", "vlm_shape"))
    shape = shapes.load_shape("qwen3-vl-2b")
    work = roofline.Work(shape.config, 2500, 694, 640)
    assert work.vision_flops / 1e12 == pytest.approx(2.258, abs=0.02)  # one frame folded: a little less
    assert work.prefill_flops(640, 694) / 1e12 == pytest.approx(1.953, abs=0.001)
    assert work.step_bytes / 1e9 == pytest.approx(3.59, abs=0.01)
    assert work.layer_weights == pytest.approx(1.41e9, rel=0.01)


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


def test_papers_put_ours_beside_the_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = FOLDER / "results" / "deeppcb_one.json"
    out = tmp_path / "tables.md"
    assert script("papers").main([f"DeepPCB={report}", "--out", str(out)]) == 0
    tables = dict(part.split("\n", 1) for part in out.read_text().split("### ")[1:])
    deeppcb = tables["DeepPCB"].splitlines()
    assert "| DifferAD-R1 (published) | mean of classes | | 36.53 | not given | 63.41 | 76.44 |" in deeppcb
    macro = json.loads(report.read_text())["macro"]
    cells = " | ".join(f"{100 * macro[name]:.2f}" for name in ("miou", "miou_ano", "acc", "f1"))
    assert f"| lite on deeppcb_one (ours) | mean of classes | 309 | {cells} |" in deeppcb
    assert "| ours | mean of classes | | not run | not run | not run | not run |" in tables["MVTec AD"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("word", ["nonsense", "Nothing={report}", "DeepPCB=missing.json", "DeepPCB={torn}"])
def test_papers_name_what_they_cannot_read(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn.json").write_text('{"n": 3}')
    given = word.format(report=FOLDER / "results" / "deeppcb_one.json", torn=tmp_path / "torn.json")
    assert script("papers").main([given]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: report: ")
    assert given.partition("=")[2] in said
