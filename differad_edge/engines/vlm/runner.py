"""What runs the student's parts: PyTorch, ONNX Runtime or TensorRT, behind one protocol.

A runner holds one working buffer of keys and values. A question is asked in this order: ``load`` the reference's prefix
(free where it lies there already), ``read`` the target, then ``advance`` through the answer. Tokens beyond ``at`` are
overwritten, so that going back is to advance from an earlier place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.layout import Layout
from differad_edge.errors import EngineError
from differad_edge.images import Image

__all__ = ["JUMP", "Floats", "Prefix", "Runner", "check_room"]

JUMP = 24
"""Tokens of the answer that are read at once where sizes are fixed: a box with all that is forced around it."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prefix:
    """A reference as the runner keeps it on its device. ``key``: of this reference; ``bytes``: what it holds there."""

    key: str
    content: Any
    bytes: int


class Runner(Protocol):
    """Runs the parts of one model at one layout. One instance is used by one thread at a time."""

    name: str
    """Of the runtime, as "onnxruntime-cpu"."""
    version: str
    """Of the runtime, or what tells its compiled engines from others: a verification holds for one name and version."""
    precision: str
    """Of its arithmetic."""
    layout: Layout

    def encode(self, canvas: Image) -> Any:
        """Vision features, as the runner keeps them until the next image, of HxWx3 uint8 BGR at the working size."""
        ...

    def pooled(self, features: Any) -> Floats:
        """(tokens, width) float32: the features by which references are told apart."""
        ...

    def make_prefix(self, key: str, features: Any) -> Prefix:
        """Read everything up to the target once, for a reference with these features."""
        ...

    def save_prefix(self, prefix: Prefix) -> dict[str, NDArray[Any]]:
        """Its keys and values as arrays, for the disk; bfloat16 as the uint16 that holds it."""
        ...

    def check_prefix(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Raise EngineError for arrays that save_prefix did not give: of another shape or precision."""
        ...

    def restore_prefix(self, key: str, arrays: dict[str, NDArray[Any]]) -> Prefix:
        """Undo save_prefix. Raises EngineError as check_prefix does, or where the device's memory does not suffice."""
        ...

    def load(self, prefix: Prefix) -> None:
        """Bring a prefix into the working buffer."""
        ...

    def read(self, features: Any) -> Floats:
        """Read the target after the loaded prefix: (1 + queries, width) hidden states.

        Of the question's last token, and of a box head's queries behind it, over which the answer is written.
        """
        ...

    def advance(self, tokens: Sequence[int], at: int) -> Floats:
        """Read tokens of the answer, the first at index ``at``: (tokens, width) hidden states.

        Raises EngineError beyond the layout's capacity.
        """
        ...

    def logits(self, hidden: Floats, rows: Sequence[int] | None = None) -> Floats:
        """(..., rows) logits of hidden states for these tokens, of the whole vocabulary for None."""
        ...


def check_room(layout: Layout, tokens: int) -> None:
    """Raise EngineError where the buffer has no room for so many tokens of question and answer, or queries."""
    if tokens > layout.capacity:
        raise EngineError(f"answer: got {tokens} tokens with its question, allowed: {layout.capacity}")
