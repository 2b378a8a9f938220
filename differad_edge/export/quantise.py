"""Fewer bits for the linear layers of an export, written into its graphs as QuantizeLinear and DequantizeLinear.

=====  =================================================================================  =========================
fp8    weights and inputs, E4M3; a scale for each output of the weights, one for inputs   all stages but the head
int8   the same in integers; SmoothQuant (arXiv 2211.10438, Eq. 4, alpha = 0.5) first     all stages but the head
int4   weights alone, groups of 128 inputs; AWQ's scales (arXiv 2306.00978, Eq. 5)        step and jump: what is read
                                                                                          once for each token
=====  =================================================================================  =========================

What is left as it was: keys and values, attention, norms, the patch embedding, the first vision blocks, the mergers and
the head. TensorRT turns each pair of nodes and its matrix product into one kernel; ONNX Runtime computes what the
nodes say, which is how accuracy is measured where there is no such GPU.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.exported import KEPT_VISION_BLOCKS, MANIFEST, STAGES, Exported, StageName
from differad_edge.engines.vlm.runner import Floats
from differad_edge.errors import ConfigError, ExportError, MissingExtraError
from differad_edge.export.ranges import InputRange, read_ranges

if TYPE_CHECKING:
    import onnx

__all__ = ["QUANTISED", "Bits", "quantise_export"]

Bits = Literal["fp8", "int8", "int4"]
QUANTISED: tuple[Bits, ...] = get_args(Bits)

SMOOTHING = 0.5  # SmoothQuant's alpha
AWQ_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # AWQ's alpha is searched among these
GROUPS = (128, 64, 32)  # inputs that share a scale of four bits: the first that divides
_LARGEST = {"fp8": 448.0, "int8": 127.0, "int4": 7.0}
_STAGES: dict[Bits, tuple[StageName, ...]] = {
    "fp8": ("vision", "prefix", "tail", "step", "jump"),
    "int8": ("vision", "prefix", "tail", "step", "jump"),
    "int4": ("step", "jump"),
}
_DATA = "quantised.bin"
_LEAST = 1e-8  # a layer whose inputs were all zero still needs a scale


def quantise_export(exported: Exported, bits: str, folder: Path) -> Exported:
    """Write a copy of ``exported`` into the new ``folder`` that computes with ``bits``; other weights are linked.

    The copy is to be compiled or measured; it is not loaded: its files are not those of its manifest. Raises
    ConfigError, ExportError where no ranges were kept or the disk does not take it, MissingExtraError.
    """
    if bits not in QUANTISED:
        raise ConfigError(f"precision: got {bits!r}, allowed: {', '.join(QUANTISED)}")
    try:
        import onnx
    except ImportError as exc:
        raise MissingExtraError("export", exc.name or "onnx") from exc
    ranges = read_ranges(exported.folder)
    try:
        folder.mkdir(parents=True)
        for name in (MANIFEST, *exported.manifest.files):
            _link(exported.folder / name, folder / name)
        copy = Exported(folder)
        with (folder / _DATA).open("wb") as stream:
            for stage in STAGES:
                if stage in _STAGES[bits]:
                    file = copy.stage(stage)
                    model = onnx.load(str(file), load_external_data=False)
                    if _Rewriting(model, bits, ranges, folder, stream).run() == 0 and stage != "vision":
                        raise ExportError(f"stage {stage}: found no layer to quantise")
                    file.unlink()  # it is a link
                    onnx.save(model, str(file))
    except OSError as exc:
        raise ExportError(f"{folder}: cannot be written: {exc.strerror or exc}") from exc
    return copy


def _link(source: Path, to: Path) -> None:
    try:
        os.link(source, to)
    except OSError:  # another disk, or one without links
        shutil.copy(source, to)


@dataclass(frozen=True)
class _Linear:
    """A node y = x W^T (+ bias), and its weight: (N, K) float32."""

    node: Any
    name: str
    weight: Floats


class _Rewriting:
    """One graph; what is quantised goes into ``stream``, the open file _DATA of ``folder``."""

    def __init__(
        self, model: onnx.ModelProto, bits: Bits, ranges: dict[str, InputRange], folder: Path, stream: Any
    ) -> None:
        import onnx

        self._onnx = onnx
        self._graph, self._bits, self._ranges = model.graph, bits, ranges
        self._folder, self._stream = folder, stream
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._dead: set[str] = set()

    def run(self) -> int:
        """Rewrite all linear layers that may be; how many those were."""
        instead: dict[str, list[Any]] = {}  # of the node with this output
        done = 0
        for source, layers in self._by_input().items():
            linears = [_Linear(node, name, self._weight(name)) for node, name in layers]
            made, replaced = self._rewritten(source, linears)
            for linear, nodes in zip(linears, replaced, strict=True):
                instead[linear.node.output[0]] = [*made, *nodes]
                made = []
                self._dead.add(linear.name)
            done += len(linears)
        nodes = [new for node in self._graph.node for new in instead.get(node.output[0], [node])]
        # In the order of their inputs still: what replaces a node stands where it stood.
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        kept = [tensor for name, tensor in self._tensors.items() if name.removesuffix(".weight") not in self._dead]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        return done

    def _by_input(self) -> dict[str, list[tuple[Any, str]]]:
        """Layers that read the same tensor share its quantised form."""
        found: dict[str, list[tuple[Any, str]]] = {}
        for node in self._graph.node:
            if node.op_type != "Gemm" or not node.input[1].endswith(".weight") or node.input[1] not in self._tensors:
                continue
            name = node.input[1].removesuffix(".weight")
            if not _may_be_quantised(name):
                continue
            if {one.name: one.i for one in node.attribute}.get("transB") != 1:
                raise ExportError(f"layer {name}: its graph is not that of a linear layer")
            if name not in self._ranges:
                raise ExportError(f"layer {name}: no range was kept of its inputs; export the checkpoint again")
            found.setdefault(node.input[0], []).append((node, name))
        return found

    def _rewritten(self, source: str, linears: list[_Linear]) -> tuple[list[Any], list[list[Any]]]:
        """Nodes for the input that the layers share, and the nodes for each layer."""
        dtype = self._tensors[f"{linears[0].name}.weight"].data_type
        seen = self._ranges[linears[0].name]
        weights = [linear.weight for linear in linears]
        smooth = {"fp8": None, "int8": _smoothing(weights, seen), "int4": _awq(weights, seen)}[self._bits]
        made, x = [], source
        if smooth is not None:
            x = f"{linears[0].name}.smooth"
            inverse = self._floats(f"{x}.by", np.reciprocal(smooth), dtype)
            made.append(self._node("Mul", [source, inverse], x))
        if self._bits != "int4":
            largest = float((seen.largest if smooth is None else seen.largest / smooth).max())
            start = f"{linears[0].name}.input"
            scale = self._floats(f"{start}.scale", np.float32(max(largest, _LEAST) / _LARGEST[self._bits]), dtype)
            zero = self._small(f"{start}.zero", np.zeros((), self._kind))
            made.append(self._node("QuantizeLinear", [x, scale, zero], f"{start}.q"))
            made.append(self._node("DequantizeLinear", [f"{start}.q", scale, zero], f"{start}.dq"))
            x = f"{start}.dq"
        replaced = []
        for linear in linears:
            weight = linear.weight if smooth is None else linear.weight * smooth
            restored, nodes = self._quantised_weight(linear.name, weight.T, dtype)
            bias = list(linear.node.input[2:3])
            product = f"{linear.name}.product" if bias else linear.node.output[0]
            nodes.append(self._node("MatMul", [x, restored], product))
            if bias:
                nodes.append(self._node("Add", [product, bias[0]], linear.node.output[0]))
            replaced.append(nodes)
        return made, replaced

    def _quantised_weight(self, name: str, weight: Floats, dtype: int) -> tuple[str, list[Any]]:
        """``weight``: (K, N). The name of the tensor that stands for it, and the node that makes it."""
        options: dict[str, int] = {"axis": 1}
        if self._bits == "int4":
            group = _group(len(weight))
            options = {"axis": 0, "block_size": group}
            grouped = weight.reshape(-1, group, weight.shape[1])
            scale = self._rounded(np.abs(grouped).max(1) / _LARGEST["int4"], dtype)
            exact = np.asarray(weight / np.repeat(scale, group, 0), np.float32)
        else:
            scale = self._rounded(np.abs(weight).max(0) / _LARGEST[self._bits], dtype)
            exact = np.asarray(weight / scale, np.float32)
        if self._bits != "fp8":
            exact = np.asarray(np.rint(exact), np.float32)
        values = np.clip(exact, -_LARGEST[self._bits], _LARGEST[self._bits]).astype(self._kind)
        scales = self._floats(f"{name}.weight.scale", scale, dtype)
        stored = self._stored(f"{name}.weight.q", values)
        return f"{name}.weight.dq", [self._node("DequantizeLinear", [stored, scales], f"{name}.weight.dq", **options)]

    @property
    def _kind(self) -> Any:
        if self._bits != "fp8":
            return np.int8
        return self._onnx.helper.tensor_dtype_to_np_dtype(self._onnx.TensorProto.FLOAT8E4M3FN)

    def _weight(self, name: str) -> Floats:
        tensor = self._tensors[f"{name}.weight"]
        kind = self._onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if tensor.data_location != tensor.EXTERNAL:
            return np.asarray(self._onnx.numpy_helper.to_array(tensor), np.float32)
        place = {entry.key: entry.value for entry in tensor.external_data}
        # Not onnx's own reader: it refuses files with several links.
        count = int(place["length"]) // np.dtype(kind).itemsize
        values = np.fromfile(self._folder / place["location"], kind, count, offset=int(place.get("offset", 0)))
        return np.asarray(values.reshape(tuple(tensor.dims)), np.float32)

    def _rounded(self, scale: Floats, dtype: int) -> Floats:
        """As the graph will hold it, so that weights are divided by what they are multiplied with."""
        kind = self._onnx.helper.tensor_dtype_to_np_dtype(dtype)
        return np.asarray(np.maximum(scale, _LEAST).astype(kind), np.float32)

    def _floats(self, name: str, values: Any, dtype: int) -> str:
        return self._small(name, np.asarray(values).astype(self._onnx.helper.tensor_dtype_to_np_dtype(dtype)))

    def _small(self, name: str, values: NDArray[Any]) -> str:
        self._tensors[name] = self._onnx.numpy_helper.from_array(values, name)
        return name

    def _stored(self, name: str, values: NDArray[Any]) -> str:
        """A tensor outside the graph: int8 values of four bits go two into a byte, the first one low."""
        proto = self._onnx.TensorProto
        kind = {"fp8": proto.FLOAT8E4M3FN, "int8": proto.INT8, "int4": proto.INT4}[self._bits]
        data = np.ascontiguousarray(values)
        if self._bits == "int4":
            flat = data.reshape(-1).astype(np.uint8) & 0xF
            data = flat[0::2] | (flat[1::2] << 4)
        tensor = proto(name=name, data_type=kind, dims=values.shape, data_location=proto.EXTERNAL)
        for key, value in (("location", _DATA), ("offset", self._stream.tell()), ("length", data.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._stream.write(data.tobytes())
        self._stream.flush()
        self._tensors[name] = tensor
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **options: Any) -> Any:
        return self._onnx.helper.make_node(kind, inputs, [output], f"{output}.node", **options)


def _may_be_quantised(name: str) -> bool:
    block = re.match(r"blocks\.(\d+)\.", name)
    if block is not None:
        return int(block[1]) >= KEPT_VISION_BLOCKS
    return name.startswith("decoder.layers.")


def _smoothing(weights: list[Floats], seen: InputRange) -> Floats:
    """SmoothQuant's scale of each input, (K,): what is hard about inputs goes over to weights."""
    of_weights = np.maximum(np.max([np.abs(weight).max(0) for weight in weights], axis=0), _LEAST)
    of_inputs = np.maximum(seen.largest, _LEAST)
    scale: Floats = of_inputs**SMOOTHING / of_weights ** (1 - SMOOTHING)
    return np.clip(scale, 1e-4, 1e4)


def _awq(weights: list[Floats], seen: InputRange) -> Floats:
    """AWQ's scale of each input, (K,): of AWQ_STEPS, the one whose rounding moves the outputs least.

    An input of mean square m adds m * (error of its weights)^2 to that of the outputs, were inputs independent.
    """
    size = np.sqrt(np.maximum(seen.mean_square, _LEAST))

    def candidates() -> Iterator[tuple[float, Floats]]:
        for alpha in AWQ_STEPS:
            scale = size**alpha
            scale = np.clip(scale / np.sqrt(scale.max() * scale.min()), 1e-4, 1e4).astype(np.float32)
            error = 0.0
            for weight in weights:
                wide = (weight * scale).reshape(len(weight), -1, _group(weight.shape[1]))
                step = np.maximum(np.abs(wide).max(2, keepdims=True) / _LARGEST["int4"], _LEAST)
                off = (np.rint(wide / step) * step - wide).reshape(weight.shape) / scale
                error += float((np.square(off).sum(0) * seen.mean_square).sum())
            yield error, scale

    return min(candidates(), key=lambda one: one[0])[1]


def _group(inputs: int) -> int:
    group = next((size for size in GROUPS if inputs % size == 0), None)
    if group is None:
        raise ExportError(f"int4: got a layer of {inputs} inputs, allowed: a multiple of {GROUPS[-1]}")
    return group
