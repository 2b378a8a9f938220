"""The Siamese difference network of the `lite` engine.

One trunk encodes both images. What concerns only the reference is precomputed by :meth:`DifferenceNet.prepare`: its
features and, for each place, the smallest and the largest value of every feature nearby. The hot path encodes the
target and asks of every feature at three scales how far it is from the reference's value, how far outside the range
that the reference shows nearby (an edge that moved a little is inside), and what the reference has that the target
lacks nearby. A light top-down decoder turns the answers into a heat map.

The range test stands in for a search over displacements, and its reference half costs nothing per part. The trunk is
made of plain 3x3 convolutions: on the CPUs of line PCs they run at ten times the arithmetic rate of the depthwise ones
of mobile backbones, so that a network of the same latency does several times the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

#: Stride of the heat map, in input pixels.
HEAT_STRIDE = 2
#: Side lengths of network inputs are multiples of this.
INPUT_MULTIPLE = 16
#: Images in 0..255 are normalised to (x - MEAN) / SCALE. MEAN is whole: the exported graphs take uint8 as quantised.
MEAN, SCALE = 127.0, 64.0
#: Bias of the last layer before training, as a logit of 2 %: defects are rare.
RARE_LOGIT = -4.0
#: Channels of the trunk at strides 2, 4, 8, 16.
TRUNK = (16, 32, 48, 96)
#: Strides of the scales at which images are compared; channels of the comparison and of the decoder there.
STRIDES = (4, 8, 16)
COMPARED = (24, 32, 48)
DECODER = (32, 48, 64)


class PreparedLevel(NamedTuple):
    """What one scale keeps of the reference: (N, C, h, w) each."""

    value: Tensor
    low: Tensor
    high: Tensor


def to_tensor(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """HxWx3 uint8 BGR pictures of one size as the network counts channels: (N, 3, H, W) uint8 RGB."""
    return torch.from_numpy(np.stack(pictures)[..., ::-1].transpose(0, 3, 1, 2).copy())


def _lowest(x: Tensor) -> Tensor:
    return -F.max_pool2d(-x, 3, 1, 1)


def _highest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016): (N, C, h, w) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.second(self.first(x))
        return F.relu(x + added)


class Comparison(nn.Module):
    """Fuse target and reference features of one scale, (N, channels, h, w), into (N, width, h, w).

    ``both_ways``: also ask what the reference has that the target lacks nearby. It costs two poolings of the target,
    too dear at the finest scale.
    """

    def __init__(self, channels: int, width: int, *, both_ways: bool) -> None:
        super().__init__()
        self.both_ways = both_ways
        self.differences = nn.Conv2d((3 if both_ways else 2) * channels, width, 1)
        self.appearance = nn.Conv2d(channels, width, 1)

    def prepare(self, value: Tensor) -> PreparedLevel:
        return PreparedLevel(value, _lowest(value), _highest(value))

    def questions(self, reference: PreparedLevel, target: Tensor) -> Tensor:
        """What is asked of each feature, side by side: (N, 2 or 3 times channels, h, w), zero where nothing differs."""
        parts = [
            (target - reference.value).abs(),
            (target - torch.minimum(torch.maximum(target, reference.low), reference.high)).abs(),
        ]
        if self.both_ways:
            nearby = torch.minimum(torch.maximum(reference.value, _lowest(target)), _highest(target))
            parts.append((reference.value - nearby).abs())
        return torch.cat(parts, 1)

    def fuse(self, questions: Tensor, target: Tensor) -> Tensor:
        fused: Tensor = self.differences(questions) + self.appearance(target)
        return fused

    def forward(self, reference: PreparedLevel, target: Tensor) -> Tensor:
        return self.fuse(self.questions(reference, target), target)


class DifferenceNet(nn.Module):
    """Images: (N, 3, H, W) float RGB in 0..255, H and W multiples of 16. Output: (N, 1, H/2, W/2) heat-map logits."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = TRUNK
        self.to_quarter = nn.Sequential(_conv(3, half, 2), _conv(half, quarter, 2), _conv(quarter, quarter))
        self.to_eighth = nn.Sequential(_conv(quarter, eighth, 2), Residual(eighth))
        self.to_sixteenth = nn.Sequential(_conv(eighth, sixteenth, 2), Residual(sixteenth))
        self.reduce = nn.ModuleList(nn.Conv2d(c, r, 1) for c, r in zip(TRUNK[1:], COMPARED, strict=True))
        self.comparisons = [
            Comparison(c, w, both_ways=i > 0) for i, (c, w) in enumerate(zip(COMPARED, DECODER, strict=True))
        ]
        self.compare = nn.ModuleList(self.comparisons)
        fine, middle, coarse = DECODER
        self.mix = nn.ModuleList(
            [
                _conv(fine, fine),
                nn.Sequential(_conv(middle, middle), _conv(middle, middle)),
                nn.Sequential(_conv(coarse, coarse), _conv(coarse, coarse)),
            ]
        )
        self.up = nn.ModuleList([nn.Conv2d(middle, fine, 1), nn.Conv2d(coarse, middle, 1)])
        self.out = nn.Sequential(nn.Conv2d(fine, HEAT_STRIDE**2, 3, 1, 1), nn.PixelShuffle(HEAT_STRIDE))
        nn.init.constant_(self.out[0].get_parameter("bias"), RARE_LOGIT)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features of images (N, 3, H, W) in 0..255 at strides 4, 8, 16: (N, COMPARED[i], h, w)."""
        return self.encode_normalised((image - MEAN) / SCALE)

    def encode_normalised(self, image: Tensor) -> list[Tensor]:
        """:meth:`encode` of images that are normalised already."""
        quarter = self.to_quarter(image)
        eighth = self.to_eighth(quarter)
        taps = (quarter, eighth, self.to_sixteenth(eighth))
        return [reduce(tap) for reduce, tap in zip(self.reduce, taps, strict=True)]

    def prepare(self, reference: Tensor) -> list[PreparedLevel]:
        """All that the hot path needs of references (N, 3, H, W) in 0..255."""
        return self.prepare_features(self.encode(reference))

    def prepare_features(self, features: list[Tensor]) -> list[PreparedLevel]:
        """:meth:`prepare` of references that are encoded already."""
        return [compare.prepare(f) for compare, f in zip(self.comparisons, features, strict=True)]

    def decode(self, reference: Sequence[PreparedLevel], target: Sequence[Tensor]) -> Tensor:
        """Heat-map logits (N, 1, H/2, W/2) of what :meth:`prepare_features` and :meth:`encode` give."""
        return self.merge([c(r, t) for c, r, t in zip(self.comparisons, reference, target, strict=True)])

    def merge(self, fused: Sequence[Tensor]) -> Tensor:
        """Top-down decoder: the fused features of the three scales, finest first, to logits (N, 1, H/2, W/2)."""
        state = self.mix[2](fused[2])
        for level in (1, 0):
            coarser = F.interpolate(self.up[level](state), scale_factor=2.0, mode="nearest")
            state = self.mix[level](F.relu(fused[level] + coarser))
        logits: Tensor = self.out(state)
        return logits

    def forward(self, reference: Tensor, target: Tensor) -> Tensor:
        """Heat-map logits of a batch of pairs, for training; both images (N, 3, H, W) of one size."""
        # One batch through the trunk, so that batch norm sees both images alike.
        features = [f.chunk(2) for f in self.encode(torch.cat([reference, target]))]
        return self.decode(self.prepare_features([r for r, _ in features]), [t for _, t in features])
