"""Export the trained network for ONNX Runtime: `python -m distill.lite.export runs/lite differad_edge/models`.

Two graphs leave here. `lite-encode.onnx` takes a reference (1, H, W, 3) uint8 BGR to its features; it runs once per
reference. `lite-compare.onnx` takes a target of the same size and, for each scale, what is known of the references, to
the heat map (H/2, W/2) float32 in [0, 1]. Preprocessing is inside: colour order is folded into the first convolution
and the normalisation is a DequantizeLinear straight from uint8, so nobody can forget it and no float image is built.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from distill.lite.network import COMPARED, HEAT_STRIDE, INPUT_MULTIPLE, DifferenceNet

OPSET = 17
SCALES = len(COMPARED)
#: What the compare graph takes of the references at each scale; see differad_edge.engines.lite.
REFERENCE_INPUTS = ("value_low", "value_high", "nearby_low", "nearby_high")
_MEAN, _SCALE = 127, 64.0


class _Encode(nn.Module):
    def __init__(self, net: DifferenceNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, normalised: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net.encode(normalised * _SCALE + _MEAN))


class _Compare(nn.Module):
    """`DifferenceNet.decode` with a range of values at each place instead of one, so that several references fit.

    With one reference the range has no width and this is the trained network exactly.
    """

    def __init__(self, net: DifferenceNet) -> None:
        super().__init__()
        self.net = net

    def _scale(self, level: int, target: Tensor, known: tuple[Tensor, ...]) -> Tensor:
        value_low, value_high, nearby_low, nearby_high = known
        compare = self.net.compare[level]
        parts = [
            (target - torch.minimum(torch.maximum(target, value_low), value_high)).abs(),
            (target - torch.minimum(torch.maximum(target, nearby_low), nearby_high)).abs(),
        ]
        if compare.both_ways:
            target_low, target_high = -F.max_pool2d(-target, 3, 1, 1), F.max_pool2d(target, 3, 1, 1)
            parts.append(F.relu(value_low - target_high) + F.relu(target_low - value_high))
        fused: Tensor = compare.differences(torch.cat(parts, 1)) + compare.appearance(target)
        return fused

    def forward(self, normalised: Tensor, *known: Tensor) -> Tensor:
        count = len(REFERENCE_INPUTS)
        target = self.net.encode(normalised * _SCALE + _MEAN)
        fused = [self._scale(i, target[i], known[count * i : count * (i + 1)]) for i in range(SCALES)]
        state = self.net.mix[2](fused[2])
        for level in (1, 0):
            coarser = F.interpolate(self.net.up[level](state), scale_factor=2.0, mode="nearest")
            state = self.net.mix[level](F.relu(fused[level] + coarser))
        heat: Tensor = self.net.out(state).sigmoid()[0, 0]
        return heat


def _take_uint8(model: onnx.ModelProto) -> None:
    """Let the graph take (1, H, W, 3) uint8 BGR in place of the normalised (1, 3, H, W) float RGB that was traced."""
    graph = model.graph
    traced = graph.input[0]
    first = next(node for node in graph.node if node.op_type == "Conv")
    # The exported chain is Mul, Add, Sub, Div before the first convolution; it cancels to nothing.
    chain = []
    tensor = first.input[0]
    while tensor != traced.name:
        node = next(n for n in graph.node if tensor in n.output)
        chain.append(node)
        tensor = node.input[0]
    if [n.op_type for n in chain] != ["Div", "Sub", "Add", "Mul"]:
        raise RuntimeError(f"unexpected preprocessing in the traced graph: {[n.op_type for n in chain]}")
    for node in chain:
        graph.node.remove(node)
    weights = next(t for t in graph.initializer if t.name == first.input[1])
    flipped = numpy_helper.to_array(weights)[:, ::-1]  # RGB weights for BGR channels
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(flipped), weights.name))
    graph.initializer.extend(
        [
            helper.make_tensor("input_scale", TensorProto.FLOAT, [], [1 / _SCALE]),
            helper.make_tensor("input_zero_point", TensorProto.UINT8, [], [_MEAN]),
        ]
    )
    first.input[0] = "normalised"
    graph.node.insert(0, helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
    graph.node.insert(
        1, helper.make_node("DequantizeLinear", ["planes", "input_scale", "input_zero_point"], ["normalised"])
    )
    graph.input.remove(traced)
    graph.input.insert(0, helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3]))


def _drop_unused(model: onnx.ModelProto) -> None:
    """Remove the constants that only the traced preprocessing read; ONNX Runtime warns of each."""
    used = {name for node in model.graph.node for name in node.input}
    for node in [n for n in model.graph.node if n.op_type == "Constant" and n.output[0] not in used]:
        model.graph.node.remove(node)
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)


def _export(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], path: Path) -> None:
    axes = {name: {2: f"{name}_h", 3: f"{name}_w"} for name in names}
    axes |= {name: {2: f"{name}_h", 3: f"{name}_w"} for name in outputs if name != "heat"}
    axes |= {"heat": {0: "heat_h", 1: "heat_w"}} if "heat" in outputs else {}
    module.eval()  # the exporter gives every submodule back in the wrapper's own mode
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "traced.onnx"
        torch.onnx.export(
            module,
            inputs,
            str(traced),
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(str(traced))
    _take_uint8(model)
    _drop_unused(model)
    model.producer_name, model.producer_version, model.doc_string = "differad-edge", "", ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def reference_inputs(net: DifferenceNet, image: Tensor) -> list[Tensor]:
    """What the compare graph takes of one reference, (1, 3, H, W) float RGB in 0..255."""
    return [
        tensor
        for level in net.prepare_features(net.encode(image))
        for tensor in (level.value, level.value, level.low, level.high)
    ]


def check_parity(net: DifferenceNet, folder: Path, *, side: int = 160, seed: int = 0) -> float:
    """Largest difference of the heat maps of PyTorch and ONNX Runtime on one pair."""
    from distill.lite.generate import training_pair

    pair = training_pair(np.random.default_rng(seed), side)
    as_tensor = [
        torch.from_numpy(image[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32))
        for image in (pair.reference, pair.target)
    ]
    with torch.no_grad():
        expected = net(*as_tensor).sigmoid()[0, 0].numpy()
        known = reference_inputs(net, as_tensor[0])
    session = ort.InferenceSession(str(folder / "lite-compare.onnx"), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    feeds = dict(zip(names, [pair.target[None], *(k.numpy() for k in known)], strict=True))
    return float(np.abs(session.run(None, feeds)[0] - expected).max())


def export(checkpoint: Path, out: Path) -> dict[str, object]:
    """Write both graphs and `lite.json` (hashes, sizes, recipe) to `out`; return the latter's content."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    net = DifferenceNet()
    net.load_state_dict(saved["average"])
    net.eval()
    out.mkdir(parents=True, exist_ok=True)
    image = torch.zeros(1, 3, 160, 160)
    with torch.no_grad():
        known = reference_inputs(net, image)
    scales = [4 * 2**i for i in range(SCALES)]
    features = [f"feature_{stride}" for stride in scales]
    known_names = [f"{name}_{stride}" for stride in scales for name in REFERENCE_INPUTS]
    _export(_Encode(net), (image,), ["image_traced"], features, out / "lite-encode.onnx")
    _export(_Compare(net), (image, *known), ["image_traced", *known_names], ["heat"], out / "lite-compare.onnx")
    files = {
        name: {"sha256": hashlib.sha256((out / name).read_bytes()).hexdigest(), "bytes": (out / name).stat().st_size}
        for name in ("lite-encode.onnx", "lite-compare.onnx")
    }
    manifest: dict[str, object] = {
        "schema_version": 1,
        "name": "lite",
        "files": files,
        "input_multiple": INPUT_MULTIPLE,
        "heat_stride": HEAT_STRIDE,
        "scales": scales,
        "training": {**saved["recipe"], "steps_done": saved["step"]},
    }
    (out / "lite.json").write_text(json.dumps(manifest, indent=2) + "\n")
    largest = check_parity(net, out)
    if largest > 1e-4:
        raise RuntimeError(
            f"ONNX Runtime differs from PyTorch by {largest:.2e} on the heat map; at most 1e-4 is allowed"
        )
    print(f"heat maps of PyTorch and ONNX Runtime agree to {largest:.1e}")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of distill.lite.train")
    parser.add_argument("out", type=Path, help="folder of the shipped model")
    a = parser.parse_args()
    print(json.dumps(export(a.run / "checkpoint.pt", a.out), indent=2))


if __name__ == "__main__":
    main()
