from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor, nn

from differad_edge.errors import ConfigError
from distill.lite import train as training
from distill.lite.loss import heat_targets, loss_of
from distill.lite.network import DifferenceNet
from distill.lite.recipe import Recipe, rate_at, read_checkpoint, stages
from distill.lite.train import GeneratedBatches, follow, main, train, validate

TINY = Recipe(steps=4, batch=2, side_px=32, warmup_steps=2)
CPU = torch.device("cpu")
LN2 = math.log(2)


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One batch of validation and one thread; what training sets for the process is put back."""
    monkeypatch.setattr(training, "VALIDATION_BATCHES", 1)
    before = cv2.getNumThreads()
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(before)


def run(out: Path, recipe: Recipe = TINY, **options: Any) -> dict[str, Any]:
    train(recipe, out, threads=1, device=CPU, **{"workers": 0, **options})
    return read_checkpoint(out / "checkpoint.pt", CPU)


def assert_same_weights(a: dict[str, Any], b: dict[str, Any]) -> None:
    for part in ("net", "average"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])


# -- schedule, loss, average -------------------------------------------------------------------------------------------


def test_the_rate_rises_to_its_peak_and_falls_to_a_hundredth() -> None:
    recipe = Recipe(steps=1000, warmup_steps=100, learning_rate=0.5)
    rates = [rate_at(step, recipe) for step in range(1001)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[99] == rates[100] == 0.5 == max(rates)
    assert rates[550] == pytest.approx(0.5 * (0.01 + 0.99 * 0.5))
    assert rates[1000] == pytest.approx(0.005)
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_a_run_shorter_than_its_warm_up_has_rates_too() -> None:
    recipe = Recipe(steps=3, warmup_steps=10, learning_rate=1.0)
    assert [rate_at(step, recipe) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_a_cell_is_a_defect_for_one_pixel_and_loses_its_vote_for_one() -> None:
    label, weight = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.ones(1, 1, 4, 4, dtype=torch.uint8)
    label[..., 0, 1] = 1
    weight[..., 3, 2] = 0
    truth, counts = heat_targets(label, weight)
    assert truth[0, 0].tolist() == [[1, 0], [0, 0]]
    assert counts[0, 0].tolist() == [[1, 1], [1, 0]]


def scene(defect_cells: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """(label, weight) with a square defect of that many heat-map cells a side in the upper left corner."""
    label = torch.zeros(1, 1, side, side)
    label[..., : 2 * defect_cells, : 2 * defect_cells] = 1
    return label, torch.ones_like(label)


@pytest.mark.parametrize("defect_cells", [0, 2])
def test_the_loss_of_an_undecided_map_by_hand(defect_cells: int) -> None:
    label, weight = scene(defect_cells)
    recipe = Recipe(positive_weight=3.0, peak_weight=0.5)
    cells, bad = 16 * 16, defect_cells**2
    pixel = LN2 * (cells - bad + 3 * bad) / cells
    dice = 1 - (bad + 1) / (cells / 2 + bad + 1)
    peak = LN2 + (LN2 if bad else 0)
    loss = loss_of(torch.zeros(1, 1, 16, 16), label, weight, recipe)
    assert loss.item() == pytest.approx(pixel + dice + 0.5 * peak, rel=1e-5)


def test_a_right_map_costs_next_to_nothing_and_a_wrong_one_much() -> None:
    label, weight = scene(4)
    right = heat_targets(label, weight)[0] * 40 - 20
    assert loss_of(right, label, weight, Recipe()) < 0.1
    assert loss_of(-right, label, weight, Recipe()) > 10


def test_what_does_not_count_costs_nothing() -> None:
    label, weight = scene(3)
    logits = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 3
    weight[..., 16:, 16:] = 0
    told = loss_of(logits, label, weight, Recipe())
    logits[..., 8:, 8:] = 50
    # One ring around stays masked in the peaks; what is left there must not reach it through the smoothing.
    assert loss_of(logits, label, weight, Recipe()).item() == pytest.approx(told.item(), rel=1e-6)


def test_the_peak_term_forgives_the_surroundings_of_a_defect_and_nothing_further_off() -> None:
    label, weight = scene(3)
    recipe = Recipe(peak_weight=100.0)

    def with_peak_at(cell: int) -> float:
        logits = torch.full((1, 1, 16, 16), -20.0)
        logits[..., :3, :3] = 20
        logits[..., cell : cell + 3, cell : cell + 3] = 10
        return loss_of(logits, label, weight, recipe).item()

    assert with_peak_at(3) < 50
    assert with_peak_at(11) > 500


def test_the_average_follows_weights_slowly_and_statistics_at_once() -> None:
    slow, fast = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        slow.weight.fill_(1.0)
        fast.weight.fill_(3.0)
        fast.running_mean.fill_(7.0)  # type: ignore[union-attr]
    follow(slow, fast, 0.9)
    assert slow.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert slow.running_mean.item() == 7.0  # type: ignore[union-attr, operator]
    assert fast.weight.item() == 3.0


# -- data and validation -----------------------------------------------------------------------------------------------


def test_batches_follow_from_the_seed_and_their_number_alone() -> None:
    recipe = replace(TINY, batch=3)
    batch = GeneratedBatches(recipe)[1]
    shifted = GeneratedBatches(recipe, offset=3)[0]
    assert all(torch.equal(a, b) for a, b in zip(batch, shifted, strict=True))
    assert [tuple(t.shape) for t in batch] == [(3, 3, 32, 32)] * 2 + [(3, 1, 32, 32)] * 2
    assert all(t.dtype == torch.uint8 for t in batch)
    assert not torch.equal(batch[0], GeneratedBatches(replace(recipe, seed=1))[1][0])


def test_validation_sees_other_pairs_than_training(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = []
    original = GeneratedBatches.__init__

    def noted(self: GeneratedBatches, recipe: Recipe, *, offset: int = 0) -> None:
        offsets.append(offset)
        original(self, recipe, offset=offset)

    monkeypatch.setattr(GeneratedBatches, "__init__", noted)
    net = DifferenceNet()
    validate(net, TINY, 1, CPU)
    assert offsets == [training.VALIDATION_SEED_OFFSET]
    assert offsets[0] > 10_000 * Recipe.steps
    assert net.training, "validation changed the mode"


def test_figures_of_nothing_are_none_and_others_are_shares() -> None:
    net = DifferenceNet()
    assert validate(net, TINY, 0, CPU) == {
        "pixel_f1": 0.0,
        "image_auroc": None,
        "true_normal_rate": None,
        "recall": None,
    }
    figures = validate(net, replace(TINY, batch=20), 1, CPU)
    assert all(value is not None and 0 <= value <= 1 for value in figures.values())
    assert figures["true_normal_rate"] == 1  # an untrained network finds nothing


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_short_run_leaves_a_checkpoint_a_log_and_the_recipe(tmp_path: Path) -> None:
    recipe = replace(TINY, steps=3)
    saved = run(tmp_path / "a", recipe)
    assert saved["step"] == 3
    torch.manual_seed(recipe.seed)
    fresh = DifferenceNet().state_dict()
    assert any(not torch.equal(fresh[name], saved["net"][name]) for name in fresh)
    DifferenceNet().load_state_dict(saved["average"])
    assert json.loads((tmp_path / "a" / "recipe.json").read_text()) == saved["recipe"]
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3]
    assert math.isfinite(lines[0]["loss"])
    assert not list((tmp_path / "a").glob("*.tmp"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_run_gives_the_weights_of_a_straight_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    straight = run(tmp_path / "straight")
    steps = 0

    def power_cut(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        follow(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "follow", power_cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", workers=workers, checkpoint_every=2)
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt", CPU)["step"] == 2
    resumed = run(tmp_path / "cut", workers=workers)
    assert resumed["step"] == 4
    assert_same_weights(resumed, straight)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path, replace(TINY, steps=1))
    assert_same_weights(run(tmp_path, replace(TINY, steps=1)), first)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_another_recipe_is_refused_by_the_fields_that_differ(tmp_path: Path) -> None:
    run(tmp_path, replace(TINY, steps=1))
    with pytest.raises(ConfigError, match=r"steps 1 there, 6 asked for.*batch 2 there, 3 asked for.*another --out"):
        run(tmp_path, replace(TINY, steps=6, batch=3))


def test_a_checkpoint_that_knows_fewer_fields_goes_on(tmp_path: Path) -> None:
    saved = run(tmp_path, replace(TINY, steps=1))
    del saved["recipe"]["init_sha256"]
    torch.save(saved, tmp_path / "checkpoint.pt")
    run(tmp_path, replace(TINY, steps=1))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"checkpoint: got .*checkpoint\.pt, allowed"):
        run(tmp_path)


def test_a_file_of_weights_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"net": {}, "step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match=r"without \['average', 'optimiser', 'recipe'\]"):
        read_checkpoint(tmp_path / "checkpoint.pt", CPU)


# -- second stages -----------------------------------------------------------------------------------------------------


def second_stage(init: Path, **changes: Any) -> Recipe:
    digest = hashlib.sha256(init.read_bytes()).hexdigest()
    return replace(TINY, **{"steps": 1, "seed": 1, "init_sha256": digest, **changes})


def test_a_second_stage_starts_from_the_averaged_weights_and_knows_where_from(tmp_path: Path) -> None:
    first = run(tmp_path / "first", replace(TINY, steps=2))
    init = tmp_path / "first" / "checkpoint.pt"
    recipe = second_stage(init, learning_rate=1e-12)
    second = run(tmp_path / "second", recipe, init=init)
    weights = [name for name, _ in DifferenceNet().named_parameters()]
    for name in weights:
        torch.testing.assert_close(second["net"][name], first["average"][name])
    assert any(not torch.allclose(first["average"][name], first["net"][name]) for name in weights)
    history = stages(tmp_path / "second" / "checkpoint.pt")
    assert [(s["run"], s["steps_done"], s["seed"]) for s in history] == [("first", 2, 0), ("second", 1, 1)]
    init.unlink()
    with pytest.raises(ConfigError, match="init_sha256"):
        stages(tmp_path / "second" / "checkpoint.pt")


def test_a_second_stage_with_the_seed_of_the_first_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "first", replace(TINY, steps=1))
    init = tmp_path / "first" / "checkpoint.pt"
    with pytest.raises(ConfigError, match=r"seed: got 0, that of .*allowed: another"):
        run(tmp_path / "second", second_stage(init, seed=0), init=init)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "steps: got 0, allowed: at least 1"),
        (["--batch", "0"], "batch: got 0, allowed: at least 1"),
        (["--side", "100"], "side_px: got 100, allowed: a multiple of 16 from 32 up"),
        (["--side", "16"], "side_px: got 16, allowed: a multiple of 16 from 32 up"),
        (["--learning-rate", "0"], "learning_rate: got 0.0, allowed: above 0"),
        (["--learning-rate", "nan"], "learning_rate: got nan, allowed: above 0"),
        (["--seed", "-1"], "seed: got -1, allowed: at least 0"),
        (["--device", "abacus"], "device: got 'abacus', allowed: one that PyTorch can use here"),
        (["--device", "cuda:99"], "device: got 'cuda:99', allowed: one that PyTorch can use here"),
        (["--workers", "-1"], "--workers: got -1, allowed: 0 or more"),
        (["--threads", "0"], "--threads: got 0, allowed: 1 or more"),
        (["--init", "nowhere.pt"], "--init: got nowhere.pt, allowed: a checkpoint's file"),
    ],
)
def test_what_the_command_refuses_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(tmp_path / "run"), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_trains(tmp_path: Path) -> None:
    options = "--steps 1 --batch 2 --side 32 --workers 0 --threads 1 --device cpu --seed 3"
    main(["--out", str(tmp_path / "run"), *options.split()])
    saved = read_checkpoint(tmp_path / "run" / "checkpoint.pt", CPU)
    assert saved["recipe"]["seed"] == 3
    assert saved["step"] == 1
