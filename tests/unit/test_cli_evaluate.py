"""differad-edge evaluate: the report that checks from outside read, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import DEFECT, Pictures, run, use_engine

FIGURES = {"f1", "acc", "miou", "miou_ano", "tnr", "recall", "auroc"}


@pytest.fixture(autouse=True)
def pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products, each with a bad part and two good ones; the pictures lie as real sets have them."""
    root = tmp_path_factory.mktemp("set")
    rows = []
    for product in ("cap", "nut"):
        pictures = Pictures(root / "reference" / product)
        for name in ("bad", "good/0", "good/1"):
            target = root / "target" / product / f"{name.replace('/', '-')}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            (pictures.folder / f"{name}.png").rename(target)
            boxes = [list(DEFECT)] if name == "bad" else []
            rows.append(
                {
                    "id": f"{product}-{name}",
                    "product": product,
                    "reference": f"reference/{product}/golden.png",
                    "target": target.relative_to(root).as_posix(),
                    "boxes": boxes,
                    "label": "NG" if boxes else "OK",
                }
            )
        pictures.black.unlink()
        for file in pictures.good_folder.iterdir():
            file.rename(pictures.folder / f"g{file.name}")
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "set.json").write_text(json.dumps({"name": "small", "pair": "same_class"}))
    return root


def test_the_report_has_the_names_that_others_read(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    shown = run("evaluate", data, "--json", out)
    assert (shown.code, shown.err) == (0, "")
    report = json.loads(out.read_text())
    assert report["n"] == 6
    assert set(report["classes"]) == {"cap", "nut"}
    for entry in (report["micro"], report["macro"], *report["classes"].values()):
        assert set(entry) >= FIGURES | {f"{name}_ci" for name in FIGURES}
        assert (entry["auroc"], entry["auroc_ci"]) == (1.0, [1.0, 1.0])
    assert set(report["detection"]) >= {"f", "precision", "recall", "ap"}
    assert (report["threshold"], report["engine"]) == (0.5, "pixel")
    assert report["machine"]["logical_cores"] >= 1
    assert (report["micro"]["recall"], report["micro"]["tnr"], report["detection"]["f"]) == (1.0, 1.0, 1.0)


def test_the_tables_show_every_figure_with_its_interval(data: Path) -> None:
    shown = run("evaluate", data)
    assert shown.code == 0
    for words in ("small: 6 of 6 pairs", "threshold 0.5000", "macro", "micro", "IoU > 0.33", "1.000 to 1.000"):
        assert words in shown.out
    for name in FIGURES:
        assert name in shown.out


def test_json_on_standard_output_is_one_object_and_nothing_else(data: Path) -> None:
    shown = run("evaluate", data, "--json", "-")
    assert (shown.code, shown.err) == (0, "")
    assert json.loads(shown.out)["n"] == 6


def test_limit_and_sheet(data: Path, tmp_path: Path) -> None:
    shown = run("evaluate", data, "--limit", "2", "--sheet", tmp_path / "sheet.html")
    assert shown.code == 0
    assert "small: 2 of 6 pairs" in shown.out
    assert (tmp_path / "sheet.html").read_text().startswith("<!doctype html>")


def test_calibration_uses_good_parts_of_the_set_and_a_store_of_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFERAD_STORE", str(tmp_path / "mine"))
    shown = run("evaluate", data, "--calibrate", "2", "--json", tmp_path / "report.json")
    assert shown.code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["calibrate"]["products"]["cap"]["mode"] == "registered"
    assert len(report["calibrate"]["products"]["cap"]["references"]) == 2
    assert "cap: registered, 2 good parts" in shown.out
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/none"], "error [invalid-pairs]: {folder}/none: not a folder; allowed: a folder with pairs.jsonl"),
        (["{folder}"], "error [invalid-pairs]: {folder}/pairs.jsonl"),
        (["{data}", "--limit", "0"], "error [invalid-config]: limit: got 0, allowed: at least 1"),
        (["{data}", "--calibrate", "0"], "error [invalid-config]: calibrate_n: got 0, allowed: at least 1"),
        (["{data}", "--json", "{folder}/no/out.json"], "error [invalid-config]: --json: got '{folder}/no/out.json'"),
        (["{data}", "--sheet", "-"], "error [invalid-config]: --sheet: got '-', allowed: a file"),
    ],
)
def test_bad_input_is_named_in_one_line(data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    words = {"folder": tmp_path, "data": data}
    shown = run("evaluate", *(argument.format(**words) for argument in arguments))
    assert (shown.code, shown.out) == (2, "")
    assert shown.error.startswith(message.format(**words))
