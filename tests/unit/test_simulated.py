"""Simulated parts: repeatable, truthful about their defects, and seen as a camera on a line would see them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from differad_edge.cameras.simulated import PRODUCT_NAMES, SimulatedPart, SimulatedProduct
from differad_edge.errors import ConfigError
from differad_edge.image_quality import frame_fault, measure_quality

SIZE = 192
ALL_DEFECTS = [(name, kind) for name in PRODUCT_NAMES for kind in SimulatedProduct(name, SIZE).kinds]


@pytest.fixture(scope="module")
def products() -> dict[str, SimulatedProduct]:
    return {name: SimulatedProduct(name, SIZE) for name in PRODUCT_NAMES}


@pytest.mark.parametrize("name", PRODUCT_NAMES)
class TestStream:
    def test_the_golden_sample_is_a_frame_that_can_be_inspected(
        self, products: dict[str, SimulatedProduct], name: str
    ) -> None:
        golden = products[name].golden()
        assert (golden.shape, golden.dtype, golden.flags.c_contiguous) == ((SIZE, SIZE, 3), np.uint8, True)
        assert frame_fault(measure_quality(golden), None) is None

    def test_one_part_in_three_is_defective(self, products: dict[str, SimulatedProduct], name: str) -> None:
        parts = [products[name].part(index) for index in range(12)]
        for first in range(0, 12, 3):
            assert sum(part.defect is not None for part in parts[first : first + 3]) == 1
        assert len({part.defect for part in parts if part.defect}) == 4

    def test_boxes_are_there_exactly_when_there_is_a_defect(
        self, products: dict[str, SimulatedProduct], name: str
    ) -> None:
        for part in (products[name].part(index) for index in range(9)):
            assert bool(part.boxes) == (part.defect is not None)

    def test_a_part_is_the_same_whatever_came_before(self, products: dict[str, SimulatedProduct], name: str) -> None:
        again = SimulatedProduct(name, SIZE)
        np.testing.assert_array_equal(again.part(5).image, products[name].part(5).image)
        assert again.part(5).boxes == products[name].part(5).boxes

    def test_parts_and_good_parts_and_seeds_differ(self, products: dict[str, SimulatedProduct], name: str) -> None:
        product = products[name]
        other = SimulatedProduct(name, SIZE, seed=1)
        images = [product.golden(), product.good(0), product.good(1), product.part(0).image, other.part(0).image]
        for index, image in enumerate(images):
            assert all(not np.array_equal(image, later) for later in images[index + 1 :])

    def test_a_good_part_lies_nearly_where_the_golden_sample_lies(
        self, products: dict[str, SimulatedProduct], name: str
    ) -> None:
        if name == "felt":
            pytest.skip("no two sheets are the same picture")
        golden = products[name].golden().astype(np.float64)
        for index in range(3):
            good = products[name].good(index).astype(np.float64)
            assert np.corrcoef(golden.ravel(), good.ravel())[0, 1] > 0.6


@pytest.mark.parametrize(("name", "kind"), ALL_DEFECTS)
def test_every_defect_can_be_seen_and_its_box_is_tight(
    products: dict[str, SimulatedProduct], name: str, kind: str
) -> None:
    for index in range(2):
        part = products[name].with_defect(kind, index)
        (box,) = part.boxes
        assert part.defect == kind
        assert box.x1 >= 0
        assert box.y1 >= 0
        assert box.x2 <= SIZE
        assert box.y2 <= SIZE
        assert max(box.width, box.height) >= 4
        assert box.area <= 0.12 * SIZE**2


@pytest.mark.parametrize("size", [128, 193, 800])
def test_any_size_gives_square_frames_of_it(size: int) -> None:
    part: SimulatedPart = SimulatedProduct("label", size).part(0)
    assert part.image.shape == (size, size, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "engine"}, "product: got 'engine', allowed: gasket, board, label, felt"),
        ({"name": "board", "size": 100}, "size: got 100, allowed: 128 to 4096 pixels"),
        ({"name": "board", "size": 5000}, "size: got 5000, allowed"),
        ({"name": "board", "seed": -1}, "seed: got -1, allowed: at least 0"),
    ],
)
def test_what_cannot_be_simulated_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimulatedProduct(**arguments)  # type: ignore[arg-type]


def test_a_defect_that_a_product_cannot_have_is_named() -> None:
    with pytest.raises(ConfigError, match="defect: got 'tear', allowed for gasket: missing hole, scratch"):
        SimulatedProduct("gasket", SIZE).with_defect("tear")


def test_nothing_of_training_is_needed() -> None:
    code = "import differad_edge.cameras.simulated, sys; print([m for m in sys.modules if m.startswith('distill')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
