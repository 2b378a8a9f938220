from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from distill.lite import defects, nuisances, photographs, scenes
from distill.lite.generate import (
    FAINT,
    INVISIBLE,
    VISIBLE,
    PlantedPair,
    label_of,
    observe,
    planted_pair,
    training_pair,
    visible_change,
)
from distill.lite.nuisances import Binarisation

Draw = Callable[[Generator, int], NDArray[np.uint8]]
SIDE = 96


def rng(*seed: int) -> Generator:
    return np.random.default_rng(seed)


def grown(mask: NDArray[np.bool_], by_px: int) -> NDArray[np.bool_]:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by_px + 1, 2 * by_px + 1), np.uint8)) > 0


@pytest.fixture(scope="module")
def planted() -> list[PlantedPair]:
    return [planted_pair(rng(3, i), SIDE) for i in range(150)]


# -- what a pair is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [scenes.MIN_SIDE_PX, 48, 96, 192])
def test_shapes_and_dtypes(side: int) -> None:
    for seed in range(12):
        pair = training_pair(rng(side, seed), side)
        for image in (pair.reference, pair.target):
            assert image.shape == (side, side, 3)
            assert image.dtype == np.uint8
        for truth in (pair.label, pair.weight):
            assert truth.shape == (side, side)
            assert truth.dtype == np.uint8
            assert set(np.unique(truth)) <= {0, 1}


def test_a_seed_reproduces_its_pair_bit_by_bit_and_another_does_not() -> None:
    for seed in range(20):
        first = training_pair(rng(5, seed), SIDE)
        np.random.seed(seed)  # what others do with the global state is nothing to the generator
        training_pair(rng(6, seed), SIDE)
        again = training_pair(rng(5, seed), SIDE)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    a, b = training_pair(rng(5, 0), SIDE), training_pair(rng(5, 1), SIDE)
    assert not np.array_equal(a.reference, b.reference)


def test_what_training_pairs_are_made_of_stays_as_it_is(planted: list[PlantedPair]) -> None:
    """Numbers that the shipped weights were trained on. No hashes: OpenCV versions differ in the last bit."""
    untouched = np.mean([np.array_equal(p.golden, p.part) for p in planted])
    labelled = [p.label.mean() for p in planted if p.label.any()]
    two_tone = np.mean([p.cut is not None for p in planted])
    grey = np.mean([p.golden.mean() for p in planted])
    assert 0.2 < untouched < 0.36
    assert 0.58 < len(labelled) / len(planted) < 0.78
    assert 0.01 < np.median(labelled) < 0.06
    assert 0.03 < two_tone < 0.14
    assert 95 < grey < 140
    assert 0.9 < np.mean([p.weight.mean() for p in planted]) < 1


# -- labels ------------------------------------------------------------------------------------------------------------


def test_good_pairs_have_empty_labels_that_all_count(planted: list[PlantedPair]) -> None:
    good = [p for p in planted if np.array_equal(p.golden, p.part)]
    assert len(good) > 20
    assert not any(p.label.any() for p in good)
    assert all(p.weight.all() for p in good)


def test_every_visible_change_is_labelled_or_does_not_count(planted: list[PlantedPair]) -> None:
    for index, p in enumerate(planted):
        change = visible_change(p.golden, p.part, p.cut)
        denied = (change > VISIBLE) & (p.label == 0) & (p.weight == 1)
        assert not denied.any(), f"pair {index} calls {denied.sum()} changed pixels good"


def test_labels_lie_only_where_the_pictures_really_differ(planted: list[PlantedPair]) -> None:
    empty_share, components, unchanged = [], 0, 0
    for p in planted:
        changed = visible_change(p.golden, p.part, p.cut) > INVISIBLE
        label = (p.label & p.weight).astype(np.uint8)
        if not label.any():
            continue
        empty_share.append(((label > 0) & ~grown(changed, 2)).sum() / label.sum())
        count, places, stats, _ = cv2.connectedComponentsWithStats(label, connectivity=8)
        for i in range(1, count):
            if stats[i, cv2.CC_STAT_AREA] >= 6:
                components += 1
                unchanged += not (changed & (places == i)).any()
    assert components > 100
    assert unchanged <= 0.02 * components  # specks of a shape that is labelled whole
    # Holes of a defect that is labelled whole, and what a second defect undid of a first.
    assert np.mean(empty_share) < 0.08
    assert max(empty_share) < 0.6


@pytest.mark.parametrize(
    ("levels", "side_px", "label", "weight"),
    [
        (INVISIBLE, 10, 0, 1),  # nobody sees it: good
        (FAINT, 10, 0, 0),  # too faint to demand, too clear to deny
        (FAINT + 1, 10, 1, 1),  # faint but large
        (FAINT + 1, 6, 0, 0),  # faint and small
        (VISIBLE + 1, 6, 1, 1),
        (VISIBLE + 1, 2, 0, 0),  # a few pixels: does not count
        (255, 3, 1, 1),
    ],
)
def test_what_a_change_is_labelled_as(levels: int, side_px: int, label: int, weight: int) -> None:
    shape = np.zeros((40, 40), np.uint8)
    shape[10 : 10 + side_px, 10 : 10 + side_px] = 1
    found, counts = label_of(shape * np.uint8(levels), shape)
    assert np.array_equal(found, shape * label)
    assert np.array_equal(counts, np.where(shape, weight, 1))


def test_a_defect_that_changed_most_of_its_shape_is_labelled_whole_and_others_where_they_show() -> None:
    shape = np.zeros((60, 60), np.uint8)
    shape[10:50, 10:50] = 1
    change = shape * np.uint8(200)
    change[20:40, 20:40] = 0  # a hole
    assert np.array_equal(label_of(change, shape)[0], shape)
    change[10:50, 20:50] = 0  # a quarter is left
    found, counts = label_of(change, shape)
    assert np.array_equal(found, (change > 0).astype(np.uint8))
    assert counts.all()


def test_a_two_tone_camera_sees_all_or_nothing() -> None:
    before = np.full((20, 20, 3), 100, np.uint8)
    after = before.copy()
    after[4:10, 4:10] = 160  # across the cut
    after[12:16, 12:16] = 120  # on the same side
    after[:, 18] = 255  # a line of one pixel
    change = visible_change(before, after, Binarisation(130.0, 0.0))
    assert set(np.unique(change)) == {0, 255}
    assert np.count_nonzero(change) == 36
    assert np.abs(np.argwhere(change).mean(0) - 6.5).max() <= 1
    assert visible_change(before, after, None)[13, 13] == 20


# -- defects -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind, _ in defects.KINDS], ids=lambda kind: kind.__name__)
def test_every_kind_of_defect_shows_and_stays_in_its_place(
    kind: Callable[[Generator, NDArray[np.uint8]], defects.Planted],
) -> None:
    visible = 0
    draws = 24
    for seed in range(draws):
        golden = scenes.scene(rng(20, seed), SIDE)
        before = golden.copy()
        planted = kind(rng(21, seed), golden)
        assert np.array_equal(golden, before), "the golden sample was drawn on"
        assert planted.image.shape == golden.shape
        assert planted.image.dtype == np.uint8
        assert planted.shape.shape == (SIDE, SIDE)
        assert set(np.unique(planted.shape)) <= {0, 1}
        assert planted.shape.any(), "drawn outside the image"
        change = visible_change(golden, planted.image, None)
        visible += np.count_nonzero(change > VISIBLE) >= 6
        beside = (change > VISIBLE) & ~grown(planted.shape > 0, 12)
        assert beside.sum() <= 0.15 * max(1, np.count_nonzero(change > VISIBLE))
    assert visible > 0.5 * draws


def test_shares_of_kinds_add_up() -> None:
    for kinds in (defects.KINDS, scenes.SIMPLE_SCENES):
        assert sum(share for _, share in kinds) == pytest.approx(1)
        assert len({kind for kind, _ in kinds}) == len(kinds)


# -- scenes and photographs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw", [*(kind for kind, _ in scenes.SIMPLE_SCENES), scenes.assembly], ids=lambda d: d.__name__
)
@pytest.mark.parametrize("side", [scenes.MIN_SIDE_PX, 160])
def test_every_kind_of_scene_shows_something_at_every_size(draw: Draw, side: int) -> None:
    contrasts = []
    for seed in range(10):
        image = draw(rng(30, seed), side)
        assert image.shape == (side, side, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        contrasts.append(int(np.ptp(image)))
    assert np.median(contrasts) > 30


def test_every_listed_photograph_is_there() -> None:
    pictures = photographs.photographs()
    assert len(pictures) == len(photographs.PHOTOGRAPHS) == 12
    assert all(p.ndim == 3 and p.shape[2] == 3 and p.dtype == np.uint8 and min(p.shape[:2]) > 200 for p in pictures)
    red_suit = pictures[list(photographs.PHOTOGRAPHS).index("astronaut")][300:400, 100:200]
    assert red_suit[..., 2].mean() > red_suit[..., 0].mean()  # BGR: an orange suit


def test_a_missing_photograph_is_named_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photographs.PHOTOGRAPHS, "no_such_picture", "CC0")
    photographs.photographs.cache_clear()
    with pytest.raises(RuntimeError, match="no_such_picture"):
        photographs.photographs()
    photographs.photographs.cache_clear()


# -- nuisances ---------------------------------------------------------------------------------------------------------


def test_the_label_moves_with_the_part() -> None:
    golden = np.full((SIDE, SIDE, 3), 40, np.uint8)
    part, label = golden.copy(), np.zeros((SIDE, SIDE), np.uint8)
    part[30:60, 20:70], label[30:60, 20:70] = 220, 1
    weight = np.ones_like(label)
    weight[:10] = 0
    moved = 0
    for seed in range(20):
        pair = observe(rng(40, seed), PlantedPair(golden, part, label, weight, None))
        seen = np.abs(pair.target.astype(int) - pair.reference).mean(-1) > 80
        assert (seen & (pair.label > 0)).sum() / (seen | (pair.label > 0)).sum() > 0.85
        assert not pair.weight[:4].any()
        moved += not np.array_equal(pair.label, label)
    assert moved > 10


def test_displacements_are_small_and_smooth() -> None:
    reach = []
    for seed in range(60):
        x, y = nuisances.displacement(rng(41, seed), SIDE)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        assert x.dtype == y.dtype == np.float32
        reach.append(float(np.hypot(x - columns, y - rows).max()))
        assert np.abs(np.diff(x, axis=1) - 1).max() < 1
    assert max(reach) < 12
    assert 0.5 < np.median(reach) < 4


def test_exposure_keeps_the_picture_and_differs_each_time() -> None:
    image = scenes.board(rng(42), 64)
    assert image.std() > 60
    shots = [nuisances.expose(rng(43, seed), image) for seed in range(30)]
    assert all(shot.shape == image.shape and shot.dtype == np.uint8 for shot in shots)
    assert all(np.corrcoef(shot.ravel(), image.ravel())[0, 1] > 0.9 for shot in shots)
    assert not any(np.array_equal(a, b) for a, b in pairwise(shots))


def test_binarised_pictures_have_two_tones_and_outlines_that_move_by_a_pixel_or_two() -> None:
    image = np.full((64, 64, 3), 30, np.uint8)
    image[16:48, 16:48] = 220
    light = image[..., 0] > 125
    pure = 0
    for seed in range(40):
        shot = nuisances.binarise(rng(44, seed), image, Binarisation(125.0, 10.0))
        assert shot.shape == image.shape
        assert np.array_equal(shot[..., 0], shot[..., 2])
        pure += set(np.unique(shot)) == {0, 255}
        wrong = (shot[..., 0] > 127) != light
        sure = ~grown(light, 4) | ~grown(~light, 4)
        assert (wrong & sure).sum() <= 8  # specks
    assert 20 < pure < 40  # the others went through JPEG
