from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from differad_edge.errors import ConfigError, DatasetError, PairsError
from differad_edge.pairs import Pair
from differad_edge.results import Box
from distill.lite import labelled, pair_sets
from distill.lite import train as training
from distill.lite.batches import GeneratedBatches, MixedBatches, is_labelled
from distill.lite.card import write_card
from distill.lite.generate import SMALLEST_DEFECT_PX
from distill.lite.labelled import (
    BOX_MARGIN_PX,
    Window,
    choose_window,
    cut,
    labelled_pair,
    truth_of_boxes,
    truth_of_mask,
)
from distill.lite.network import DifferenceNet, to_tensor
from distill.lite.pair_sets import LabelledSets, read_labelled_sets
from distill.lite.recipe import Recipe, read_checkpoint, refuse_other_recipe, stages
from distill.lite.train import main, train

CPU = torch.device("cpu")
SIDE = 32
TINY = Recipe(steps=3, batch=4, side_px=SIDE, warmup_steps=2)


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(training, "VALIDATION_BATCHES", 1)
    before = cv2.getNumThreads()
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(before)


def surface(seed: int, side: int = 64) -> NDArray[np.uint8]:
    """A picture with structure of its own, BGR, far from black and white."""
    coarse = np.random.default_rng(seed).integers(70, 150, (8, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def write_set(folder: Path, *, ok: int = 2, ng: int = 2, kind: str = "aligned", **changes: Any) -> Path:
    """Pairs of 64x64 px; a bad part has a bright square at 20..30 and a box around it of 16..36."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(ok + ng):
        golden, bad = surface(index), index >= ok
        part = golden.copy()
        if bad:
            part[20:30, 20:30] = 240
        for name, picture in (("r", golden), ("t", part)):
            cv2.imwrite(str(folder / f"{name}{index}.png"), picture)
        row = {"id": f"p{index}", "product": "plate", "reference": f"r{index}.png", "target": f"t{index}.png"}
        rows.append({**row, "boxes": [[16, 16, 36, 36]] if bad else [], "label": "NG" if bad else "OK", **changes})
    write_rows(folder, rows)
    (folder / "set.json").write_text(json.dumps({"name": folder.name, "pair": kind}))
    return folder


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def mixed(sets: LabelledSets, share: float = 0.5, **changes: Any) -> Recipe:
    return replace(TINY, pairs_sha256=sets.sha256, pairs_share=share, **changes)


# -- the sets ----------------------------------------------------------------------------------------------------------


def test_sets_are_read_in_order_counted_and_hashed(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", ok=1, ng=2), write_set(tmp_path / "b", ok=3, ng=0)
    sets = read_labelled_sets([a, b])
    assert [pair.target.parent.name for pair in sets.pairs] == ["a"] * 3 + ["b"] * 3
    assert [(s.name, s.folder, s.ok, s.ng, s.left_out) for s in sets.sets] == [("a", "a", 1, 2, 0), ("b", "b", 3, 0, 0)]
    lines = [(folder / "pairs.jsonl").read_bytes() for folder in (a, b)]
    assert sets.sha256 == hashlib.sha256(b"".join(lines)).hexdigest()
    assert read_labelled_sets([b, a]).sha256 != sets.sha256


def test_a_teachers_own_keys_are_no_matter(tmp_path: Path) -> None:
    assert len(read_labelled_sets([write_set(tmp_path / "a", confidence=0.8)]).pairs) == 4


@pytest.mark.parametrize("one", [False, True])
def test_pairs_that_are_not_aligned_are_refused_by_name(tmp_path: Path, one: bool) -> None:
    folder = write_set(tmp_path / "cloth", kind="aligned" if one else "same_class")
    if one:
        rows = rows_of(folder)
        rows[2]["pair"] = "same_class"
        write_rows(folder, rows)
    with pytest.raises(PairsError, match=rf"cloth: field 'pair' is 'same_class' in {1 if one else 4} of 4.*'aligned'"):
        read_labelled_sets([folder])


def test_a_bad_pair_is_left_out_counted_and_changes_the_identity(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "a", ok=2, ng=2)
    whole = read_labelled_sets([folder])
    (folder / "t1.png").write_bytes(b"no picture")
    sets = read_labelled_sets([folder])
    assert [pair.id for pair in sets.pairs] == ["p0", "p2", "p3"]
    assert (sets.sets[0].ok, sets.sets[0].ng, sets.sets[0].left_out) == (1, 2, 1)
    assert sets.sha256 != whole.sha256


@pytest.mark.parametrize("what", ["reference", "mask"])
def test_pictures_of_another_size_are_left_out_and_many_stop_the_run(tmp_path: Path, what: str) -> None:
    folder = write_set(tmp_path / "a")
    cv2.imwrite(str(folder / "small.png"), surface(0, 48))
    rows = rows_of(folder)
    rows[2][what] = "small.png"
    write_rows(folder, rows)
    assert [pair.id for pair in read_labelled_sets([folder]).pairs] == ["p0", "p1", "p3"]
    rows[3][what] = "small.png"
    write_rows(folder, rows)
    with pytest.raises(DatasetError, match=rf"a: 2 of 4 .*{what}: got 48x48 px, allowed: the target's 64x64 px"):
        read_labelled_sets([folder])


def test_bad_lines_and_bad_sizes_count_together(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "a")
    cv2.imwrite(str(folder / "small.png"), surface(0, 48))
    rows = rows_of(folder)
    rows[0]["label"] = "MAYBE"
    rows[2]["reference"] = "small.png"
    write_rows(folder, rows)
    with pytest.raises(DatasetError, match="2 of 4"):
        read_labelled_sets([folder])


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "a")
    write_rows(folder, [])
    with pytest.raises(PairsError, match="no pairs; allowed: at least one line"):
        read_labelled_sets([folder])


# -- where the crop is taken -------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(16, 300), st.integers(16, 300)),
    corner=st.tuples(st.floats(0, 0.95), st.floats(0, 0.95)),
    extent=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_a_window_lies_inside_and_holds_the_box_it_was_laid_around(
    seed: int, size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float]
) -> None:
    x1, y1 = (low * length for low, length in zip(corner, size, strict=True))
    x2, y2 = (min(low + e * length, length) for low, e, length in zip((x1, y1), extent, size, strict=True))
    rng = np.random.default_rng(seed)
    window = choose_window(rng, [Box(x1, y1, x2, y2)], size, SIDE)
    assert 0 <= window.x <= size[0] - window.extent
    assert 0 <= window.y <= size[1] - window.extent
    assert window.extent <= 2 * SIDE
    aimed = np.random.default_rng(seed)
    aimed.random()
    if aimed.random() < labelled.AIMED_SHARE:
        for low, high, start in ((x1, x2, window.x), (y1, y2, window.y)):
            if math.ceil(high) - int(low) <= window.extent:
                assert start <= low
                assert high <= start + window.extent
            else:
                assert int(low) <= start
                assert start + window.extent <= math.ceil(high)


def test_most_windows_hold_a_box_and_some_do_not() -> None:
    rng, box = np.random.default_rng(0), Box(10, 300, 20, 310)
    windows = [choose_window(rng, [box], (400, 400), SIDE) for _ in range(300)]
    held = np.mean([w.x <= 10 and w.x + w.extent >= 20 and w.y <= 300 and w.y + w.extent >= 310 for w in windows])
    assert 0.7 < held < 0.9
    assert min(w.extent for w in windows) < 1.1 * SIDE
    assert max(w.extent for w in windows) > 1.9 * SIDE


def test_a_small_picture_is_enlarged() -> None:
    picture = surface(0, 20)
    assert choose_window(np.random.default_rng(0), [], (20, 20), SIDE) == Window(0, 0, 20)
    assert cut(picture, Window(0, 0, 20), SIDE).shape == (SIDE, SIDE, 3)


# -- what a mask and a box say -----------------------------------------------------------------------------------------


def test_a_mask_is_the_label_and_all_places_count() -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[10:20, 12:30, 1] = 1  # faint to the eye, and a defect
    label, weight = truth_of_mask(mask, Window(8, 8, SIDE), SIDE)
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[2:12, 4:22] = 1
    assert np.array_equal(label, expected)
    assert weight.all()


def test_a_reduced_mask_loses_no_thin_defect() -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[:, 21] = 255
    label, weight = truth_of_mask(mask, Window(0, 0, 64), SIDE)
    assert label.sum(0).tolist() == [SIDE if x == 10 else 0 for x in range(SIDE)]
    assert weight.all()


def test_what_a_window_leaves_of_a_mask_may_be_too_small_to_demand() -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[0, : SMALLEST_DEFECT_PX - 1] = 255
    label, weight = truth_of_mask(mask, Window(0, 0, SIDE), SIDE)
    assert not label.any()
    assert (weight == 0).sum() == SMALLEST_DEFECT_PX - 1


def inside(x1: int, y1: int, x2: int, y2: int, side: int = 64) -> NDArray[np.uint8]:
    box = np.zeros((side, side), np.uint8)
    box[y1:y2, x1:x2] = 1
    return box


def test_in_a_box_the_visible_change_is_the_label_and_the_rest_does_not_count() -> None:
    golden = surface(3)
    part = golden.copy()
    part[20:30, 20:30] = 240
    label, weight = truth_of_boxes(golden, part, [inside(16, 16, 36, 36)])
    assert np.array_equal(label, inside(20, 20, 30, 30))
    assert np.array_equal(weight == 0, (inside(16, 16, 36, 36) & (1 - label)) == 1)


def test_a_box_in_which_nothing_changes_does_not_count() -> None:
    box = inside(16, 16, 36, 36)
    label, weight = truth_of_boxes(surface(3), surface(3), [box])
    assert not label.any()
    assert np.array_equal(weight, 1 - box)


def test_light_and_a_pixels_motion_are_no_change() -> None:
    golden = surface(3)
    golden[:, 24:] //= 2  # an edge through the box
    part = np.clip(np.roll(golden, 1, axis=1) + np.array([30, 25, 20]), 0, 255).astype(np.uint8)
    part[:, 0] = part[:, 1]
    label, _ = truth_of_boxes(golden, part, [inside(16, 16, 36, 36)])
    assert not label.any()
    part[20:30, 26:34] = 240
    label, _ = truth_of_boxes(golden, part, [inside(16, 16, 36, 36)])
    assert np.array_equal(label, inside(26, 20, 34, 30))


def test_a_visible_change_beside_a_box_does_not_count_and_one_far_off_is_good() -> None:
    golden = surface(3)
    part = golden.copy()
    part[20:30, 20:40] = 240  # sticks out of the box by 4 px
    part[50:60, 50:60] = 240  # beyond the margin
    box = inside(16, 16, 36, 36)
    label, weight = truth_of_boxes(golden, part, [box])
    assert np.array_equal(label, inside(20, 20, 36, 30))
    assert not weight[20:30, 36:40].any()
    assert weight[:, 36 + BOX_MARGIN_PX :].all()
    assert weight[40:44, 16:36].all(), "what does not change beside a box counts"


def pair_of(folder: Path, index: int, **changes: Any) -> Pair:
    return replace(read_labelled_sets([folder]).pairs[index], **changes)


def test_an_ok_pair_has_an_empty_label_even_where_it_differs(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "a")
    pair = pair_of(folder, 2, label="OK", boxes=(), mask=folder / "t2.png")
    for seed in range(20):
        found = labelled_pair(np.random.default_rng(seed), pair, SIDE)
        assert not found.label.any()
        assert found.weight.all()


def test_ignored_boxes_do_not_count(tmp_path: Path) -> None:
    pair = pair_of(write_set(tmp_path / "a"), 2, ignore_boxes=(Box(0, 0, 64, 64),))
    found = labelled_pair(np.random.default_rng(0), pair, SIDE)
    assert not found.weight.any()
    assert not found.label.any()


def test_label_and_pictures_are_turned_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "EXPOSED_SHARE", 0)
    folder = write_set(tmp_path / "a")
    cv2.imwrite(str(folder / "mask.png"), inside(20, 20, 30, 30) * 255)
    for pair in (pair_of(folder, 2), pair_of(folder, 2, mask=folder / "mask.png")):
        corners = set()
        for seed in range(60):
            found = labelled_pair(np.random.default_rng(seed), pair, SIDE)
            assert found.reference.shape == found.target.shape == (SIDE, SIDE, 3)
            assert all(a.dtype == np.uint8 for a in found)
            white = cv2.absdiff(found.reference, found.target).max(2) > 60
            # Three pixels: a partly covered one, and the two that closing may bridge up to the crop's edge.
            assert not found.label[cv2.dilate(white.astype(np.uint8), np.ones((7, 7))) == 0].any()
            assert not (white & (found.label == 0) & (found.weight == 1)).any()
            if found.label.any():
                y, x = np.argwhere(found.label).mean(0)
                corners.add((y > SIDE / 2, x > SIDE / 2))
        assert len(corners) == 4


def test_half_of_the_pairs_stay_as_their_camera_took_them(tmp_path: Path) -> None:
    pair = pair_of(write_set(tmp_path / "a"), 0)
    same = [
        np.array_equal(found.reference, found.target)
        for found in (labelled_pair(np.random.default_rng(seed), pair, SIDE) for seed in range(60))
    ]
    assert 0.3 < np.mean(same) < 0.7


# -- batches -----------------------------------------------------------------------------------------------------------


@given(share=st.floats(0.001, 1), start=st.integers(0, 10**9), n=st.integers(1, 200))
def test_any_numbers_in_a_row_hold_the_share_as_exactly_as_they_can(share: float, start: int, n: int) -> None:
    found = sum(is_labelled(start + i, share) for i in range(n))
    assert abs(found - share * n) < 1.01


@pytest.mark.parametrize(("share", "batch"), [(0.3, 10), (0.29, 100), (0.25, 12), (0.1, 30), (1.0, 7), (0.7, 20)])
def test_every_batch_holds_exactly_the_share_where_its_size_allows(share: float, batch: int) -> None:
    counts = {sum(is_labelled(k * batch + i, share) for i in range(batch)) for k in range(50)}
    assert counts == {round(share * batch)}


def test_the_share_is_labelled_and_the_rest_generated_as_before(tmp_path: Path) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a")])
    recipe = mixed(sets, 0.25)
    batches, generated = MixedBatches(recipe, sets.pairs), GeneratedBatches(recipe)
    for index in range(recipe.steps):
        same = [
            all(torch.equal(a[i], b[i]) for a, b in zip(batches[index], generated[index], strict=True))
            for i in range(recipe.batch)
        ]
        assert same == [True, True, True, False]


def test_a_labelled_pair_follows_from_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a", ok=6, ng=6)])
    recipe = mixed(sets)
    batch = MixedBatches(recipe, sets.pairs)[1]
    again = MixedBatches(replace(recipe, batch=1, steps=20), sets.pairs)
    for i in range(recipe.batch):
        assert all(torch.equal(a[i], b[0]) for a, b in zip(batch, again[recipe.batch + i], strict=True))
    other = MixedBatches(replace(recipe, seed=1), sets.pairs)[1]
    assert not any(torch.equal(batch[0][i], other[0][i]) for i in range(recipe.batch))


def test_all_pairs_of_all_sets_come_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a"), write_set(tmp_path / "b")])
    seen = []
    original = labelled.labelled_pair

    def noted(rng: np.random.Generator, pair: Pair, side: int) -> Any:
        seen.append((pair.target.parent.name, pair.id))
        return original(rng, pair, side)

    monkeypatch.setattr("distill.lite.batches.labelled_pair", noted)
    batches = MixedBatches(mixed(sets, 1.0), sets.pairs)
    for number in range(80):
        batches.pair(number)
    assert len(set(seen)) == 8


# -- recipes and runs --------------------------------------------------------------------------------------------------


def run(out: Path, recipe: Recipe, sets: LabelledSets | None, **options: Any) -> dict[str, Any]:
    train(recipe, out, threads=1, device=CPU, sets=sets, **{"workers": 0, **options})
    return read_checkpoint(out / "checkpoint.pt", CPU)


@pytest.mark.parametrize(
    ("sha256", "share"), [(None, 0.3), ("ab", 0.0), ("ab", 1.5), ("ab", -0.1), ("ab", math.nan), (None, math.nan)]
)
def test_a_share_needs_sets_and_sets_a_share(sha256: str | None, share: float) -> None:
    with pytest.raises(ConfigError, match=f"pairs_share: got {share}, allowed"):
        Recipe(pairs_sha256=sha256, pairs_share=share)


def test_sets_that_are_not_the_recipes_are_refused(tmp_path: Path) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a")])
    for recipe, given_sets in ((mixed(sets), None), (TINY, sets), (mixed(replace(sets, sha256="ab")), sets)):
        with pytest.raises(ConfigError, match="pairs_sha256: got labelled pairs of"):
            run(tmp_path / "run", recipe, given_sets)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_interrupted_mixed_run_ends_as_a_straight_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a")])
    straight = run(tmp_path / "straight", mixed(sets), sets)
    original, steps = training.follow, 0

    def power_cut(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "follow", power_cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", mixed(sets), sets, workers=workers, checkpoint_every=1)
    resumed = run(tmp_path / "cut", mixed(sets), sets, workers=workers)
    assert resumed["step"] == 3
    assert all(torch.equal(resumed["net"][name], straight["net"][name]) for name in straight["net"])
    assert resumed["pair_sets"] == [asdict(counts) for counts in sets.sets]


def test_other_sets_or_another_share_are_another_run(tmp_path: Path) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a")])
    other = read_labelled_sets([write_set(tmp_path / "b", ok=3)])
    run(tmp_path / "run", mixed(sets, steps=1), sets)
    with pytest.raises(ConfigError, match=f"pairs_sha256 {sets.sha256} there, {other.sha256} asked for"):
        run(tmp_path / "run", mixed(other, steps=1), other)
    with pytest.raises(ConfigError, match=r"pairs_share 0.5 there, 0.25 asked for"):
        run(tmp_path / "run", mixed(sets, 0.25, steps=1), sets)
    with pytest.raises(ConfigError, match=rf"pairs_sha256 {sets.sha256} there, None asked for"):
        run(tmp_path / "run", replace(TINY, steps=1), None)


def test_a_checkpoint_from_before_there_were_labelled_pairs_goes_on_and_takes_none(tmp_path: Path) -> None:
    saved = run(tmp_path / "run", replace(TINY, steps=1), None)
    del saved["recipe"]["pairs_sha256"], saved["recipe"]["pairs_share"]
    torch.save(saved, tmp_path / "run" / "checkpoint.pt")
    run(tmp_path / "run", replace(TINY, steps=1), None)
    sets = read_labelled_sets([write_set(tmp_path / "a")])
    with pytest.raises(ConfigError, match="pairs_sha256 None there"):
        refuse_other_recipe(tmp_path / "run" / "checkpoint.pt", saved["recipe"], mixed(sets, steps=1))
    assert "pair_sets" not in stages(tmp_path / "run" / "checkpoint.pt")[0]


def test_a_short_run_on_a_mixed_set_learns(tmp_path: Path) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a", ok=4, ng=4)])
    recipe = mixed(sets, 0.75, steps=40, warmup_steps=5, batch=8)
    run(tmp_path / "run", recipe, sets, checkpoint_every=10)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]
    saved = read_checkpoint(tmp_path / "run" / "checkpoint.pt", CPU)
    net = DifferenceNet()
    net.load_state_dict(saved["average"])
    net.eval()
    golden = surface(99)  # a product of none of the sets
    part = golden.copy()
    part[20:30, 20:30] = 240
    with torch.no_grad():
        heat = net(to_tensor([golden]).float(), to_tensor([part]).float())[0, 0]
    assert heat[10:15, 10:15].mean() > heat[20:].mean()


# -- the command and the card ------------------------------------------------------------------------------------------


def options(out: Path, *more: str) -> list[str]:
    small = "--steps 1 --batch 2 --side 32 --workers 0 --threads 1 --device cpu"
    return ["--out", str(out), *small.split(), *more]


def test_the_command_takes_sets_and_says_what_they_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_set(tmp_path / "a", ok=1, ng=3), write_set(tmp_path / "b")
    main(options(tmp_path / "run", "--pairs", str(a), "--pairs", str(b), "--pairs-share", "0.5"))
    assert "a: 1 OK, 3 NG, 0 left out" in capsys.readouterr().out
    saved = read_checkpoint(tmp_path / "run" / "checkpoint.pt", CPU)
    assert saved["recipe"]["pairs_share"] == 0.5
    assert saved["recipe"]["pairs_sha256"] == read_labelled_sets([a, b]).sha256
    main(options(tmp_path / "run2", "--pairs", str(a)))
    assert read_checkpoint(tmp_path / "run2" / "checkpoint.pt", CPU)["recipe"]["pairs_share"] == training.PAIRS_SHARE


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pairs-share", "0.3"], "--pairs-share: got 0.3 without --pairs"),
        (["--pairs", "nowhere", "--pairs-share", "0"], "--pairs-share: got 0.0, allowed: above 0, at most 1"),
        (["--pairs", "nowhere", "--pairs-share", "nan"], "--pairs-share: got nan, allowed: above 0, at most 1"),
        (["--pairs", "nowhere"], "nowhere: not a folder; allowed: a folder with pairs.jsonl"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options(tmp_path / "run", *more))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_says_that_pairs_must_be_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "'aligned'" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(options(tmp_path / "run", "--pairs", str(write_set(tmp_path / "cloth", kind="same_class"))))
    assert "cloth: field 'pair' is 'same_class'" in capsys.readouterr().err


def test_the_card_names_the_sets_and_promises_nothing_about_them(tmp_path: Path) -> None:
    sets = read_labelled_sets([write_set(tmp_path / "a", ok=1, ng=3), write_set(tmp_path / "b")])
    run(tmp_path / "plain", replace(TINY, steps=1), None)
    init = tmp_path / "plain" / "checkpoint.pt"
    digest = hashlib.sha256(init.read_bytes()).hexdigest()
    run(tmp_path / "taught", mixed(sets, 0.3, steps=1, seed=1, init_sha256=digest), sets, init=init)

    def card_of(name: str) -> str:
        manifest = {
            "files": {},
            "training": stages(tmp_path / name / "checkpoint.pt"),
            "default_threshold": 0.5,
            "operating_point": {"pairs": 1},
        }
        models = tmp_path / f"models-{name}"
        models.mkdir()
        (models / "lite.json").write_text(json.dumps(manifest))
        return write_card(tmp_path / name, models)

    plain, taught = card_of("plain"), card_of("taught")
    assert f"| `taught` | a (`a`) | 1 | 3 | 0 | 0.3 | `{sets.sha256}` |" in taught
    assert f"| `taught` | b (`b`) | 2 | 2 | 0 | 0.3 | `{sets.sha256}` |" in taught
    assert "--pairs a --pairs b --pairs-share 0.3" in taught
    assert "No image of any evaluation set" in plain
    assert "No image of any evaluation set" not in taught
    assert "Every pair is generated" in plain
    assert "Every pair but the labelled ones below is generated" in taught
    assert (
        "labelled" not in plain.replace("unlabelled", "").partition("## Training data")[2].partition("## Training")[0]
    )
    assert "--pairs" not in plain
    assert str(tmp_path) not in taught


def test_what_is_skipped_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_set(tmp_path / "a")
    cv2.imwrite(str(folder / "r1.png"), surface(0, 48))
    read_labelled_sets([folder])
    assert "line 2: reference: got 48x48 px" in caplog.text
    assert caplog.records[0].name == pair_sets.__name__
