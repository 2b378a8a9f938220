"""Pairs as the student has read them: shown as the engine shows them, decoded ahead, kept as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from differad_edge.engines.vlm.canvas import draw_on_canvas
from differad_edge.geometry import from_grid
from differad_edge.grounding import GridBox
from training.data import Source

if TYPE_CHECKING:
    from differad_edge.engines.vlm.layout import WorkingSize
    from differad_edge.images import Image
    from distill.head_model import FrozenStudent

__all__ = ["Drawn", "ReadPairs", "drawn"]


@dataclass(frozen=True)
class Drawn:
    """A pair at the working size: HxWx3 uint8 BGR; ``box``: in 0-1000 steps of the canvas, None for a good part."""

    reference: Image
    target: Image
    box: GridBox | None


def drawn(source: Source, index: int, size: WorkingSize) -> Drawn:
    """An example as the engine would show it to the student."""
    example = source[index]
    reference, _ = draw_on_canvas(np.ascontiguousarray(example.reference[..., ::-1]), size)
    target, placement = draw_on_canvas(np.ascontiguousarray(example.target[..., ::-1]), size)
    box = None if example.box is None else placement.grid_box(from_grid(example.box, *placement.size))
    return Drawn(reference, target, box)


class ReadPairs:
    """The pairs of ``source``, by number. ``keep_bytes``: of keys and values that need not be computed again."""

    def __init__(self, student: FrozenStudent, source: Source, size: WorkingSize, *, keep_bytes: float = 0.0) -> None:
        self._student, self._source, self._size = student, source, size
        self._room = keep_bytes
        self._kept: dict[int, tuple[Tensor, GridBox | None]] = {}
        self._coming: dict[int, Future[Drawn]] = {}

    def ahead(self, pool: ThreadPoolExecutor, indices: Sequence[int]) -> None:
        """Begin to decode those that will be asked for next."""
        for index in indices:
            if index not in self._kept and index not in self._coming:
                self._coming[index] = pool.submit(drawn, self._source, index, self._size)

    def __getitem__(self, index: int) -> tuple[Tensor, GridBox | None]:
        """Keys and values of the question about this pair, as `FrozenStudent.read` gives them, and its box."""
        if index in self._kept:
            return self._kept[index]
        coming = self._coming.pop(index, None)
        pair = drawn(self._source, index, self._size) if coming is None else coming.result()
        found = self._student.read(pair.reference, pair.target), pair.box
        # Those that came first stay: any pair comes again as often as any other.
        if found[0].nbytes <= self._room:
            self._room -= found[0].nbytes
            self._kept[index] = found
        return found
