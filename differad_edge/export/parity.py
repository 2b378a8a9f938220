"""``differad-edge verify``: does what was exported answer as the model that it was exported from?

At export PyTorch's own answers about generated pictures are written beside the graphs (golden.npz), so that a robot
needs neither the checkpoint nor PyTorch to find out. Compared are, from the picture to the verdict: vision features,
keys and values of every layer, the last hidden state, logits, the tokens of greedy answers, verdicts and boxes. What
counts are the last ones, verdicts that flip and boxes that move, where PyTorch decided clearly: of two digits that it
found equally likely any arithmetic may take the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.canvas import draw_on_canvas
from differad_edge.engines.vlm.decode import write_box
from differad_edge.engines.vlm.exported import VERIFIED, Exported
from differad_edge.engines.vlm.numbers import to_float32
from differad_edge.engines.vlm.questions import Question
from differad_edge.engines.vlm.runner import Floats, Runner
from differad_edge.errors import ExportError
from differad_edge.geometry import iou
from differad_edge.images import Image, load_image
from differad_edge.pairs import load_pairs
from differad_edge.results import Box

__all__ = ["GOLDEN", "Agreement", "Answers", "answers_of", "compare_answers", "generated_pictures", "record"]

GOLDEN = "golden.npz"
GOLDEN_PAIRS = 8
GREEDY_TOKENS = 12
_CELLS = 12  # of a generated picture's coarsest structure, a side

LEAST_BOX_IOU = 0.9
TOLERANCE = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.15, "fp8": 1.0, "int8": 1.0, "int4": 1.0}
"""How far a logit may be off, in standard deviations of the logits, by precision."""
LEAST_LIKE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.1, "fp8": 0.6, "int8": 0.6, "int4": 0.6}
"""The same of features, keys, values and hidden states, as a share of their size; nothing in common: 1 and more."""
CLEAR = {"float32": 1e-3, "float16": 0.1, "bfloat16": math.log(0.6 / 0.4)}
"""Difference of two logits from which a decision is clear; for fewer bits as for bfloat16: 60 % against 40 %."""
_CHOICES = 32  # free tokens of a box, at most


@dataclass(frozen=True)
class Answers:
    """What a runner says about N pairs; ``layers``: (N, 2 * layers, kv_heads, prefix), keys and values projected.

    ``hidden``: (N, (1 + queries) * width), one state behind the other. ``ng``: (N,) how far the logit of NG lies above
    that of OK. ``choices``, ``margins``: (N, 32) of the boxes as in WrittenBox, -1 and 0 behind the last.
    """

    features: Floats
    layers: Floats
    hidden: Floats
    logits: Floats
    tokens: NDArray[np.int64]
    ng: Floats
    boxes: NDArray[np.int64]
    choices: NDArray[np.int64]
    margins: Floats


@dataclass(frozen=True)
class Agreement:
    """Differences between two runners on N pairs.

    ``features``, ``layers``, ``hidden``: root mean square of the differences over that of the right values, for
    ``layers`` of the worst layer. ``logits``: largest difference of the logits between which answers decide, in their
    standard deviations; ``logit_abs``: the same itself. ``tokens``: share of greedy answers that are the same to the
    last token. ``verdict_flips``: pairs; ``box_iou``: smallest of all pairs. ``flip_margin``, ``move_margin``: by how
    much, in logits, the clearest decision was made that flipped a verdict or moved a box by more than rounding.
    """

    pairs: int
    features: float
    layers: float
    hidden: float
    logits: float
    logit_abs: float
    tokens: float
    verdict_flips: int
    flip_margin: float
    box_iou: float
    move_margin: float

    def to_dict(self) -> dict[str, float | None]:
        """In plain JSON types; None for a figure that is no finite number."""
        return {name: figure if math.isfinite(figure) else None for name, figure in asdict(self).items()}

    def agreed(self, precision: str) -> bool:
        """Whether this is the same model: as near as the precision allows, and nothing clear is decided otherwise.

        A figure that is no finite number is no agreement.
        """
        if None in self.to_dict().values():
            return False
        exact = precision != "float32" or self.tokens == 1.0
        like = all(figure <= LEAST_LIKE[precision] for figure in (self.features, self.layers, self.hidden))
        clear = CLEAR.get(precision, CLEAR["bfloat16"])
        same = all(margin <= clear for margin in (self.flip_margin, self.move_margin))
        return exact and like and same and self.logits <= TOLERANCE[precision]


def generated_pictures(question: Question, count: int, seed: int = 0) -> list[tuple[Image, Image]]:
    """``count`` pairs at the working size: smooth random pictures, and the same with a rectangle painted in."""
    rng = np.random.default_rng(seed)
    size = question.layout.size
    pairs = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (_CELLS, _CELLS, 3)).astype(np.float32)
        rows = np.linspace(0, _CELLS - 1, size.height_px).round().astype(int)
        columns = np.linspace(0, _CELLS - 1, size.width_px).round().astype(int)
        noise = rng.normal(0, 8, (size.height_px, size.width_px, 1))
        reference = np.clip(coarse[rows][:, columns] + noise, 0, 255).astype(np.uint8)
        target = reference.copy()
        x, y = (int(rng.integers(0, side * 3 // 4)) for side in (size.width_px, size.height_px))
        target[y : y + size.height_px // 6, x : x + size.width_px // 5] = rng.integers(0, 256, 3)
        pairs.append((reference, target))
    return pairs


def real_pictures(question: Question, folder: Path, most: int | None = None) -> list[tuple[Image, Image]]:
    """The pairs of a pair set, ``most`` of them spread over it, at the working size. Raises PairsError, ImageError."""
    size, pairs = question.layout.size, load_pairs(folder).pairs
    step = 1 if most is None else max(1, math.ceil(len(pairs) / most))
    return [
        (draw_on_canvas(load_image(pair.reference), size)[0], draw_on_canvas(load_image(pair.target), size)[0])
        for pair in pairs[::step]
    ]


def answers_of(
    runner: Runner,
    question: Question,
    pairs: Sequence[tuple[Image, Image]],
    progress: Callable[[], None] | None = None,
) -> Answers:
    """Ask about every pair, as NG whatever the verdict, so that there is a box to compare."""
    found: list[tuple[Any, ...]] = []
    grammar, layout = question.grammar, question.layout
    first = question.order == "student"
    for number, (reference, target) in enumerate(pairs):
        features = runner.encode(reference)
        look = runner.pooled(features)
        prefix = runner.make_prefix(str(number), features)
        kept = to_float32(runner.save_prefix(prefix)["keys_and_values"])
        kept = kept.reshape(-1, *kept.shape[-3:])
        runner.load(prefix)
        read = runner.read(runner.encode(target))
        hidden = read[0]
        logits = runner.logits(hidden, grammar.choices)
        tokens = _greedy(runner, hidden, layout.length)
        lead = grammar.verdicts[1:] or grammar.opening
        written = write_box(runner, grammar, lead=lead, at=layout.length, zero_box=not first)
        if first:
            ok, bad = runner.logits(hidden, grammar.verdicts)
            ng = float(bad - ok)
        else:  # the box is the verdict
            ng = min(written.margins) * (1.0 if any(written.box) else -1.0)
        found.append(
            (
                look,
                kept @ _direction(kept.shape[-1]),
                read.reshape(-1),
                logits,
                tokens,
                ng,
                written.box,
                _filled(written.choices, -1),
                _filled(written.margins, 0.0),
            )
        )
        if progress is not None:
            progress()
    columns = [np.stack([np.asarray(row[index]) for row in found]) for index in range(len(found[0]))]
    return Answers(*columns)


def compare_answers(right: Answers, other: Answers) -> Agreement:
    """How far ``other`` is from ``right``. Raises ExportError where they are not about the same pairs."""
    for name, values in asdict(right).items():
        if values.shape != getattr(other, name).shape:
            raise ExportError(f"answers: {name}: got {getattr(other, name).shape}, allowed: {values.shape}")
    layers = [_apart(right.layers[:, n], other.layers[:, n]) for n in range(right.layers.shape[1])]
    said = np.isfinite(right.ng) & np.isfinite(other.ng)
    flips = ((right.ng >= 0) != (other.ng >= 0)) | ~said
    flip_margin = np.where(said, np.abs(right.ng), np.inf)[flips].max(initial=0.0)
    overlaps = [_overlap(*both) for both in zip(right.boxes, other.boxes, strict=True)]
    return Agreement(
        pairs=len(right.ng),
        features=_apart(right.features, other.features),
        layers=float(np.max(layers)),
        hidden=_apart(right.hidden, other.hidden),
        logits=float(np.abs(right.logits - other.logits).max() / max(float(right.logits.std()), 1e-12)),
        logit_abs=float(np.abs(right.logits - other.logits).max()),
        tokens=float((right.tokens == other.tokens).all(axis=1).mean()),
        verdict_flips=int(flips.sum()),
        flip_margin=float(flip_margin),
        box_iou=float(min(overlaps)),
        move_margin=float(
            np.max(
                [_parting(right, other, row) for row, overlap in enumerate(overlaps) if overlap < LEAST_BOX_IOU],
                initial=0.0,
            )
        ),
    )


def write_golden(answers: Answers, folder: Path) -> None:
    """Write the right answers beside an export."""
    np.savez_compressed(folder / GOLDEN, **asdict(answers))


def read_golden(exported: Exported) -> Answers:
    """The right answers. Raises ExportError for a file that is torn."""
    try:
        with np.load(exported.folder / GOLDEN, allow_pickle=False) as file:
            return Answers(**{name: file[name] for name in Answers.__dataclass_fields__})
    except Exception as exc:  # a damaged archive fails in many ways
        raise ExportError(f"{exported.folder / GOLDEN}: cannot be read: {exc}") from exc


def record(exported: Exported, runtime: str, version: str, agreement: Agreement, *, agreed: bool) -> None:
    """Write down whether ``runtime`` agreed; what has not, is not loaded. Raises ExportError.

    What was there and cannot be read is replaced: nothing is loaded by it.
    """
    file = exported.folder / VERIFIED
    entry = {"manifest_sha256": exported.sha256, "version": version, "agreed": agreed, **agreement.to_dict()}
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        said = {}
    known = said if isinstance(said, dict) else {}
    try:
        file.write_text(json.dumps(known | {runtime: entry}, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise ExportError(f"{file}: cannot be written: {exc}") from exc


def _greedy(runner: Runner, hidden: Floats, at: int) -> NDArray[np.int64]:
    """The first tokens of the freely written answer."""
    tokens: list[int] = []
    for number in range(GREEDY_TOKENS):
        tokens.append(int(runner.logits(hidden).argmax()))
        if number + 1 < GREEDY_TOKENS:
            hidden = runner.advance(tokens[-1:], at + number)[0]
    return np.array(tokens, np.int64)


def _direction(width: int) -> Floats:
    """A fixed direction on which keys and values are projected: a thousandth of their size to store."""
    return np.asarray(np.random.default_rng(width).normal(size=width) / np.sqrt(width), np.float32)


def _filled(values: Sequence[float], with_what: float) -> NDArray[Any]:
    return np.array([*values, *[with_what] * (_CHOICES - len(values))])


def _overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    if (one == other).all():
        return 1.0
    if not one.any() or not other.any():
        return 0.0  # a box against no box
    return iou(Box(*map(float, one)), Box(*map(float, other)))


def _parting(right: Answers, other: Answers, row: int) -> float:
    """With which margin ``right`` chose the first token of a box that ``other`` chose otherwise."""
    first = int((right.choices[row] != other.choices[row]).argmax())
    return float(right.margins[row, first])


def _apart(right: Floats, other: Floats) -> float:
    size = max(float(np.sqrt(np.square(right, dtype=np.float64).mean())), 1e-12)
    return float(np.sqrt(np.square(right - other, dtype=np.float64).mean())) / size
