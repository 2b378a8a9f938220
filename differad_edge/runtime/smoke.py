"""Smoke pairs: parts whose verdict is known, judged by what was loaded before anything is inspected with it.

Engines have been seen to build, to load, and then to answer garbage; one that says OK to everything looks healthy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from differad_edge.errors import SmokeTestError
from differad_edge.images import Image, load_image
from differad_edge.references.records import Product, Reference
from differad_edge.results import Verdict
from differad_edge.runtime.serving import PartInspector
from differad_edge.runtime.settings import SmokePair

__all__ = ["damaged", "smoke_test"]

_DAMAGE_SHARE = 0.15  # of the smaller side of what is compared
_GRID = 5
_LIMIT_MS = 120_000.0  # the first comparison of a large engine compiles and prepares; one that hangs must show too


def smoke_test(inspector: PartInspector, product: Product, pairs: Mapping[str, Sequence[SmokePair]]) -> None:
    """Raise SmokeTestError unless each known part of ``product`` gets its verdict; it warms the engine up."""
    for what, image, wanted in _known_parts(product, pairs.get(product.id, ())):
        result = inspector.inspect(image, product.id, _LIMIT_MS)
        if result.verdict is not wanted:
            why = "" if result.reason is None else f" ({result.reason}: {result.detail})"
            raise SmokeTestError(
                f"product {product.id!r}, engine {result.engine!r}: {what} got {result.verdict}{why} with the score "
                f"{result.score:.3f}, allowed: {wanted}"
            )


def _known_parts(product: Product, pairs: Sequence[SmokePair]) -> Iterator[tuple[str, Image, Verdict]]:
    reference = product.references[0]
    yield "its golden sample", reference.image, Verdict.OK
    yield "its golden sample with a square damaged", damaged(reference), Verdict.NG
    for pair in pairs:
        yield f"smoke pair {pair.image.name}", load_image(pair.image, name="smoke pair"), Verdict(pair.verdict)


def damaged(reference: Reference) -> Image:
    """The reference with a square whose grey levels are all moved by half of their range.

    The square lies where most of it is compared: inside the region of interest, outside of what is ignored.
    """
    image: Image = reference.image.copy()
    height, width = image.shape[:2]
    x1, y1, x2, y2 = reference.roi or (0, 0, width, height)
    side = max(8, round(_DAMAGE_SHARE * min(x2 - x1, y2 - y1)))
    compared = np.ones((height, width), bool) if reference.ignore is None else ~reference.ignore

    def compared_share(corner: tuple[int, int]) -> float:
        return float(compared[corner[1] : corner[1] + side, corner[0] : corner[0] + side].mean())

    # From the middle outwards, so that of equally good places the middle one is taken.
    steps = sorted(range(_GRID), key=lambda step: abs(step - _GRID // 2))
    corners = [
        (x1 + (x2 - x1 - side) * column // (_GRID - 1), y1 + (y2 - y1 - side) * row // (_GRID - 1))
        for row in steps
        for column in steps
    ]
    x, y = max(corners, key=compared_share)
    image[y : y + side, x : x + side] += np.uint8(128)  # wraps around: every grey level changes by as much
    return image
