"""The Siamese difference network: compares a part with golden samples place by place.

What references show becomes, for every place and feature, the range of values there and the range nearby; comparing
runs one graph on the part. Network and training: `distill/lite`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.base import Candidate, Evidence
from differad_edge.engines.heatmap import HeatmapRule, candidates_of
from differad_edge.engines.lite_model import COMPARE, ENCODE, Detail, LiteModel, onnx_errors, run_within
from differad_edge.images import Image
from differad_edge.results import Box

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline

__all__ = ["DifferenceNetwork", "Features", "Known", "Ranges", "Tile", "known_from", "ranges_of"]

Features = tuple[NDArray[np.float32], ...]
"""Of one tile: (1, C, h, w) for each scale."""
Ranges = tuple[tuple[NDArray[np.float16], ...], ...]
"""For each tile and scale the lowest and the highest value that references show: what is kept of a product."""
Known = tuple[Features, ...]
"""For each tile the compare graph's inputs: value low, value high, nearby low, nearby high of each scale."""

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


class DifferenceNetwork:
    """``model``: as it was read; ``threads``: None for ONNX Runtime's choice; ``providers``: in order of preference.

    Raises EngineError when ONNX Runtime refuses to load it.
    """

    def __init__(
        self, model: LiteModel, threads: int | None, providers: Sequence[str], rule: HeatmapRule, detail: Detail
    ) -> None:
        import onnxruntime

        self._multiple, self._stride_px, self.scales = model.input_multiple, model.heat_stride_px, model.scales
        self.rule, self.detail = rule, detail
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # what matters comes as an exception
        if threads is not None:
            options.intra_op_num_threads = threads
        with onnx_errors("load the model"):
            self._encode = onnxruntime.InferenceSession(model.graphs[ENCODE], options, providers=providers)
            self._compare = onnxruntime.InferenceSession(model.graphs[COMPARE], options, providers=providers)
        self._input_names = [value.name for value in self._compare.get_inputs()]

    def tiles_of(self, width: int, height: int) -> list[Tile]:
        """How an image of ``width`` x ``height`` px is divided at the resolution it is compared at."""
        return self._tiles(*self.detail.work_size(width, height))

    def encode(self, image: Image) -> list[Features]:
        """The features of each tile of HxWx3 uint8 BGR."""
        work = self.detail.work_size(image.shape[1], image.shape[0])
        small = _at_work_size(image, work)
        return [self._run_encode(self._cut(small, tile)) for tile in self._tiles(*work)]

    def compare(
        self,
        known: Known,
        target: Image,
        ignore: NDArray[np.bool_] | None,
        deadline: Deadline | None,
    ) -> Evidence:
        """Compare a part, HxWx3 uint8 BGR of the references' size. ``ignore``: HxW bool, True where nothing counts."""
        height, width = target.shape[:2]
        work = self.detail.work_size(width, height)
        image = _at_work_size(target, work)
        cells = (-(-work[1] // self._multiple) * self._multiple, -(-work[0] // self._multiple) * self._multiple)
        heat = np.zeros((cells[0] // self._stride_px, cells[1] // self._stride_px), np.float32)
        for tile, features in zip(self._tiles(*work), known, strict=True):
            part = self._run_compare(self._cut(image, tile), features, deadline)
            self._paste(heat, part, tile)
        # Beyond the image lies padding, where nothing can differ.
        heat = np.ascontiguousarray(heat[: -(-work[1] // self._stride_px), : -(-work[0] // self._stride_px)])
        if ignore is not None:
            heat[self._ignored_cells(_shrunk(ignore, work), heat.shape)] = 0
        score, candidates = candidates_of(heat, self._stride_px, self.rule)
        if work != (width, height):
            candidates = tuple(_enlarged(candidate, (width / work[0], height / work[1])) for candidate in candidates)
        return Evidence(score, tuple(_cut_to(candidate, width, height) for candidate in candidates), heat)

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

    def _run_encode(self, image: Image) -> Features:
        with onnx_errors("encode the reference"):
            return tuple(self._encode.run(None, {"image": image[None]}))

    def _run_compare(self, image: Image, known: Features, deadline: Deadline | None) -> NDArray[np.float32]:
        feeds = dict(zip(self._input_names, (image[None], *known), strict=True))
        return np.asarray(run_within(self._compare, feeds, "compare", deadline)[0], np.float32)


def known_from(ranges: Ranges) -> Known:
    """What the compare graph takes, from what is kept."""
    known = []
    for tile in ranges:
        arrays: list[NDArray[np.float32]] = []
        for low, high in zip(tile[::2], tile[1::2], strict=True):
            low32, high32 = low.astype(np.float32), high.astype(np.float32)
            arrays += [low32, high32, _nearby(low32, cv2.erode), _nearby(high32, cv2.dilate)]
        known.append(tuple(arrays))
    return tuple(known)


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


def ranges_of(encoded: Sequence[list[Features]]) -> Ranges:
    """Of several references' features, tile by tile: the range of values of each scale."""
    values = []
    for tile in zip(*encoded, strict=True):
        ranges = [bound for scale in zip(*tile, strict=True) for bound in _range_of(scale)]
        values.append(tuple(bound.astype(np.float16) for bound in ranges))
    return tuple(values)


def _range_of(features: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.minimum.reduce(features), np.maximum.reduce(features)


def _nearby(values: NDArray[np.float32], extreme: Any) -> NDArray[np.float32]:
    """Extreme over each 3x3 neighbourhood of (1, C, h, w), channel by channel."""
    kernel = np.ones((3, 3), np.uint8)
    return np.stack([np.asarray(extreme(plane, kernel), np.float32) for plane in values[0]])[None]
