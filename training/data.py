"""What a trainer reads: examples from pair sets or from the tiny generator, as rows that TRL understands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.canvas import draw_on_canvas
from differad_edge.engines.vlm.layout import WorkingSize
from differad_edge.geometry import from_grid, to_grid, union_box
from differad_edge.images import load_image
from differad_edge.pairs import Pair
from training.formats import FORMATS, UNNAMED, location_name
from training.tiny.pairs import difficulty_at, loosened, tiny_pair

if TYPE_CHECKING:
    from datasets import Dataset

ZERO_BOX = (0, 0, 0, 0)
"""Stands for "no anomaly" in the answer and in the rewards."""
_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Example:
    """One pair with its truth.

    ``reference``, ``target``: HxWx3 uint8 RGB. ``box``: on the 0-1000 grid of the target, None for a normal.
    ``thought``: what the cold start teaches the model to say before its answer. ``defect_type``: the first that the
    data set names, None where it names none.
    """

    reference: NDArray[np.uint8]
    target: NDArray[np.uint8]
    box: tuple[int, int, int, int] | None
    thought: str
    defect_type: str | None = None


class Source(Protocol):
    """Examples by number; the same number gives the same example on every machine."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True)
class PairSource:
    """Examples of pair sets. Several boxes become the one around all of them: the paper's protocol knows one."""

    pairs: Sequence[Pair]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> Example:
        pair = self.pairs[index]
        reference, target = load_image(pair.reference), load_image(pair.target)
        height, width = target.shape[:2]
        return replace(truth_of(pair, width, height), reference=_rgb(reference), target=_rgb(target))


@dataclass(frozen=True)
class TinySource:
    """Generated pairs of ``seed``, harder and harder from ``ramp_start`` to ``ramp_end`` (shares of all of them).

    ``hardest``: the difficulty at ``ramp_end``. ``loose``: each edge of a box lies outside the true one by up to this
    share of the box's side, in whole pixels.
    """

    pairs: int
    seed: int
    ramp_start: float = 0.0
    ramp_end: float = 0.0
    loose: float = 0.0
    hardest: float = 1.0

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, index: int, /) -> Example:
        difficulty = self.hardest * difficulty_at((index + 1) / self.pairs, self.ramp_start, self.ramp_end)
        pair = tiny_pair(self.seed, index, difficulty)
        if pair.box is None or not self.loose:
            return Example(*pair)
        return Example(*pair._replace(box=loosened(pair.box, self.loose, np.random.default_rng([self.seed, index, 1]))))


@dataclass(frozen=True)
class CanvasSource:
    """Examples as a student sees them: both images at its working size, the box on the grid of the canvas."""

    source: Source
    size: WorkingSize

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        example = self.source[index]
        reference, _ = draw_on_canvas(example.reference, self.size)
        target, placement = draw_on_canvas(example.target, self.size)
        box = example.box
        if box is not None and self.size.fit == "letterbox":
            height, width = example.target.shape[:2]
            box = placement.grid_box(from_grid(box, width, height))
        return replace(example, reference=reference, target=target, box=box)


def truth_of(pair: Pair, width_px: int, height_px: int) -> Example:
    """The example of a pair whose target has this size, without its images."""
    box = to_grid(union_box(pair.boxes), width_px, height_px) if pair.boxes else None
    thought = pair.description or thought_of(box, pair.defect_types)
    return Example(_NO_IMAGE, _NO_IMAGE, box, thought, next(iter(pair.defect_types), None))


def thought_of(box: tuple[int, int, int, int] | None, defect_types: Sequence[str]) -> str:
    """A sentence for a pair that has no description: in which ninth of the target it differs, and how."""
    if box is None:
        return "Nothing differs."
    what = ", ".join(defect_types).replace("_", " ")
    return f"It differs at the {location_name(box)}: {what}." if what else f"It differs at the {location_name(box)}."


def rows(source: Source, *, answers: str, seed: int) -> Dataset:
    """``source`` as a map-style data set whose rows are made when they are read.

    A row: ``prompt`` (chat messages with two image places), ``images`` (reference and target, PIL RGB), ``completion``
    (the right answer), ``box`` (four grid steps, zeros for a normal), ``location`` and ``type`` (words, None for a
    normal), ``index``. ``answers``: one of formats.FORMATS.
    """
    from datasets import Dataset

    def read(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        # A batch of GRPO holds every example once for each completion.
        examples = {index: _row(source[index], index) for index in dict.fromkeys(batch["index"])}
        columns: dict[str, list[Any]] = {}
        for index in batch["index"]:
            for name, value in examples[index].items():
                columns.setdefault(name, []).append(value)
        return columns

    def _row(example: Example, index: int) -> dict[str, Any]:
        from PIL import Image

        how = FORMATS[answers]
        return {
            "index": index,
            "prompt": how.chat(index, seed),
            "images": [Image.fromarray(example.reference), Image.fromarray(example.target)],
            "completion": [{"role": "assistant", "content": how.answer(example)}],
            "box": list(example.box or ZERO_BOX),
            "location": None if example.box is None else location_name(example.box),
            "type": None if example.box is None else example.defect_type or UNNAMED,
        }

    return Dataset.from_dict({"index": list(range(len(source)))}).with_transform(read)


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
