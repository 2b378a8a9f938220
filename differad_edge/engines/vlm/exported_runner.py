"""What ONNX Runtime and TensorRT have in common: an export's stages, tokens by steps and jumps, kept references."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.exported import Exported
from differad_edge.engines.vlm.numbers import to_float32
from differad_edge.engines.vlm.runner import Floats, Prefix, check_room
from differad_edge.errors import EngineError

__all__ = ["ExportedRunner"]


class ExportedRunner(ABC):
    """See Runner, for the parts that do not depend on where the stages run."""

    def __init__(self, exported: Exported) -> None:
        manifest = exported.manifest
        self.layout = exported.question.layout
        self._shape, self._jump = manifest.shape, manifest.jump
        self._answers = 1 if manifest.box_head is None else 1 + manifest.box_head.queries  # rows of a tail's result
        check_room(self.layout, self.layout.length + self._answers - 1)
        self._embeddings, self._head = exported.table("embeddings"), exported.table("head")
        self._names = [f"{kind}_{layer}" for layer in range(self._shape.layers) for kind in ("keys", "values")]
        self._kept: Any = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[manifest.precision]
        self._loaded: Prefix | None = None

    def check_prefix(self, arrays: dict[str, NDArray[Any]]) -> None:
        """See Runner."""
        array = arrays.get("keys_and_values")
        if array is None or array.shape != self._prefix_shape or array.dtype != self._kept:
            got = "nothing" if array is None else f"{array.shape} {array.dtype}"
            raise EngineError(f"prepared reference: got {got}, allowed: {self._prefix_shape} {np.dtype(self._kept)}")

    def restore_prefix(self, key: str, arrays: dict[str, NDArray[Any]]) -> Prefix:
        """See Runner."""
        self.check_prefix(arrays)
        return self._restored(key, arrays["keys_and_values"])

    def load(self, prefix: Prefix) -> None:
        """See Runner."""
        if self._loaded is None or self._loaded.content is not prefix.content:
            self._loaded = None  # a copy that fails leaves a mixture
            self._copy_in(prefix)
            self._loaded = prefix

    def advance(self, tokens: Sequence[int], at: int) -> Floats:
        """See Runner."""
        check_room(self.layout, at + len(tokens))
        found = []
        for first in range(0, len(tokens), self._jump):
            some = tokens[first : first + self._jump]
            if len(some) > 1 and at + first + self._jump > self.layout.capacity:
                # A jump fills its length with tokens that nobody sees, and they need room too.
                found += [self._hidden_after("step", [token], at + first + n)[0] for n, token in enumerate(some)]
            elif len(some) == 1:
                found.append(self._hidden_after("step", some, at + first)[0])
            else:
                filled = [*some, *[0] * (self._jump - len(some))]
                found += list(self._hidden_after("jump", filled, at + first)[: len(some)])
        return np.asarray(np.stack(found), np.float32)

    def logits(self, hidden: Floats, rows: Sequence[int] | None = None) -> Floats:
        """See Runner."""
        if rows is not None:
            return np.asarray(hidden @ to_float32(self._head[list(rows)]).T, np.float32)
        states = hidden.reshape(-1, hidden.shape[-1])
        return np.stack([self._logits_of(state) for state in states]).reshape(*hidden.shape[:-1], -1)

    @property
    def _prefix_shape(self) -> tuple[int, ...]:
        return (2 * self._shape.layers, self._shape.kv_heads, self.layout.prefix_length, self._shape.head_dim)

    def _embedded(self, tokens: Sequence[int]) -> Floats:
        return to_float32(self._embeddings[list(tokens)])

    @abstractmethod
    def _restored(self, key: str, array: NDArray[Any]) -> Prefix:
        """A prefix of keys and values as they are kept."""

    @abstractmethod
    def _copy_in(self, prefix: Prefix) -> None:
        """Bring a prefix into the working buffer."""

    @abstractmethod
    def _hidden_after(self, stage: Literal["step", "jump"], tokens: Sequence[int], start: int) -> Floats:
        """Read as many tokens as the stage takes: (tokens, width) hidden states."""

    @abstractmethod
    def _logits_of(self, state: Floats) -> Floats:
        """(vocabulary,) logits of one hidden state."""
