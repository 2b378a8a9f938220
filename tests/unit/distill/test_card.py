from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from differad_edge.errors import ConfigError
from distill.lite import defects, scenes
from distill.lite.card import main, write_card
from distill.lite.network import DifferenceNet
from distill.lite.photographs import PHOTOGRAPHS

FIRST = {"run": "one", "steps": 70, "batch": 12, "side_px": 160, "learning_rate": 0.002, "seed": 0, "steps_done": 45}
SECOND = {"run": "two", "steps": 35, "batch": 10, "side_px": 192, "learning_rate": 0.001, "seed": 1, "steps_done": 35}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    files = {}
    for name in ("lite-encode.onnx", "lite-compare.onnx"):
        content = name.encode() * 100_000
        (folder / name).write_bytes(content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_json(
        folder / "lite.json",
        {
            "files": files,
            "training": [FIRST, SECOND],
            "default_threshold": 0.6,
            "operating_point": {"pairs": 321, "f": 0.5, "true_normal_rate": 0.99},
        },
    )
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "two"
    folder.mkdir(parents=True)
    lines = [
        {"step": step, "seconds": 9, "loss": 0.5, "pixel_f1": step / 1000, "recall": None, "image_auroc": 0.987}
        for step in (20, 35)
    ]
    (folder / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return folder


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def report(**changes: Any) -> dict[str, Any]:
    one_box = {"f1": 0.9761, "f1_ci": [0.96, 0.99], "acc": 0.95, "acc_ci": [0.9, 1.0], "tnr": None, "tnr_ci": None}
    boxes = {"f": 0.91, "f_ci": [0.9, 0.92], "precision": 0.93, "recall": 0.89, "ap": 0.94}
    content = {"n": 309, "micro": one_box, "detection": boxes, "threshold": 0.6, "calibrate": None}
    return {**content, "annotation_margin_px": 8.0, **changes}


def change_manifest(models: Path, **changes: Any) -> None:
    manifest = json.loads((models / "lite.json").read_text())
    write_json(models / "lite.json", {k: v for k, v in {**manifest, **changes}.items() if v is not None})


def test_the_card_lists_every_source_and_kind(run: Path, models: Path) -> None:
    text = write_card(run, models)
    assert (models / "README.md").read_text(encoding="utf-8") == text
    for name, licence in PHOTOGRAPHS.items():
        assert f"| `{name}` | {licence} |" in text
    for draw, _ in (*defects.KINDS, *scenes.SIMPLE_SCENES, (scenes.assembly, 0)):
        assert f"| {draw.__name__.replace('_', ' ')} |" in text
    assert "No image of any evaluation set was used" in text
    assert "trained from scratch" in text
    assert "Not measured" in text


def test_the_card_identifies_the_files(run: Path, models: Path) -> None:
    text = write_card(run, models)
    for name in ("lite-encode.onnx", "lite-compare.onnx"):
        assert hashlib.sha256((models / name).read_bytes()).hexdigest() in text
    assert "| `lite-encode.onnx` | 1.60 MB |" in text
    assert f"{sum(p.numel() for p in DifferenceNet().parameters()):,} parameters" in text


def test_the_card_gives_the_recipe_and_the_commands_of_every_stage(run: Path, models: Path) -> None:
    text = write_card(run, models, notes=["The first stage ran by lamplight."])
    assert "| steps_done | 45 | 35 |" in text
    assert "The first stage ran by lamplight." in text
    first = "--steps 70 --batch 12 --side 160 --learning-rate 0.002 --seed 0"
    second = "--steps 35 --batch 10 --side 192 --learning-rate 0.001 --seed 1"
    commands = text[text.index("```console") :].splitlines()
    assert commands[2:7] == [
        f"python -m distill.lite.train --out runs/one {first}  # stopped after step 45",
        f"python -m distill.lite.train --out runs/two --init runs/one/checkpoint.pt {second}",
        "python -m distill.lite.export runs/two differad_edge/models",
        "python -m distill.lite.operating_point differad_edge/models",
        "python -m distill.lite.card runs/two differad_edge/models --results benchmarks/results",
    ]


def test_the_card_quotes_the_validation_of_the_shipped_step(run: Path, models: Path) -> None:
    assert "120 generated pairs" in (text := write_card(run, models))
    assert "pixel f1 0.035, recall n/a, image auroc 0.987" in text
    assert "0.6, read off 321 generated pairs" in text
    assert "f 0.500, true normal rate 0.990" in text


def test_reports_are_quoted_and_missing_ones_named(run: Path, models: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "results" / "deeppcb.json", report())
    write_json(tmp_path / "results" / "somebody_elses.json", report())
    text = write_card(run, models, results=tmp_path / "results")
    row = next(line for line in text.splitlines() if line.startswith("| deeppcb |"))
    assert row == (
        "| deeppcb | 309 | 0.976 [0.960, 0.990] | 0.950 [0.900, 1.000] | n/a | 0.910 [0.900, 0.920]"
        " | 0.930 | 0.890 | 0.940 |"
    )
    assert "deeppcb 8 px" in text
    assert "not claimed: deeppcb_one, hripcb." in text
    assert "somebody_elses" not in text
    assert "not claimed: deeppcb_one, deeppcb, hripcb." in write_card(run, models)


def test_tables_are_tables(run: Path, models: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "results" / "hripcb.json", report())
    lines = write_card(run, models, results=tmp_path / "results").splitlines()
    for above, line in pairwise(lines):
        if line.startswith("|") and above.startswith("|"):
            assert line.count("|") == above.count("|"), line
    assert "\n\n\n" not in "\n".join(lines)


def test_the_card_carries_no_path_of_this_machine(run: Path, models: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in write_card(run, models, results=tmp_path / "results")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0.5}, r"deeppcb.json: got figures at threshold 0.5, allowed: at the model's 0.6"),
        ({"threshold": None}, r"deeppcb.json: got figures at threshold None"),
        ({"calibrate": {"n": 5}}, r"deeppcb.json: got figures with calibrated thresholds"),
    ],
)
def test_a_report_of_another_model_is_refused(
    run: Path, models: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_json(tmp_path / "results" / "deeppcb.json", report(**changes))
    with pytest.raises(ConfigError, match=message):
        write_card(run, models, results=tmp_path / "results")
    assert not (models / "README.md").exists()


def test_files_that_are_not_the_manifests_are_refused(run: Path, models: Path) -> None:
    (models / "lite-compare.onnx").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"lite-compare.onnx: got SHA-256"):
        write_card(run, models)


def test_a_manifest_that_does_not_name_its_stages_is_refused(run: Path, models: Path) -> None:
    change_manifest(models, training=SECOND)
    with pytest.raises(ConfigError, match=r"training: got .* allowed: a list of stages; export again"):
        write_card(run, models)


def test_another_run_is_refused(run: Path, models: Path) -> None:
    with pytest.raises(ConfigError, match=r"run: got .*one, allowed: two"):
        write_card(run.parent / "one", models)


def test_a_run_that_went_on_since_is_refused(run: Path, models: Path) -> None:
    change_manifest(models, training=[FIRST, {**SECOND, "steps_done": 30}])
    with pytest.raises(ConfigError, match="no line of step 30"):
        write_card(run, models)


def test_a_model_without_an_operating_point_is_refused(run: Path, models: Path) -> None:
    change_manifest(models, operating_point=None)
    with pytest.raises(ConfigError, match="operating_point: none in the manifest"):
        write_card(run, models)


def test_the_command(run: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run), str(models), "--results", str(tmp_path), "--note", "A note."])
    assert "A note." in (models / "README.md").read_text(encoding="utf-8")
    (models / "lite.json").unlink()
    with pytest.raises(SystemExit) as ended:
        main([str(run), str(models)])
    assert ended.value.code == 2
    assert "lite.json: cannot be read" in capsys.readouterr().err
