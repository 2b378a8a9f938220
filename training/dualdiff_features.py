"""Which good images look most like a target.

The paper takes the eight good images that are most similar by CLIP features. Two makers of features are here: CLIP,
from a folder with its weights, and a light descriptor of our own for machines without them. Similarity is the cosine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import ImageError, MissingExtraError, TrainingError
from differad_edge.images import Image
from training.batch_journal import replace_file
from training.layouts.base import Source, View
from training.layouts.files import load_view

_BATCH = 16
_COLOUR_SIDE = 16
_GRADIENT_SIDE_PX, _CELLS, _BINS = 128, 8, 8
# Mean and deviation of CLIP's inputs (Radford et al., 2021; the preprocessing of the released models), red green blue.
_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_CLIP_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


class FeatureMaker(Protocol):
    """Makes features; ``name`` says which, and goes into the state of a run."""

    name: str

    def __call__(self, images: Sequence[Image], /) -> NDArray[np.float32]:
        """``images``: HxWx3 uint8 BGR, of any sizes. Returns (N, D) float32, each row of length 1."""


class OwnFeatures:
    """Colours and edges on a coarse grid: Lab at 16x16, and 8 orientations of the gradient in 8x8 cells. No weights.

    The image is stretched to a square. Both halves count the same; D = 16*16*3 + 8*8*8 = 1280.
    """

    name = "own-1"

    def __call__(self, images: Sequence[Image], /) -> NDArray[np.float32]:
        return np.stack([_descriptor(image) for image in images])


def _descriptor(image: Image) -> NDArray[np.float32]:
    small = cv2.resize(image, (_COLOUR_SIDE, _COLOUR_SIDE), interpolation=cv2.INTER_AREA)
    # As float in 0..1 OpenCV gives L in 0..100 and a, b around 0, so that grey has no direction of its own.
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)) - np.array([50, 0, 0], np.float32)
    side = _GRADIENT_SIDE_PX
    grey = cv2.cvtColor(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    # An edge from dark to bright and one from bright to dark are the same: angles over half a turn.
    angle = np.mod(np.arctan2(dy, dx), np.pi) / np.pi * _BINS
    bins = np.minimum(angle.astype(np.int64), _BINS - 1)
    cell = np.arange(side) * _CELLS // side
    place = (cell[:, None] * _CELLS + cell[None, :]) * _BINS + bins
    histogram = np.bincount(place.ravel(), strength.ravel(), _CELLS * _CELLS * _BINS)
    halves = [_unit(lab.ravel()), _unit(np.sqrt(histogram))]
    return _unit(np.concatenate(halves)).astype(np.float32)


def _unit(vector: NDArray[Any]) -> NDArray[Any]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


class ClipFeatures:
    """CLIP's image features from a local folder, on the GPU where there is one.

    The image is stretched to the model's square [own choice: the released preprocessing cuts the sides off, where a
    defect may be].

    Raises MissingExtraError without torch or transformers, TrainingError when the folder holds no CLIP model.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import torch
            from transformers import CLIPModel
        except ImportError as exc:
            raise MissingExtraError("train", exc.name or "transformers") from exc
        try:
            self._model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        except Exception as exc:  # a folder of another model fails in as many ways as there are models
            raise TrainingError(f"--clip-model: {folder} holds no CLIP model that can be read: {exc}") from exc
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)
        self._side_px = int(self._model.config.vision_config.image_size)
        self.name = f"clip {hashlib.sha256(str(self._model.config.to_dict()).encode()).hexdigest()[:12]} {folder.name}"

    def __call__(self, images: Sequence[Image], /) -> NDArray[np.float32]:
        size = (self._side_px, self._side_px)
        squares = [cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1] for image in images]
        pixels = (np.stack(squares).astype(np.float32) / 255 - _CLIP_MEAN) / _CLIP_DEVIATION
        with self._torch.inference_mode():
            tensor = self._torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(self._device)
            output = self._model.get_image_features(pixel_values=tensor)
            # transformers 5 wraps what version 4 returned as it is.
            rows: NDArray[np.float32] = getattr(output, "pooler_output", output).float().cpu().numpy()
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def features_of(source: Source, views: Sequence[View], maker: FeatureMaker, folder: Path) -> NDArray[np.float32]:
    """The features of ``views``, (N, D) float32; a row of NaN where an image cannot be read.

    They are kept in ``folder`` under a name that follows from the views, the sizes of their files and the maker.
    """
    digest = hashlib.sha256(f"{source.name}\0{maker.name}".encode())
    for view in views:
        size = view.path.stat().st_size if view.path.is_file() else -1
        digest.update(f"\0{source.view_name(view)}\0{size}".encode())
    file = folder / f"{digest.hexdigest()[:32]}.f32"
    if file.is_file():
        kept = np.frombuffer(file.read_bytes(), "<f4")
        if len(views) and kept.size and kept.size % len(views) == 0:
            return kept.reshape(len(views), -1).astype(np.float32)
    rows: list[NDArray[np.float32] | None] = []
    for start in range(0, len(views), _BATCH):
        images = [_image_or_none(view) for view in views[start : start + _BATCH]]
        readable = [image for image in images if image is not None]
        found = iter(maker(readable) if readable else ())
        rows += [None if image is None else next(found) for image in images]
    width = next((row.size for row in rows if row is not None), 1)
    table = np.stack([np.full(width, np.nan, np.float32) if row is None else row for row in rows])
    replace_file(file, table.astype("<f4").tobytes())
    return table


def _image_or_none(view: View) -> Image | None:
    try:
        return load_view(view)
    except ImageError:
        return None


def most_similar(targets: NDArray[np.float32], normals: NDArray[np.float32], top: int) -> list[list[tuple[int, float]]]:
    """For each row of ``targets`` (M, D) the ``top`` rows of ``normals`` (N, D) with the highest cosine, best first.

    Rows of NaN are nobody's neighbour and have none; equal ones keep the order of ``normals``.
    """
    readable = np.flatnonzero(np.isfinite(normals).all(axis=1))
    found: list[list[tuple[int, float]]] = []
    for row in targets:
        if not np.isfinite(row).all() or len(readable) == 0:
            found.append([])
            continue
        cosines = normals[readable] @ row
        order = np.argsort(-cosines, kind="stable")[:top]
        found.append([(int(readable[place]), float(cosines[place])) for place in order])
    return found
