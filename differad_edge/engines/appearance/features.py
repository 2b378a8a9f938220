"""What a place looks like: the graph that describes it, checked against its SHA-256, on ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.lite_model import onnx_errors, run_within
from differad_edge.errors import ModelIntegrityError
from differad_edge.images import Image

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline

__all__ = ["WORK_AREA_PX", "Described", "Describer", "fitted"]

WORK_AREA_PX = 448.0 * 448.0
"""About how many pixels are described, whatever the camera's resolution: cost does not grow with it."""

_GRAPH, _NEAREST, _MANIFEST = "appearance.onnx", "appearance-nearest.onnx", "appearance.json"


_FAR = np.float32(1e6)


@dataclass(frozen=True)
class Described:
    """``deep``: (C, h, w) float32, one cell each 8 px; ``fine``: (F, 2h, 2w) float32, not negative, each 4 px."""

    deep: NDArray[np.float32]
    fine: NDArray[np.float32]


class Describer:
    """The graphs that ship, loaded. ``threads``: None for ONNX Runtime's choice.

    Raises ModelIntegrityError when a file is missing or differs from its SHA-256; EngineError, at first use, when ONNX
    Runtime refuses to load it.
    """

    def __init__(self, threads: int | None, providers: Sequence[str]) -> None:
        root = resources.files("differad_edge") / "models"
        try:
            manifest = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
            self.multiple = int(manifest["input_multiple"])
            self.block, self.nearby = int(manifest["block_cells"]), int(manifest["nearby_cells"])
            self.graphs = {name: (root / name).read_bytes() for name in (_GRAPH, _NEAREST)}
            wanted = {name: manifest["files"][name]["sha256"] for name in self.graphs}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelIntegrityError(f"appearance model in {root}: cannot be read: {error}; install again") from error
        for name, graph in self.graphs.items():
            found = hashlib.sha256(graph).hexdigest()
            if found != wanted[name]:
                raise ModelIntegrityError(f"{name}: got SHA-256 {found}, allowed: {wanted[name]}; install again")
        self._threads, self._providers = threads, list(providers)

    @cached_property
    def _session(self) -> Any:
        return self._load(_GRAPH)

    @cached_property
    def _nearest(self) -> Any:
        return self._load(_NEAREST)

    def _load(self, name: str) -> Any:
        # When it is first needed: products whose good parts are alike never do.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # what matters comes as an exception
        # Two graphs take turns: threads of one that spin while they wait keep the other from the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        with onnx_errors(f"load {name}"):
            return onnxruntime.InferenceSession(self.graphs[name], options, providers=self._providers)

    def describe(self, image: Image, deadline: Deadline | None = None) -> Described:
        """Describe HxWx3 uint8 BGR whose sides are multiples of ``multiple``. Raises DeadlineExceeded, EngineError."""
        deep, fine = run_within(self._session, {"image": image[None]}, "describe the picture", deadline)
        return Described(np.asarray(deep, np.float32), np.asarray(fine, np.float32))

    def index(self, deep: NDArray[np.float32]) -> NDArray[np.float32]:
        """What `nearest` looks through: (N, C, h, w) features of good parts, laid out around blocks of places."""
        count, channels, height, width = deep.shape
        rows, columns = self._blocks(height), self._blocks(width)
        reach, span = self.nearby, self.block + 2 * self.nearby
        # Beyond the picture lies what nothing resembles.
        padded = np.zeros(
            (rows * self.block + 2 * reach, columns * self.block + 2 * reach, count, channels + 1), np.float32
        )
        padded[..., -1] = _FAR
        inner = padded[reach : reach + height, reach : reach + width]
        inner[..., :-1] = -2 * deep.transpose(2, 3, 0, 1)
        inner[..., -1] = np.einsum("nchw,nchw->hwn", deep, deep)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (span, span), (0, 1))[:: self.block, :: self.block]
        return np.ascontiguousarray(windows.transpose(0, 1, 4, 5, 2, 3)).reshape(
            rows * columns, span * span, count, channels + 1
        )

    def nearest(
        self, index: NDArray[np.float32], deep: NDArray[np.float32], deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """(h, w): Euclidean distance of each place of (C, h, w) to the nearest place that a good part shows nearby."""
        channels, height, width = deep.shape
        rows, columns = self._blocks(height), self._blocks(width)
        asked = np.ones((channels + 1, rows * self.block, columns * self.block), np.float32)
        asked[:-1, :height, :width] = deep
        blocks = asked.reshape(-1, rows, self.block, columns, self.block).transpose(1, 3, 0, 2, 4)
        feeds = {"known": index, "asked": np.ascontiguousarray(blocks).reshape(rows * columns, channels + 1, -1)}
        (found,) = run_within(self._nearest, feeds, "compare with the good parts", deadline)
        squared = np.asarray(found, np.float32).reshape(rows, columns, self.block, self.block).transpose(0, 2, 1, 3)
        squared = squared.reshape(rows * self.block, -1)[:height, :width]
        return np.asarray(np.sqrt(np.maximum(squared + np.einsum("chw,chw->hw", deep, deep), 0)), np.float32)

    def _blocks(self, cells: int) -> int:
        return -(-cells // self.block)


def fitted(image: Image, multiple: int) -> Image:
    """The picture at about WORK_AREA_PX, its sides multiples of ``multiple``."""
    height, width = image.shape[:2]
    scale = math.sqrt(WORK_AREA_PX / (height * width))
    size = tuple(max(4 * multiple, round(side * scale / multiple) * multiple) for side in (width, height))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
