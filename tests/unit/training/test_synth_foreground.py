from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.synth_foreground import foreground_mask


def on_ground(ground: tuple[int, int, int], part: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    shape = np.zeros((240, 300), np.uint8)
    cv2.ellipse(shape, (150, 120), (90, 60), 20, 0, 360, 1, cv2.FILLED)
    image = np.where(shape[..., None] > 0, np.uint8(part), np.uint8(ground)).astype(np.int16)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), shape > 0


@pytest.mark.parametrize(
    ("ground", "part"),
    [((240, 240, 240), (60, 60, 60)), ((10, 10, 10), (120, 130, 90)), ((40, 160, 40), (40, 40, 160))],
)
def test_a_part_on_one_colour_is_found(ground: tuple[int, int, int], part: tuple[int, int, int]) -> None:
    image, shape = on_ground(ground, part)
    found = foreground_mask(image)
    assert found.shape == shape.shape
    assert (found & shape).sum() / (found | shape).sum() > 0.95


def test_a_hole_that_shows_the_ground_belongs_to_the_part() -> None:
    image, shape = on_ground((240, 240, 240), (60, 60, 60))
    cv2.circle(image, (150, 120), 20, (240, 240, 240), cv2.FILLED)
    assert foreground_mask(image)[120, 150]
    assert not foreground_mask(image)[5, 5]
    assert shape[120, 150]


def test_a_part_cut_by_the_rim_is_found() -> None:
    image = np.full((200, 200, 3), 230, np.uint8)
    image[100:, 80:120] = 50
    found = foreground_mask(image)
    assert found[150, 100]
    assert not found[20, 20]


@pytest.mark.parametrize("kind", ["flat", "texture", "gradient", "two halves"])
def test_without_a_distinct_ground_it_is_the_whole_picture(kind: str) -> None:
    image = np.full((160, 160, 3), 128, np.uint8)
    if kind == "texture":
        image = np.random.default_rng(1).integers(0, 256, image.shape, dtype=np.uint8)
    elif kind == "gradient":
        image[:] = np.linspace(0, 255, 160).astype(np.uint8)[None, :, None]
    elif kind == "two halves":
        image[:, 80:] = 20
    assert foreground_mask(image).all()


def test_the_smallest_images_are_no_exception() -> None:
    assert foreground_mask(np.zeros((16, 16, 3), np.uint8)).shape == (16, 16)
    assert foreground_mask(np.zeros((16, 2000, 3), np.uint8)).shape == (16, 2000)
