"""Where a part lies is found to a fraction of a pixel, and never invented."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import Scene, corner_error_px, grating, motion, noisy, relit

from differad_edge.config import AlignmentConfig
from differad_edge.references.align import AlignmentModel
from differad_edge.results import Alignment, Box

KINDS = ["board", "two-tone", "texture", "photo"]
SIZE = (320, 240)
LIMITS = AlignmentConfig()


def found(reference: np.ndarray, target: np.ndarray, valid: np.ndarray | None = None) -> Alignment:
    return AlignmentModel.prepare(reference, valid).estimate(target, LIMITS)


MOTIONS: list[dict[str, Any]] = [
    {"shift": (0.4, -0.7)},
    {"shift": (5.0, 2.0)},
    {"shift": (-24.0, 20.0)},  # near the limit of 0.15 of the smaller side
    {"angle_deg": 8.0},
    {"angle_deg": -8.0},
    {"angle_deg": 0.5},
    {"scale": 0.93},
    {"scale": 1.07},
    {"shift": (7.3, -5.6), "angle_deg": -5.0, "scale": 1.04},
    {"shift": (-9.0, 8.0), "angle_deg": 6.0, "scale": 0.95},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moved", MOTIONS, ids=str)
def test_every_motion_within_the_limits_is_found(kind: str, moved: dict[str, Any]) -> None:
    for seed in range(2):
        scene = Scene(seed, SIZE, kind)
        alignment = found(scene.reference, scene.seen(**moved))
        assert corner_error_px(alignment.matrix, motion(SIZE, **moved), SIZE) < 0.5
        assert alignment.shift_px == pytest.approx(moved.get("shift", (0, 0)), abs=0.3)
        assert alignment.angle_deg == pytest.approx(moved.get("angle_deg", 0), abs=0.15)
        assert alignment.scale == pytest.approx(moved.get("scale", 1), abs=0.003)
        assert alignment.residual < 0.05


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 5),
    dx=st.floats(-15, 15),
    dy=st.floats(-15, 15),
    angle_deg=st.floats(-8, 8),
    scale=st.floats(0.93, 1.07),
)
def test_any_motion_is_found(kind: str, seed: int, dx: float, dy: float, angle_deg: float, scale: float) -> None:
    scene = Scene(seed, SIZE, kind)
    moved: dict[str, Any] = {"shift": (dx, dy), "angle_deg": angle_deg, "scale": scale}
    alignment = found(scene.reference, scene.seen(**moved))
    assert corner_error_px(alignment.matrix, motion(SIZE, **moved), SIZE) < 1


def test_a_reference_does_not_fade_from_part_to_part() -> None:
    scene = Scene(2, SIZE, "board")
    model = AlignmentModel.prepare(scene.reference)
    before = model.polar_spectrum.copy()
    # Another product: nothing fits, so the turned starts are tried too, with OpenCV's phase correlation.
    for target in (scene.seen(angle_deg=6.0), Scene(4, SIZE, "two-tone").reference):
        first, *later = (model.estimate(target, LIMITS) for _ in range(3))
        assert all(np.array_equal(one.matrix, first.matrix) for one in later)
    assert np.array_equal(model.polar_spectrum, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_in_its_place_stays_there(kind: str) -> None:
    scene = Scene(3, SIZE, kind)
    for part in (scene.reference, noisy(scene.reference, 4.0, 1), relit(scene.reference, 0.8)):
        alignment = found(scene.reference, part)
        assert corner_error_px(alignment.matrix, motion(SIZE), SIZE) < 0.25
        assert alignment.residual < 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "light",
    [{"gain": 0.6}, {"gain": 1.3}, {"bias": 40}, {"gain": 0.85, "bias": 10, "gradient": 0.3}],
    ids=["darker", "brighter", "offset", "from one side"],
)
def test_another_exposure_is_no_motion(kind: str, light: dict[str, float]) -> None:
    scene = Scene(5, SIZE, kind)
    moved: dict[str, Any] = {"shift": (9.0, -6.0), "angle_deg": 3.0}
    alignment = found(scene.reference, noisy(relit(scene.seen(**moved), **light), 3.0, 2))
    assert corner_error_px(alignment.matrix, motion(SIZE, **moved), SIZE) < 1
    assert alignment.residual < 0.1


DEFECTS = [Box(30, 30, 130, 106), Box(10, 10, 310, 36), Box(170, 150, 270, 226)]  # a tenth of the area each


@pytest.mark.parametrize("kind", ["board", "two-tone", "texture"])
@pytest.mark.parametrize("shape", ["block", "extra"])
@pytest.mark.parametrize(
    "moved",
    [{}, {"shift": (4.0, -3.0)}, {"shift": (6.0, -4.0), "angle_deg": 1.0}],
    ids=["in place", "shifted", "turned"],
)
def test_a_defect_of_a_tenth_of_the_area_hardly_pulls_the_part_along(
    kind: str, shape: str, moved: dict[str, Any]
) -> None:
    for seed in range(2):
        scene = Scene(seed, SIZE, kind)
        model = AlignmentModel.prepare(scene.reference)
        for box in DEFECTS:
            alignment = model.estimate(scene.with_defect(box, shape).seen(**moved), LIMITS)
            assert corner_error_px(alignment.matrix, motion(SIZE, **moved), SIZE) < (2 if moved else 1)
            assert alignment.residual < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_another_product_does_not_fit(kind: str) -> None:
    for seed in range(3):
        reference = Scene(seed, SIZE, kind).reference
        for other in (
            Scene(seed + 40, SIZE, kind).reference,
            Scene(seed, SIZE, KINDS[(KINDS.index(kind) + 1) % 4]).reference,
        ):
            assert found(reference, other).residual > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_turned_by_90_degrees_does_not_fit(kind: str) -> None:
    reference = Scene(7, (240, 240), kind).reference
    for turns in (1, 2, 3):
        assert found(reference, np.ascontiguousarray(np.rot90(reference, turns))).residual > 0.5


@pytest.mark.parametrize("period_px", [8, 12, 20, 30, 50])
def test_a_grating_does_not_jump_a_period(period_px: int) -> None:
    reference = grating(SIZE, period_px)
    for shift in sorted({0, 1, period_px // 8, period_px // 4}):
        target = noisy(grating((SIZE[0] + 60, SIZE[1]), period_px)[:, period_px - shift :][:, : SIZE[0]], 1.0, shift)
        alignment = found(reference, target)
        assert alignment.shift_px == pytest.approx((shift, 0), abs=0.6)
        assert abs(alignment.angle_deg) < 0.2


def test_a_missing_bar_does_not_make_a_grating_jump() -> None:
    reference = grating(SIZE, 20)
    target = reference.copy()
    target[:, 160:180] = 190
    assert corner_error_px(found(reference, target).matrix, motion(SIZE), SIZE) < 0.5


BLANK = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        (BLANK, BLANK),
        (noisy(BLANK, 1.0, 1), noisy(BLANK, 1.0, 2)),
        (np.full_like(BLANK, 255), np.full_like(BLANK, 255)),
        (BLANK, Scene(1, SIZE).reference),
    ],
    ids=["blank", "noise", "white", "a blank reference says nothing"],
)
def test_where_there_is_nothing_to_hold_on_to_nothing_moves(reference: np.ndarray, target: np.ndarray) -> None:
    alignment = found(reference, target)
    assert alignment.matrix == pytest.approx((1, 0, 0, 0, 1, 0), abs=1e-6)
    assert alignment.residual == 0


def test_a_blank_target_does_not_fit_a_reference_that_shows_something() -> None:
    assert found(Scene(1, SIZE).reference, BLANK).residual > 0.5


@pytest.mark.parametrize("size", [(16, 16), (16, 60), (33, 17), (40, 40), (17, 400), (64, 64)])
def test_tiny_images_stay_in_their_place(size: tuple[int, int]) -> None:
    scene = Scene(4, size)
    alignment = found(scene.reference, scene.reference)
    assert corner_error_px(alignment.matrix, motion(size), size) < 0.1
    assert alignment.residual < 0.05
    if min(size) >= 40:
        moved = found(scene.reference, scene.seen(shift=(1.0, 1.0)))
        assert corner_error_px(moved.matrix, motion(size, shift=(1.0, 1.0)), size) < 0.5


@pytest.mark.parametrize(
    ("size", "scale"), [((640, 480), 2.0), ((160, 120), 0.5), ((480, 360), 1.5), ((323, 242), 323 / 320)]
)
@pytest.mark.parametrize("moved", [{}, {"shift": (8.0, -5.0)}, {"angle_deg": 4.0}], ids=str)
def test_a_camera_of_another_resolution_sees_the_same_part(
    size: tuple[int, int], scale: float, moved: dict[str, Any]
) -> None:
    scene = Scene(5, SIZE)
    target = scene.seen(size=size, scale=scale, **moved)
    wanted = motion(SIZE, target_size=size, scale=scale, **moved)
    alignment = found(scene.reference, target)
    assert corner_error_px(alignment.matrix, wanted, SIZE) < 0.5 * max(1.0, scale)
    assert alignment.shift_px == pytest.approx(moved.get("shift", (0, 0)), abs=0.4 * max(1.0, scale))
    assert alignment.scale == pytest.approx(scale, rel=0.005)


def test_large_images_cost_no_accuracy_worth_speaking_of() -> None:
    size = (1600, 1200)
    scene = Scene(6, size)
    moved: dict[str, Any] = {"shift": (31.0, -22.0), "angle_deg": 1.5}
    alignment = found(scene.reference, scene.seen(**moved))
    assert corner_error_px(alignment.matrix, motion(size, **moved), size) < 1


@pytest.mark.parametrize("kind", ["board", "photo"])
def test_only_the_valid_part_of_the_reference_is_looked_at(kind: str) -> None:
    scene = Scene(6, SIZE, kind)
    valid = np.zeros((SIZE[1], SIZE[0]), bool)
    valid[40:210, 130:300] = True
    moved: dict[str, Any] = {"shift": (8.0, -5.0), "angle_deg": 2.0}
    target = scene.seen(**moved)
    target[:, :115] = Scene(46, SIZE, kind).reference[:, :115]  # another part lies beside it
    alignment = found(scene.reference, target, valid)
    assert corner_error_px(alignment.matrix, motion(SIZE, **moved), SIZE) < 1
    assert alignment.residual < 0.1


def test_all_of_a_mask_is_no_mask_and_nothing_of_it_is_nothing_to_hold_on_to() -> None:
    scene = Scene(6, SIZE)
    target = scene.seen(shift=(5.0, 3.0))
    everything, nothing = np.ones((SIZE[1], SIZE[0]), bool), np.zeros((SIZE[1], SIZE[0]), bool)
    assert found(scene.reference, target, everything) == found(scene.reference, target)
    alignment = found(scene.reference, target, nothing)
    assert alignment.matrix == pytest.approx((1, 0, 0, 0, 1, 0), abs=1e-6)


def test_matrix_shift_angle_and_scale_tell_one_story() -> None:
    scene = Scene(8, SIZE)
    alignment = found(scene.reference, scene.seen(shift=(6.0, -3.0), angle_deg=5.0, scale=1.03))
    rebuilt = motion(SIZE, shift=alignment.shift_px, angle_deg=alignment.angle_deg, scale=alignment.scale)
    assert corner_error_px(alignment.matrix, rebuilt, SIZE) < 1e-6


def test_one_model_serves_several_threads_and_changes_no_image() -> None:
    scene = Scene(9, SIZE)
    reference, target = scene.reference, scene.seen(shift=(4.0, 7.0))
    kept = reference.copy(), target.copy()
    model = AlignmentModel.prepare(reference)
    expected = model.estimate(target, LIMITS)
    answers: list[Alignment] = []
    threads = [threading.Thread(target=lambda: answers.append(model.estimate(target, LIMITS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [expected] * 4
    assert np.array_equal(reference, kept[0])
    assert np.array_equal(target, kept[1])


def test_read_only_images_and_views_are_taken() -> None:
    reference = Scene(9, SIZE).reference
    reference.flags.writeable = False
    view = cv2.copyMakeBorder(reference, 5, 5, 5, 5, cv2.BORDER_REFLECT)[5:-5, 5:-5]
    assert not view.flags.c_contiguous
    assert found(reference, view).residual < 0.05
