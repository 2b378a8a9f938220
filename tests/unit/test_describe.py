"""The words follow from what is measured."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from differad_edge.describe import describe
from differad_edge.results import Box


def grey(level: int = 128, height: int = 300, width: int = 300) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("centre", "place"),
    [
        ((40, 40), "upper left"),
        ((260, 150), "middle right"),
        ((150, 150), "in the centre"),
        ((150, 270), "lower centre"),
    ],
)
def test_place_and_size(centre: tuple[int, int], place: str) -> None:
    target = grey()
    cv2.circle(target, centre, 10, (0, 0, 0), -1)
    box = Box(centre[0] - 10, centre[1] - 10, centre[0] + 11, centre[1] + 11)
    text = describe(grey(), target, box, None)
    assert place in text
    assert "21x21 px" in text


@pytest.mark.parametrize(("level", "word"), [(20, "darker"), (240, "brighter")])
def test_darker_and_brighter_with_the_measured_difference(level: int, word: str) -> None:
    target = grey()
    target[100:120, 100:120] = level
    text = describe(grey(), target, Box(100, 100, 120, 120), None)
    assert word in text
    assert f"{abs(level - 128)} grey levels" in text


def test_another_colour_of_the_same_lightness() -> None:
    reference, target = grey(), grey()
    lab = np.full((20, 20, 3), (128, 190, 128), np.uint8)
    lab[..., 0] = cv2.cvtColor(reference[:1, :1], cv2.COLOR_BGR2LAB)[0, 0, 0]
    target[100:120, 100:120] = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
    text = describe(reference, target, Box(100, 100, 120, 120), None)
    assert "of another colour" in text
    assert "darker" not in text
    assert "brighter" not in text


def test_extra_and_missing_are_told_apart() -> None:
    plain, spotted = grey(), grey()
    cv2.circle(spotted, (150, 150), 12, (10, 10, 10), -1)
    box = Box(138, 138, 163, 163)
    assert describe(plain, spotted, box, None).startswith("extra")
    assert describe(spotted, plain, box, None).startswith("missing")


def test_shape_words() -> None:
    line, disc = np.zeros((30, 60), bool), np.zeros((31, 31), np.uint8)
    line[14:16, 2:58] = True
    cv2.circle(disc, (15, 15), 14, 1, -1)
    target = grey()
    assert "line-like" in describe(grey(), target, Box(100, 100, 160, 130), line)
    assert "round" in describe(grey(), target, Box(100, 100, 131, 131), disc.astype(bool))


def test_a_box_at_the_very_edge_and_an_empty_mask_are_no_trouble() -> None:
    text = describe(grey(), grey(120), Box(290.5, 290.5, 305, 305), np.zeros((15, 15), bool))
    assert "lower right" in text
