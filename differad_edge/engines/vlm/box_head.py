"""The verdict and box head beside a student: five queries that are read with the question, and what is made of them.

::

    tail  TARGET ... <answer> VERDICT X1 Y1 X2 Y2

The queries are no tokens but learned embeddings. They stand behind the question, where nothing of it sees them, and the
answer is written over them: what the student says is the same with a head and without. A head's box is a draft, which
the student reads in one pass where it would write the same; its verdict is for those who train it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from differad_edge.engines.vlm.runner import Floats
from differad_edge.errors import MissingExtraError, ModelIntegrityError
from differad_edge.geometry import GRID
from differad_edge.grounding import GridBox

__all__ = ["BINS", "BOX_HEAD_FILE", "QUERIES", "BoxHead", "read_box_head", "write_box_head"]

BOX_HEAD_FILE = "head.safetensors"
QUERIES = 5
"""The verdict, x1, y1, x2, y2."""
BINS = GRID + 1
"""One for each step of the grid, from 0 to 1000."""
_FORMAT, _ABOUT = 1, "box_head"


@dataclass(frozen=True)
class BoxHead:
    """``model``: SHA-256 of the weights that it was trained for; the rest float32.

    ``queries``: (5, width) embeddings; ``verdict_weight``, ``verdict_bias``: (width,) and (1,), to how far the logit of
    NG lies above that of OK; ``bins_weight``, ``bins_bias``: (1001, width) and (1001,), to the logits of a coordinate's
    steps.
    """

    model: str
    queries: Floats
    verdict_weight: Floats
    verdict_bias: Floats
    bins_weight: Floats
    bins_bias: Floats

    def ng(self, hidden: Floats) -> float:
        """The probability of NG, 0 to 1, in the (5, width) hidden states of the queries."""
        logit = float(hidden[0] @ self.verdict_weight + self.verdict_bias[0])
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, logit))))

    def box(self, hidden: Floats) -> GridBox:
        """A box in 0-1000 steps of the canvas, in the (5, width) hidden states of the queries; for any part."""
        # The likeliest steps, not their means: a draft is worth as many passes as it has digits that are exact.
        steps = (hidden[1:] @ self.bins_weight.T + self.bins_bias).argmax(1)
        (x1, x2), (y1, y2) = (_span(int(steps[low]), int(steps[low + 2])) for low in (0, 1))
        return x1, y1, x2, y2


def read_box_head(file: Path, width: int) -> BoxHead:
    """The head in ``file``, for a model of this width.

    Raises MissingExtraError, and ModelIntegrityError for a file that is torn, of another format or width, or holds
    anything but finite numbers.
    """
    try:
        from safetensors import safe_open
    except ImportError as exc:
        raise MissingExtraError("vlm", "safetensors") from exc
    try:
        with safe_open(str(file), framework="numpy") as held:
            about = json.loads((held.metadata() or {}).get(_ABOUT, "{}"))
            arrays = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    except Exception as exc:  # its own error, OSError, TypeError for numbers that NumPy does not know
        raise ModelIntegrityError(f"{file}: cannot be read: {(str(exc) or type(exc).__name__)[:200]}") from exc
    found = about if isinstance(about, dict) else {}
    if found.get("format") != _FORMAT or not isinstance(found.get("model"), str):
        raise ModelIntegrityError(f"{file}: {_ABOUT}.format: got {found.get('format')!r}, allowed: {_FORMAT}")
    shapes = _shapes(width)
    if set(arrays) != set(shapes):
        raise ModelIntegrityError(f"{file}: got {', '.join(sorted(arrays))}, allowed: {', '.join(shapes)}")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            detail = f"got {array.shape} {array.dtype}, allowed for a model of width {width}: {shape} float32"
            raise ModelIntegrityError(f"{file}: {name}: {detail}")
        if not np.isfinite(array).all():
            raise ModelIntegrityError(f"{file}: {name}: got NaN or infinity, allowed: finite numbers")
    return BoxHead(found["model"], **arrays)


def write_box_head(head: BoxHead, file: Path, trained: Mapping[str, Any] | None = None) -> None:
    """Write a head, whole or not at all. ``trained``: how, as JSON takes it, for whoever looks. Raises OSError."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in _shapes(0)}
    # One entry: several come in another order each time, and the same head would have another hash.
    about = {"format": _FORMAT, "model": head.model, "trained": dict(trained or {})}
    data = save(arrays, metadata={_ABOUT: json.dumps(about, sort_keys=True)})
    temporary = file.with_name(f".{file.name}.new")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes = ((QUERIES, width), (width,), (1,), (BINS, width), (BINS,))
    return dict(zip([one.name for one in fields(BoxHead) if one.name != "model"], shapes, strict=True))


def _span(one: int, other: int) -> tuple[int, int]:
    """Two edges in their order, at least a step apart."""
    low, high = min(one, other), max(one, other)
    return (low, high) if high > low else (min(low, GRID - 1), min(low, GRID - 1) + 1)
