"""Smooth bends are undone; what is a defect stays one; boxes find their way back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import Scene, bend, bent, motion, moved_box, noisy, relit

from differad_edge.geometry import iou
from differad_edge.references.local_align import Displacement, LocalAligner, to_target, warp_to_reference
from differad_edge.results import Box

KINDS = ["board", "two-tone", "texture", "photo"]
IDENTITY = np.eye(2, 3)
LIMIT_PX = 6.0


def structured(reference: np.ndarray) -> np.ndarray:
    """HxW bool: the half of the picture that shows the most edges."""
    grey = cv2.cvtColor(reference, cv2.COLOR_BGR2GRAY).astype(np.float32)
    edges = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    nearby = np.asarray(cv2.blur(edges, (31, 31)))
    return np.asarray(nearby > np.median(nearby))


def field_of(found: Displacement | None, size: tuple[int, int]) -> np.ndarray:
    """HxWx2 px."""
    return np.zeros((size[1], size[0], 2)) if found is None else np.asarray(cv2.resize(found.field, size))


# -- bends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(320, 240), (512, 512), (640, 480)])
@pytest.mark.parametrize("largest_px", [2.0, 4.0])
def test_a_smooth_bend_is_undone(kind: str, size: tuple[int, int], largest_px: float) -> None:
    scene = Scene(2, size, kind)
    target, true = bent(scene, bend(size, largest_px, seed=1))
    found = LocalAligner.prepare(scene.reference).refine(target, limit_px=LIMIT_PX)
    assert found is not None
    error = np.linalg.norm(field_of(found, size) - true, axis=2)[structured(scene.reference)]
    assert np.median(error) < 0.35
    assert np.percentile(error, 95) < 1.0 + 0.1 * largest_px
    straightened, _ = warp_to_reference(target, IDENTITY, found, size)
    assert (
        np.abs(straightened.astype(int) - scene.reference).mean()
        < 0.5 * np.abs(target.astype(int) - scene.reference).mean()
    )


def test_a_bend_is_found_under_a_global_motion_as_well() -> None:
    size = (480, 360)
    scene = Scene(4, size)
    matrix = motion(size, shift=(9.0, -5.0), angle_deg=3.0, scale=1.02)
    moved = scene.seen(shift=(9.0, -5.0), angle_deg=3.0, scale=1.02)
    there = structured(scene.reference)
    aligner = LocalAligner.prepare(scene.reference)
    none = field_of(aligner.refine(moved, limit_px=LIMIT_PX, matrix=matrix), size)[there]
    assert np.percentile(np.linalg.norm(none, axis=1), 95) < 0.3
    off = matrix.copy()
    off[:, 2] += (1.5, -2.0)  # what a global alignment may leave
    found = aligner.refine(moved, limit_px=LIMIT_PX, matrix=off)
    assert found is not None
    # In pixels of the reference: the target is turned and scaled against it.
    left = np.linalg.solve(matrix[:, :2], (-1.5, 2.0))
    field = field_of(found, size)[there]
    assert np.median(np.linalg.norm(field - left, axis=1)) < 0.3


@pytest.mark.parametrize("size", [(1600, 64), (2000, 40), (64, 1600), (401, 303), (250, 18)])
def test_strips_and_odd_sizes_are_measured_at_their_own_scale(size: tuple[int, int]) -> None:
    scene = Scene(3, size)
    aligner = LocalAligner.prepare(scene.reference)
    target, _ = bent(scene, lambda x, y: (0 * x, 0 * y + 3.0))
    found = aligner.refine(target, limit_px=LIMIT_PX)
    assert found is not None
    assert np.median(found.field[..., 0]) == pytest.approx(0, abs=0.4)
    assert np.median(found.field[..., 1]) == pytest.approx(3, abs=0.6)
    shifted = scene.seen(shift=(0.0, 7.0))
    assert aligner.refine(shifted, limit_px=LIMIT_PX, matrix=motion(size, shift=(0.0, 7.0))) is None


@pytest.mark.parametrize("limit_px", [0.5, 1.0, 2.5])
def test_no_displacement_is_longer_than_the_limit(limit_px: float) -> None:
    size = (320, 240)
    scene = Scene(2, size)
    target, _ = bent(scene, bend(size, 4.0, seed=1))
    found = LocalAligner.prepare(scene.reference).refine(target, limit_px=limit_px)
    field = field_of(found, size)
    assert np.linalg.norm(field, axis=2).max() <= limit_px * 1.001
    if limit_px > 0.5:
        assert np.linalg.norm(field, axis=2).max() > 0.7 * limit_px


BLANK = np.full((240, 320, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        (Scene(1).reference, Scene(1).reference),
        (Scene(1).reference, noisy(Scene(1).reference, 4.0, 3)),
        (Scene(1).reference, relit(Scene(1).reference, 0.8, 12)),
        (BLANK, BLANK),
        (noisy(BLANK, 3.0, 1), noisy(BLANK, 3.0, 2)),
        (BLANK, Scene(1).reference),
        (Scene(1, (16, 16)).reference, Scene(1, (16, 16)).reference),
        (Scene(1, (16, 90)).reference, Scene(1, (16, 90)).reference),
    ],
    ids=["same", "noise", "light", "blank", "only noise", "blank reference", "tiny", "narrow"],
)
def test_where_nothing_is_bent_nothing_moves(reference: np.ndarray, target: np.ndarray) -> None:
    assert LocalAligner.prepare(reference).refine(target, limit_px=LIMIT_PX) is None


# -- defects ----------------------------------------------------------------------------------------------------------


def different_area(a: np.ndarray, b: np.ndarray, box: Box) -> int:
    x1, y1, x2, y2 = (int(v) for v in box)
    window = (slice(max(0, y1 - 3), y2 + 3), slice(max(0, x1 - 3), x2 + 3))
    return int((np.abs(a[window].astype(int) - b[window]).max(axis=2) > 40).sum())


def kept_shares(kind: str, size: tuple[int, int], shape: str) -> list[float]:
    """Of random defects of 6 to 25 px: which share of their area is still different after the refinement."""
    kept = []
    for seed in range(3):
        scene = Scene(seed, size, kind)
        aligner = LocalAligner.prepare(scene.reference)
        rng = np.random.default_rng(seed)
        for _ in range(6):
            x, y = rng.integers(20, size[0] - 50), rng.integers(20, size[1] - 50)
            box = Box(x, y, x + rng.integers(6, 26), y + rng.integers(6, 26))
            part = scene.with_defect(box, shape).reference
            before = different_area(part, scene.reference, box)
            if before >= 30:
                found = aligner.refine(part, limit_px=LIMIT_PX)
                image, _ = warp_to_reference(part, IDENTITY, found, size)
                kept.append(different_area(image, scene.reference, box) / before)
    assert len(kept) > 10
    return kept


@pytest.mark.parametrize("kind", ["board", "two-tone"])
@pytest.mark.parametrize("shape", ["extra", "block"])
def test_defects_of_up_to_25_px_stay_what_they_are(kind: str, shape: str) -> None:
    assert min(kept_shares(kind, (640, 480), shape)) >= 0.85


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["extra", "block"])
def test_defects_that_are_large_for_a_small_picture_stay_findable(kind: str, shape: str) -> None:
    kept = kept_shares(kind, (320, 240), shape)
    assert np.median(kept) >= 0.95
    assert min(kept) >= 0.6


def test_missing_discs_and_broken_traces_on_a_two_tone_board() -> None:
    size = (480, 360)
    golden = np.full((size[1], size[0], 3), 255, np.uint8)
    for y in range(30, 340, 30):
        cv2.line(golden, (20, y), (460, y), (0, 0, 0), 8)
        cv2.circle(golden, (60 + y, y), 12, (0, 0, 0), -1)
    aligner = LocalAligner.prepare(golden)
    for y in range(60, 300, 60):
        open_trace = golden.copy()
        open_trace[y - 6 : y + 6, 300:318] = 255
        missing = golden.copy()
        cv2.circle(missing, (60 + y, y), 13, (255, 255, 255), -1)
        for part, box in ((open_trace, Box(300, y - 6, 318, y + 6)), (missing, Box(46 + y, y - 13, 74 + y, y + 13))):
            found = aligner.refine(part, limit_px=LIMIT_PX)
            image, _ = warp_to_reference(part, IDENTITY, found, size)
            assert different_area(image, golden, box) >= 0.85 * different_area(part, golden, box)


# -- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_find_their_way_back_into_a_bent_target(kind: str) -> None:
    size = (480, 360)
    scene = Scene(5, size, kind)
    target, true = bent(scene, bend(size, 4.0, seed=2))
    found = LocalAligner.prepare(scene.reference).refine(target, limit_px=LIMIT_PX)
    assert found is not None
    there = structured(scene.reference)
    errors = []
    for y in range(40, 320, 40):
        for x in range(40, 440, 40):
            if there[y, x]:
                box = Box(x - 10, y - 8, x + 10, y + 8)
                moved = to_target(box, IDENTITY, found)
                wanted = np.array(box.center) + true[y, x]
                errors.append(float(np.linalg.norm(np.array(moved.center) - wanted)))
                assert moved.width == pytest.approx(box.width, abs=1.5)
                assert moved.height == pytest.approx(box.height, abs=1.5)
    assert len(errors) > 10
    assert np.percentile(errors, 90) < 1
    assert max(errors) < 2


MOVED: dict[str, Any] = {"shift": (11.0, -6.0), "angle_deg": 4.0, "scale": 1.04}


@pytest.mark.parametrize("displaced", [False, True])
def test_a_box_lands_on_what_it_was_drawn_around(displaced: bool) -> None:
    """to_target and warp_to_reference are one mapping: what the warp brings to a box lies in the box's image."""
    size, target_size = (300, 220), (420, 340)
    moved = {**MOVED, "size": target_size}
    scene = Scene(6, size, "texture")
    matrix = motion(size, target_size=target_size, **MOVED)
    target = scene.seen(**moved) // 4
    displacement = None
    if displaced:
        displacement = Displacement(np.full((20, 30, 2), (2.5, -1.5), np.float32), size)
    for box in (Box(60, 50, 90, 70), Box(200, 150, 240, 190), Box(10, 180, 30, 200)):
        marked = target.copy()
        landed = to_target(box, matrix, displacement)
        x1, y1, x2, y2 = (round(v) for v in landed)
        marked[y1:y2, x1:x2] = 255
        seen, _ = warp_to_reference(marked, matrix, displacement, size)
        rows, columns = np.nonzero(seen[..., 0] > 160)
        around = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # The box around a turned box is larger; its middle is not.
        assert np.abs(np.array(around.center) - box.center).max() <= 1
        inside = seen[int(box.y1) + 1 : int(box.y2) - 1, int(box.x1) + 1 : int(box.x2) - 1]
        assert (inside > 160).mean() > 0.98


@settings(max_examples=40, deadline=None)
@given(
    dx=st.floats(-40, 40),
    dy=st.floats(-40, 40),
    angle_deg=st.floats(-10, 10),
    scale=st.floats(0.5, 2),
    x=st.integers(20, 200),
    y=st.integers(20, 140),
)
def test_without_a_displacement_a_box_moves_by_the_matrix_alone(
    dx: float, dy: float, angle_deg: float, scale: float, x: int, y: int
) -> None:
    matrix = motion((240, 180), shift=(dx, dy), angle_deg=angle_deg, scale=scale, target_size=(600, 600))
    box = Box(x, y, x + 20, y + 15)
    assert iou(to_target(box, matrix, None), moved_box(box, matrix, (600, 600))) > 0.999


def test_the_warp_says_what_the_target_does_not_show() -> None:
    size = (200, 150)
    scene = Scene(7, size)
    for shift in ((30.0, 0.0), (0.0, -25.0), (-18.0, 12.0)):
        image, valid = warp_to_reference(scene.seen(shift=shift), motion(size, shift=shift), None, size)
        assert image.shape == scene.reference.shape
        assert valid is not None
        expected = (size[0] - abs(shift[0])) * (size[1] - abs(shift[1]))
        assert np.count_nonzero(valid) == pytest.approx(expected, rel=0.02)
        assert np.abs(image.astype(int) - scene.reference)[valid].mean() < 2
    _, valid = warp_to_reference(scene.reference, IDENTITY, None, size)
    assert valid is None or valid.all()


def test_a_target_in_its_place_is_not_interpolated() -> None:
    scene = Scene(7)
    image, _ = warp_to_reference(scene.reference, IDENTITY, None, scene.size)
    assert np.array_equal(image, scene.reference)
    nearly = motion(scene.size, shift=(0.1, -0.1))
    image, _ = warp_to_reference(scene.reference, nearly, None, scene.size)
    assert np.array_equal(image, scene.reference), "a tenth of a pixel is not worth its sharpness"
