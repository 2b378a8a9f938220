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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from differad_edge.errors import DifferadError
from distill.lite.generate import TrainingPair, training_pair
from distill.lite.network import HEAT_STRIDE, INPUT_MULTIPLE, MEAN, SCALE, STRIDES, DifferenceNet, to_tensor
from distill.lite.recipe import read_checkpoint, stages

OPSET = 17
ENCODE, COMPARE, MANIFEST = "lite-encode.onnx", "lite-compare.onnx", "lite.json"
#: What the compare graph takes of the references at each scale; see differad_edge.engines.lite.
REFERENCE_INPUTS = ("value_low", "value_high", "nearby_low", "nearby_high")
#: Largest difference that is allowed between PyTorch and ONNX Runtime, on heat maps that are in [0, 1].
PARITY = 1e-4
#: Sizes (height, width) at which they are compared, px. Only the first is the traced one.
PARITY_SIZES = ((160, 160), (96, 224), (256, 64))


class _Encode(nn.Module):
    """Normalised images (1, 3, H, W) to the features of the three scales."""

    def __init__(self, net: DifferenceNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, normalised: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net.encode_normalised(normalised))


class _Compare(nn.Module):
    """`DifferenceNet.decode` with a range of values at each place instead of one, so that several references fit.

    With one reference the range has no width and this is the trained network exactly.
    """

    def __init__(self, net: DifferenceNet) -> None:
        super().__init__()
        self.net = net

    def _fused(self, scale: int, target: Tensor, known: tuple[Tensor, ...]) -> Tensor:
        value_low, value_high, nearby_low, nearby_high = known
        comparison = self.net.comparisons[scale]
        questions = [
            (target - torch.minimum(torch.maximum(target, value_low), value_high)).abs(),
            (target - torch.minimum(torch.maximum(target, nearby_low), nearby_high)).abs(),
        ]
        if comparison.both_ways:
            target_low, target_high = -F.max_pool2d(-target, 3, 1, 1), F.max_pool2d(target, 3, 1, 1)
            questions.append(F.relu(value_low - target_high) + F.relu(target_low - value_high))
        return comparison.fuse(torch.cat(questions, 1), target)

    def forward(self, normalised: Tensor, *known: Tensor) -> Tensor:
        count = len(REFERENCE_INPUTS)
        target = self.net.encode_normalised(normalised)
        fused = [self._fused(i, target[i], known[count * i : count * (i + 1)]) for i in range(len(STRIDES))]
        heat: Tensor = self.net.merge(fused).sigmoid()[0, 0]
        return heat


def _take_uint8(model: onnx.ModelProto) -> None:
    """Let the graph take (1, H, W, 3) uint8 BGR in place of the normalised (1, 3, H, W) float RGB that was traced."""
    graph = model.graph
    traced = graph.input[0]
    readers = [node for node in graph.node if traced.name in node.input]
    if [node.op_type for node in readers] != ["Conv"]:
        raise RuntimeError(f"the image goes to {[node.op_type for node in readers]}, expected: one convolution")
    first = readers[0]
    weights = next(t for t in graph.initializer if t.name == first.input[1])
    flipped = numpy_helper.to_array(weights)[:, ::-1]  # RGB weights for BGR channels
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(flipped), weights.name))
    graph.initializer.extend(
        [
            helper.make_tensor("input_scale", TensorProto.FLOAT, [], [1 / SCALE]),
            helper.make_tensor("input_zero_point", TensorProto.UINT8, [], [int(MEAN)]),
        ]
    )
    first.input[0] = "normalised"
    graph.node.insert(0, helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
    graph.node.insert(
        1, helper.make_node("DequantizeLinear", ["planes", "input_scale", "input_zero_point"], ["normalised"])
    )
    graph.input.remove(traced)
    graph.input.insert(0, helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3]))


def _write(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], path: Path) -> None:
    """Trace ``module`` into a graph with any height and width, whose first input is the uint8 image."""
    planes = {name: {2: f"{name}_h", 3: f"{name}_w"} for name in [*names, *outputs]}
    axes = planes | ({"heat": {0: "heat_h", 1: "heat_w"}} if "heat" in outputs else {})
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
    model.producer_name, model.producer_version, model.doc_string = "differad-edge", "", ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def write_graphs(net: DifferenceNet, folder: Path) -> None:
    """Write both graphs of a network in eval mode to ``folder``."""
    image = torch.zeros(1, 3, *PARITY_SIZES[0])
    with torch.no_grad():
        known = reference_inputs(net, [image])
    features = [f"feature_{stride}" for stride in STRIDES]
    known_names = [f"{name}_{stride}" for stride in STRIDES for name in REFERENCE_INPUTS]
    _write(_Encode(net), (image,), ["image_traced"], features, folder / ENCODE)
    _write(_Compare(net), (image, *known), ["image_traced", *known_names], ["heat"], folder / COMPARE)


def reference_inputs(net: DifferenceNet, references: Sequence[Tensor]) -> list[Tensor]:
    """What the compare graph takes of references, each (1, 3, H, W) float RGB in 0..255, in the order of its inputs."""
    prepared = [net.prepare(reference) for reference in references]
    inputs = []
    for levels in zip(*prepared, strict=True):
        value_low, value_high, nearby_low, nearby_high = levels[0].value, levels[0].value, levels[0].low, levels[0].high
        for level in levels[1:]:
            value_low, value_high = torch.minimum(value_low, level.value), torch.maximum(value_high, level.value)
            nearby_low, nearby_high = torch.minimum(nearby_low, level.low), torch.maximum(nearby_high, level.high)
        inputs += [value_low, value_high, nearby_low, nearby_high]
    return inputs


def check_parity(net: DifferenceNet, folder: Path, *, seed: int = 0) -> float:
    """Largest difference of heat maps and features of PyTorch and ONNX Runtime on a pair of each of PARITY_SIZES."""
    sessions = [ort.InferenceSession(str(folder / n), providers=["CPUExecutionProvider"]) for n in (ENCODE, COMPARE)]
    differences = []
    for height, width in PARITY_SIZES:
        pair = training_pair(np.random.default_rng(seed), max(height, width))
        differences.append(_disparity(net, sessions, pair, slice(height), slice(width)))
    return float(np.max(differences))  # which is NaN where one is


def _disparity(
    net: DifferenceNet, sessions: Sequence[ort.InferenceSession], pair: TrainingPair, rows: slice, columns: slice
) -> float:
    encode, compare = sessions
    pictures = [np.ascontiguousarray(p[rows, columns]) for p in (pair.reference, pair.target)]
    reference, target = (to_tensor([p]).float() for p in pictures)
    with torch.no_grad():
        features = [f.numpy() for f in net.encode(reference)]
        expected = net(reference, target).sigmoid()[0, 0].numpy()
        known = [k.numpy() for k in reference_inputs(net, [reference])]
    encoded: list[NDArray[np.float32]] = encode.run(None, {"image": pictures[0][None]})
    feeds = dict(zip([i.name for i in compare.get_inputs()], [pictures[1][None], *known], strict=True))
    heat: NDArray[np.float32] = compare.run(None, feeds)[0]
    # Features have no fixed range: theirs counts in shares of the largest.
    shares = [np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in zip(encoded, features, strict=True)]
    return float(np.max([np.abs(heat - expected).max(), *shares]))


def export(checkpoint: Path, out: Path) -> dict[str, object]:
    """Write both graphs and `lite.json` (hashes, sizes, recipe) to ``out``; return the latter's content.

    The folder changes only after the graphs have proved themselves, the manifest last. A manifest's operating point
    belongs to the old graphs and goes with them.

    Raises ConfigError for a file that is no checkpoint, RuntimeError when ONNX Runtime and PyTorch disagree.
    """
    saved = read_checkpoint(checkpoint, torch.device("cpu"))
    net = DifferenceNet()
    net.load_state_dict(saved["average"])
    net.eval()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        unproved = Path(folder)
        write_graphs(net, unproved)
        largest = check_parity(net, unproved)
        if not largest <= PARITY:
            raise RuntimeError(f"ONNX Runtime differs from PyTorch by {largest:.2e}, allowed: at most {PARITY:.0e}")
        files = {name: _describe(unproved / name) for name in (ENCODE, COMPARE)}
        manifest: dict[str, object] = {
            "schema_version": 1,
            "name": "lite",
            "files": files,
            "input_multiple": INPUT_MULTIPLE,
            "heat_stride": HEAT_STRIDE,
            "scales": list(STRIDES),
            "training": stages(checkpoint),
        }
        for name in files:
            (unproved / name).replace(out / name)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    print(f"PyTorch and ONNX Runtime agree to {largest:.1e}")
    return manifest


def _describe(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of distill.lite.train")
    parser.add_argument("out", type=Path, help="folder of the shipped model")
    a = parser.parse_args(arguments)
    try:
        print(json.dumps(export(a.run / "checkpoint.pt", a.out), indent=2))
    except DifferadError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
