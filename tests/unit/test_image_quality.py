"""Exposure, contrast and focus: a frame is at fault only where it shows less than its reference."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from differad_edge.images import frame_fault, measure_quality


def scene(seed: int = 0) -> np.ndarray:
    """A part with edges and texture, as a lit camera sees it."""
    random = np.random.default_rng(seed)
    image = np.full((600, 800, 3), 90, np.uint8)
    for _ in range(40):
        x, y, side = (int(v) for v in random.integers(20, 560, 3))
        shade = tuple(int(v) for v in random.integers(30, 230, 3))
        cv2.rectangle(image, (x, y), (x + side // 4, y + side // 6), shade, -1)
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


REFERENCE = measure_quality(scene())


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("black", lambda image: image // 40),
        ("black", np.zeros_like),
        ("saturated", lambda image: np.full_like(image, 255)),
        ("saturated", lambda image: np.maximum(image, 252)),
        ("blank", lambda image: np.full_like(image, 128)),
        ("blurred", lambda image: cv2.GaussianBlur(image, (0, 0), 8)),
        ("blurred", lambda image: cv2.GaussianBlur(image, (0, 0), 40)),  # so much that the contrast is gone as well
    ],
)
def test_a_frame_that_shows_nothing_is_named(name: str, spoil: object) -> None:
    fault = frame_fault(measure_quality(spoil(scene())), REFERENCE)  # type: ignore[operator]
    assert fault is not None
    assert fault.startswith(f"{name}: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: np.clip(image * 0.5, 0, 255).astype(np.uint8),  # half the light
        lambda image: np.clip(image * 1.5, 0, 255).astype(np.uint8),
        lambda image: cv2.GaussianBlur(image, (0, 0), 0.8),  # a little out of focus
        lambda image: cv2.rectangle(image.copy(), (100, 100), (500, 400), (90, 90, 90), -1),  # something is missing
        lambda image: cv2.rectangle(image.copy(), (0, 0), (480, 600), (90, 90, 90), -1),
        lambda image: np.clip(90 + np.random.default_rng(1).normal(0, 9, image.shape), 0, 255).astype(np.uint8),
    ],
    ids=[
        "same",
        "darker",
        "brighter",
        "softer",
        "missing part",
        "most parts missing",
        "all but a sensor's noise missing",
    ],
)
def test_a_frame_that_shows_the_part_is_compared(change: object) -> None:
    assert frame_fault(measure_quality(change(scene())), REFERENCE) is None  # type: ignore[operator]


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_frame_of_a_blank_reference_is_no_fault(level: int) -> None:
    blank = measure_quality(np.full((640, 640, 3), level, np.uint8))
    assert frame_fault(blank, blank) is None


@pytest.mark.parametrize("level", [0, 255])
def test_a_missing_trace_on_a_nearly_blank_board_is_for_the_engine(level: int) -> None:
    blank = np.full((640, 640, 3), level, np.uint8)
    with_trace = cv2.line(blank.copy(), (0, 300), (80, 300), (128, 128, 128), 3)
    assert frame_fault(measure_quality(blank), measure_quality(with_trace)) is None


@pytest.mark.parametrize(("level", "name"), [(0, "black"), (255, "saturated"), (128, "blank")])
def test_without_a_reference_an_empty_frame_is_a_fault(level: int, name: str) -> None:
    fault = frame_fault(measure_quality(np.full((64, 64, 3), level, np.uint8)), None)
    assert fault is not None
    assert fault.startswith(f"{name}: ")
    assert frame_fault(REFERENCE, None) is None


def test_measures_by_hand() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, 50:] = 255
    quality = measure_quality(image)
    assert quality.mean == pytest.approx(127.5)
    assert quality.std == pytest.approx(127.5)
    assert (quality.dark_share, quality.saturated_share) == (0.5, 0.5)
    # Two columns of 100 answer the step with +-255 in the Laplacian.
    assert quality.sharpness == pytest.approx(2 * 255**2 / 100)
    assert measure_quality(np.full((16, 16, 3), 9, np.uint8)).sharpness == 0


@pytest.mark.parametrize("shape", [(16, 16), (16, 16384), (4000, 3000), (3, 5)])
def test_any_size_is_measured(shape: tuple[int, int]) -> None:
    quality = measure_quality(np.full((*shape, 3), 200, np.uint8))
    assert quality.mean == pytest.approx(200)


@pytest.mark.slow
def test_measuring_800x800_takes_about_a_millisecond() -> None:
    image = cv2.resize(scene(), (800, 800))
    best_ms = float("inf")
    for _ in range(50):
        start = time.perf_counter()
        measure_quality(image)
        best_ms = min(best_ms, (time.perf_counter() - start) * 1000)
    assert best_ms < 2.0  # 0.6 ms where it was measured; the rest is room for slower machines


def test_two_blank_pictures_of_different_brightness_cannot_be_compared() -> None:
    grey = [measure_quality(np.full((64, 64, 3), level, np.uint8)) for level in (90, 95, 150)]
    assert frame_fault(grey[1], grey[0]) is None
    fault = frame_fault(grey[2], grey[0])
    assert fault is not None
    assert "60 grey levels" in fault
