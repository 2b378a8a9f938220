"""Images reach the working size by a stated rule, and boxes come back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge.engines.vlm.canvas import draw_on_canvas, place
from differad_edge.engines.vlm.layout import Fit, WorkingSize
from differad_edge.results import Box

SIZES = [(800, 800), (1920, 1080), (333, 777), (64, 2000), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_the_whole_image_is_seen(size: tuple[int, int], fit: Fit) -> None:
    working = WorkingSize(640, 800, fit)
    image = np.full((size[1], size[0], 3), (10, 200, 30), np.uint8)
    canvas, placement = draw_on_canvas(image, working)
    assert canvas.shape == (800, 640, 3)
    assert canvas.flags.c_contiguous
    seen = (canvas == (10, 200, 30)).all(axis=2)
    assert seen.sum() == placement.width_px * placement.height_px
    whole = placement.box_px(placement.grid_box(Box(0, 0, *size)))
    assert whole is not None
    assert whole == pytest.approx((0, 0, *size), abs=max(size) / 500)
    if fit == "stretch":
        assert seen.all()
    else:
        assert placement.width_px / placement.height_px == pytest.approx(size[0] / size[1], rel=0.05) or 1 in (
            placement.width_px,
            placement.height_px,
        )


@given(
    width=st.integers(20, 3000),
    height=st.integers(20, 3000),
    fit=st.sampled_from(["stretch", "letterbox"]),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_comes_back_to_half_a_step(
    width: int, height: int, fit: Fit, corners: tuple[float, float, float, float]
) -> None:
    working = WorkingSize(800, 640, fit)
    placement = place(width, height, working)
    x1, x2 = sorted((corners[0] * width, corners[2] * width))
    y1, y2 = sorted((corners[1] * height, corners[3] * height))
    step = (800 / 1000 * width / placement.width_px, 640 / 1000 * height / placement.height_px)
    if x2 - x1 < 2 * step[0] or y2 - y1 < 2 * step[1]:
        return
    back = placement.box_px(placement.grid_box(Box(x1, y1, x2, y2)))
    assert back is not None
    assert (back.x1, back.x2) == pytest.approx((x1, x2), abs=0.51 * step[0])
    assert (back.y1, back.y2) == pytest.approx((y1, y2), abs=0.51 * step[1])


def test_a_box_beside_the_image_is_none() -> None:
    placement = place(1000, 100, WorkingSize(800, 800, "letterbox"))
    assert placement.box_px((0, 0, 1000, 400)) is None
    assert placement.box_px((0, 0, 1000, 500)) is not None


def test_an_image_of_the_working_size_is_left_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    assert np.array_equal(draw_on_canvas(image, WorkingSize(640, 640))[0], image)
