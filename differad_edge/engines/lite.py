"""The embedded engine: a Siamese difference network of two megabytes on ONNX Runtime.

`prepare` encodes the references and keeps, for every place and feature, the range of values they show there and the
range they show nearby. `compare` runs one graph on the target. Network and training: `distill/lite`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.base import Candidate, Evidence, ReferenceView
from differad_edge.engines.heatmap import HeatmapRule, candidates_of
from differad_edge.engines.lite_model import (
    COMPARE,
    ENCODE,
    Detail,
    choose_providers,
    fingerprint_of,
    onnx_errors,
    read_model,
)
from differad_edge.errors import EngineError, IncompatibleReferenceError
from differad_edge.images import Image
from differad_edge.results import Box

if TYPE_CHECKING:
    from pathlib import Path

    from differad_edge.deadline import Deadline

__all__ = ["Detail", "LiteEngine", "LitePrepared", "Tile"]

Features = tuple[NDArray[np.float32], ...]

_TILE_PX = 2048
"""Larger images are compared in tiles of this size, so that memory does not grow with the camera's resolution."""
_OVERLAP_PX = 128
"""What neighbouring tiles share: more than the network sees around a place."""


@dataclass(frozen=True)
class Tile:
    """A window of the compared image: (x, y, width, height) px, all multiples of the network's input multiple."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class LitePrepared:
    """What is known of a product's references: for each tile and scale (value low, value high, nearby low, high).

    ``size``: (width, height) of the references in px. ``known[t]`` holds (1, C, h, w) float32 arrays in the order of
    the compare graph's inputs. ``ignore``: HxW bool, True where no difference counts, or None.
    """

    size: tuple[int, int]
    values: tuple[tuple[NDArray[np.float16], ...], ...]
    known: tuple[Features, ...]
    ignore: NDArray[np.bool_] | None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Ranges of values as float16; the ranges nearby follow from them and are not kept."""
        arrays: dict[str, NDArray[Any]] = {"size": np.array(self.size, np.int32)}
        if self.ignore is not None:
            arrays["ignore"] = self.ignore
        for tile, values in enumerate(self.values):
            arrays |= {f"tile{tile}_{index}": value for index, value in enumerate(values)}
        return arrays


class LiteEngine:
    """Compare parts with golden samples on ONNX Runtime.

    ``threads``: of one comparison, None for ONNX Runtime's choice. ``providers``: execution providers in order of
    preference, None for CUDA where this ONNX Runtime has it and the CPU otherwise. ``model_folder``: another folder
    with `lite.json` and its graphs than the one that is shipped. ``rule``, ``detail``: None for the defaults.

    Raises ModelIntegrityError when a model file is missing or differs from its SHA-256, EngineError when ONNX Runtime
    refuses to load it.
    """

    name = "lite"

    def __init__(
        self,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        model_folder: Path | None = None,
        rule: HeatmapRule | None = None,
        detail: Detail | None = None,
    ) -> None:
        import onnxruntime

        model = read_model(model_folder)
        graphs = model.graphs
        self._multiple, self._stride_px, self._scales = model.input_multiple, model.heat_stride_px, model.scales
        self.rule = rule if rule is not None else HeatmapRule()
        self.detail = detail if detail is not None else Detail()
        self.default_threshold = model.default_threshold
        self.providers = choose_providers(onnxruntime, providers)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # what matters comes as an exception
        if threads is not None:
            options.intra_op_num_threads = threads
        with onnx_errors("load the model"):
            self._encode = onnxruntime.InferenceSession(graphs[ENCODE], options, providers=self.providers)
            self._compare = onnxruntime.InferenceSession(graphs[COMPARE], options, providers=self.providers)
        self._input_names = [value.name for value in self._compare.get_inputs()]
        self.fingerprint = fingerprint_of(graphs, self.rule, self.detail)

    def prepare(self, references: Sequence[ReferenceView]) -> LitePrepared:
        """Encode the references. Several are taken as equally good: what any of them shows is no difference.

        Raises IncompatibleReferenceError when there is none or their sizes differ, EngineError for a mask of another
        size.
        """
        sizes = {view.image.shape[:2] for view in references}
        if len(sizes) != 1:
            raise IncompatibleReferenceError(
                f"references: got {len(references)} of {sorted(sizes) or 'no'} (height, width), "
                "allowed: at least one, all of one size"
            )
        height, width = sizes.pop()
        for view in references:
            _check_mask(view.valid, (height, width), "reference: valid")
        work = self.detail.work_size(width, height)
        images = [_at_work_size(view.image, work) for view in references]
        values = []
        for tile in self._tiles(*work):
            encoded = [self._run_encode(self._cut(image, tile)) for image in images]
            ranges = [bound for scale in zip(*encoded, strict=True) for bound in _range_of(scale)]
            values.append(tuple(bound.astype(np.float16) for bound in ranges))
        ignored = [view.valid for view in references if view.valid is not None]
        ignore = ~np.logical_and.reduce(ignored) if ignored else None
        return self._prepared((width, height), tuple(values), ignore)

    def restore(self, arrays: dict[str, NDArray[Any]]) -> LitePrepared:
        """Undo ``LitePrepared.to_arrays``. Raises EngineError for anything else."""
        try:
            width, height = (int(v) for v in arrays["size"])
            count = len(self._tiles(*self.detail.work_size(width, height)))
            values = tuple(
                tuple(arrays[f"tile{tile}_{index}"] for index in range(2 * self._scales)) for tile in range(count)
            )
            ignore = arrays.get("ignore")
            if ignore is not None and (ignore.shape != (height, width) or ignore.dtype != np.bool_):
                raise ValueError(f"ignore mask of {ignore.shape} {ignore.dtype}")
            return self._prepared((width, height), values, ignore)
        except (KeyError, ValueError, TypeError) as error:
            raise EngineError(f"prepared features: not written by this engine: {error}") from error

    def compare(
        self,
        prepared: LitePrepared,
        target: Image,
        *,
        valid: NDArray[np.bool_] | None = None,
        deadline: Deadline | None = None,
    ) -> Evidence:
        """Compare one part; see :class:`differad_edge.engines.base.Engine`.

        ``target`` has the references' size. Past the deadline ONNX Runtime is stopped between two layers.
        """
        height, width = target.shape[:2]
        if (width, height) != prepared.size:
            raise EngineError(f"target: got {width}x{height} px, allowed: the references' {prepared.size} px")
        _check_mask(valid, (height, width), "valid")
        work = self.detail.work_size(width, height)
        image = _at_work_size(target, work)
        cells = (-(-work[1] // self._multiple) * self._multiple, -(-work[0] // self._multiple) * self._multiple)
        heat = np.zeros((cells[0] // self._stride_px, cells[1] // self._stride_px), np.float32)
        for tile, known in zip(self._tiles(*work), prepared.known, strict=True):
            part = self._run_compare(self._cut(image, tile), known, deadline)
            self._paste(heat, part, tile)
        ignore = prepared.ignore if valid is None else (~valid if prepared.ignore is None else prepared.ignore | ~valid)
        # Beyond the image lies padding, where nothing can differ.
        heat = np.ascontiguousarray(heat[: -(-work[1] // self._stride_px), : -(-work[0] // self._stride_px)])
        if ignore is not None:
            heat[self._ignored_cells(_shrunk(ignore, work), heat.shape)] = 0
        score, candidates = candidates_of(heat, self._stride_px, self.rule)
        if work != (width, height):
            candidates = tuple(_enlarged(candidate, (width / work[0], height / work[1])) for candidate in candidates)
        return Evidence(score, tuple(_cut_to(candidate, width, height) for candidate in candidates), heat)

    # -- tiles --------------------------------------------------------------------------------------------------------

    def _tiles(self, width: int, height: int) -> list[Tile]:
        return [Tile(x, y, w, h) for y, h in _spans(height, self._multiple) for x, w in _spans(width, self._multiple)]

    def _cut(self, image: Image, tile: Tile) -> Image:
        part = image[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        below, right = tile.height - part.shape[0], tile.width - part.shape[1]
        if below or right:
            part = np.asarray(cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        return np.ascontiguousarray(part)

    def _paste(self, heat: NDArray[np.float32], part: NDArray[np.float32], tile: Tile) -> None:
        # In the overlap the hotter answer counts: a defect cut by a tile's edge is whole in the neighbour.
        rows = slice(tile.y // self._stride_px, tile.y // self._stride_px + part.shape[0])
        columns = slice(tile.x // self._stride_px, tile.x // self._stride_px + part.shape[1])
        np.maximum(heat[rows, columns], part, out=heat[rows, columns])

    def _ignored_cells(self, ignore: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Cells that touch an ignored pixel, and a ring around: the edge of nothing is no find."""
        stride = self._stride_px
        full = np.zeros((shape[0] * stride, shape[1] * stride), np.uint8)
        full[: ignore.shape[0], : ignore.shape[1]] = ignore
        cells = full.reshape(shape[0], stride, shape[1], stride).max((1, 3))
        return np.asarray(cv2.dilate(cells, np.ones((3, 3), np.uint8)), np.bool_)

    # -- ONNX Runtime -------------------------------------------------------------------------------------------------

    def _run_encode(self, image: Image) -> Features:
        with onnx_errors("encode the reference"):
            return tuple(self._encode.run(None, {"image": image[None]}))

    def _run_compare(self, image: Image, known: Features, deadline: Deadline | None) -> NDArray[np.float32]:
        import onnxruntime

        feeds = dict(zip(self._input_names, (image[None], *known), strict=True))
        options = onnxruntime.RunOptions()
        if deadline is None:
            with onnx_errors("compare"):
                return np.asarray(self._compare.run(None, feeds, options)[0], np.float32)
        deadline.check()
        alarm = threading.Timer(deadline.remaining_ms / 1000, lambda: setattr(options, "terminate", True))
        alarm.daemon = True
        alarm.start()
        try:
            with onnx_errors("compare", stopped=deadline):
                return np.asarray(self._compare.run(None, feeds, options)[0], np.float32)
        finally:
            alarm.cancel()

    def _prepared(
        self,
        size: tuple[int, int],
        values: tuple[tuple[NDArray[np.float16], ...], ...],
        ignore: NDArray[np.bool_] | None,
    ) -> LitePrepared:
        known = []
        for tile in values:
            arrays: list[NDArray[np.float32]] = []
            for low, high in zip(tile[::2], tile[1::2], strict=True):
                low32, high32 = low.astype(np.float32), high.astype(np.float32)
                arrays += [low32, high32, _nearby(low32, cv2.erode), _nearby(high32, cv2.dilate)]
            known.append(tuple(arrays))
        return LitePrepared(size, values, tuple(known), ignore)


def _spans(length: int, multiple: int) -> list[tuple[int, int]]:
    """(start, extent) of overlapping tiles that cover ``length`` px rounded up to ``multiple``."""
    padded = -(-length // multiple) * multiple
    if padded <= _TILE_PX:
        return [(0, padded)]
    step = _TILE_PX - _OVERLAP_PX
    count = -(-(padded - _OVERLAP_PX) // step)
    extent = -(-(-(-(padded - _OVERLAP_PX) // count) + _OVERLAP_PX) // multiple) * multiple
    starts = [min(i * (extent - _OVERLAP_PX), padded - extent) // multiple * multiple for i in range(count)]
    return [(start, extent) for start in starts]


def _check_mask(mask: NDArray[np.bool_] | None, shape: tuple[int, int], name: str) -> None:
    # Of another type, ~ would not mean "not"; of another size, broadcasting could silence the whole part.
    if mask is not None and (mask.shape != shape or mask.dtype != np.bool_):
        raise EngineError(f"{name}: got {mask.dtype} of shape {mask.shape}, allowed: bool of shape {shape}")


def _cut_to(candidate: Candidate, width: int, height: int) -> Candidate:
    """The part of a candidate inside the image: the last cells may reach beyond it by less than one cell."""
    x1, y1, x2, y2 = candidate.box
    if x2 <= width and y2 <= height:
        return candidate
    box = Box(x1, y1, min(x2, width), min(y2, height))
    rows, columns = math.ceil(box.y2) - math.floor(y1), math.ceil(box.x2) - math.floor(x1)
    mask = None if candidate.mask is None else candidate.mask[:rows, :columns]
    return replace(candidate, box=box, mask=mask)


def _at_work_size(image: Image, work: tuple[int, int]) -> Image:
    if (image.shape[1], image.shape[0]) == work:
        return image
    return np.asarray(cv2.resize(image, work, interpolation=cv2.INTER_AREA), np.uint8)


def _shrunk(ignore: NDArray[np.bool_], work: tuple[int, int]) -> NDArray[np.bool_]:
    """A pixel of the smaller picture is ignored when any part of it is."""
    if (ignore.shape[1], ignore.shape[0]) == work:
        return ignore
    return np.asarray(cv2.resize(ignore.astype(np.float32), work, interpolation=cv2.INTER_AREA) > 0, np.bool_)


def _enlarged(candidate: Candidate, factor: tuple[float, float]) -> Candidate:
    """The candidate in pixels of the whole picture."""
    x1, y1, x2, y2 = candidate.box
    box = Box(x1 * factor[0], y1 * factor[1], x2 * factor[0], y2 * factor[1])
    mask = candidate.mask
    if mask is not None:
        extent = (math.ceil(box.x2) - math.floor(box.x1), math.ceil(box.y2) - math.floor(box.y1))
        mask = np.asarray(cv2.resize(mask.astype(np.uint8), extent, interpolation=cv2.INTER_NEAREST), np.bool_)
    return replace(candidate, box=box, mask=mask)


def _range_of(features: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.minimum.reduce(features), np.maximum.reduce(features)


def _nearby(values: NDArray[np.float32], extreme: Any) -> NDArray[np.float32]:
    """Extreme over each 3x3 neighbourhood of (1, C, h, w), channel by channel."""
    kernel = np.ones((3, 3), np.uint8)
    return np.stack([np.asarray(extreme(plane, kernel), np.float32) for plane in values[0]])[None]
