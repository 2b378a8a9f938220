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
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.exported import KEPT_VISION_BLOCKS, MANIFEST, Exported, StageName
from differad_edge.engines.vlm.runner import Floats
from differad_edge.errors import ConfigError, ExportError, MissingExtraError
from differad_edge.export.ranges import InputRange, read_ranges
from differad_edge.export.widen import write_widened

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
            store = _Store(bits, folder, stream)
            for stage in _STAGES[bits]:
                file = copy.stage(stage)
                model = onnx.load(str(file), load_external_data=False)
                if _Rewriting(model, ranges, store).run() == 0 and stage != "vision":
                    raise ExportError(f"stage {stage}: found no layer to quantise")
                file.unlink()  # it is a link
                onnx.save(model, str(file))
        if exported.manifest.widened:
            for name in exported.manifest.widened.values():
                (folder / name).unlink()
            write_widened(folder)
    except OSError as exc:
        raise ExportError(f"{folder}: cannot be written: {exc.strerror or exc}") from exc
    return copy


def _link(source: Path, to: Path) -> None:
    try:
        os.link(source, to)
    except OSError:  # another disk, or one without links
        shutil.copy(source, to)


@dataclass(frozen=True)
class _Layers:
    """Layers that read the same input, as a graph computes them with fewer bits."""

    smooth: Floats | None
    """(K,): what the input is divided by first."""
    tensors: tuple[tuple[onnx.TensorProto, onnx.TensorProto], ...]
    """Of each layer, its weight (K, N) and the weight's scales."""


class _Store:
    """Weights of fewer bits in the open file _DATA of ``folder``: made once, whichever stages read them."""

    def __init__(self, bits: Bits, folder: Path, stream: BinaryIO) -> None:
        import onnx

        self._onnx, self._folder, self._stream = onnx, folder, stream
        self._made: dict[tuple[str, ...], _Layers] = {}
        self.bits = bits

    @property
    def kind(self) -> Any:
        """How NumPy holds a value of these bits."""
        if self.bits != "fp8":
            return np.int8
        return self._onnx.helper.tensor_dtype_to_np_dtype(self._onnx.TensorProto.FLOAT8E4M3FN)

    def layers(self, weights: list[onnx.TensorProto], seen: InputRange) -> _Layers:
        """Of the exported ``weights`` (N, K) of layers that read the same input, whose range was ``seen``."""
        key = tuple(weight.name for weight in weights)
        if key not in self._made:
            read = [self._read(weight) for weight in weights]
            smooth = {"fp8": _as_it_is, "int8": _smoothing, "int4": _awq}[self.bits](read, seen)
            wide = read if smooth is None else [weight * smooth for weight in read]
            tensors = [self._quantised(weight, values.T) for weight, values in zip(weights, wide, strict=True)]
            self._made[key] = _Layers(smooth, tuple(tensors))
        return self._made[key]

    def _quantised(self, weight: onnx.TensorProto, values: Floats) -> tuple[onnx.TensorProto, onnx.TensorProto]:
        if self.bits == "int4":
            group = _group(len(values))
            scale = self._rounded(np.abs(values.reshape(-1, group, values.shape[1])).max(1), weight.data_type)
            exact = np.asarray(values / np.repeat(scale, group, 0), np.float32)
        else:
            scale = self._rounded(np.abs(values).max(0), weight.data_type)
            exact = np.asarray(values / scale, np.float32)
        if self.bits != "fp8":
            exact = np.asarray(np.rint(exact), np.float32)
        small = np.clip(exact, -_LARGEST[self.bits], _LARGEST[self.bits]).astype(self.kind)
        dtype = self._onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
        scales = self._onnx.numpy_helper.from_array(scale.astype(dtype), f"{weight.name}.scale")
        return self.stored(f"{weight.name}.q", small), scales

    def stored(self, name: str, values: NDArray[Any]) -> onnx.TensorProto:
        """A tensor outside the graph: int8 values of four bits go two into a byte, the first one low."""
        proto = self._onnx.TensorProto
        kind = {"fp8": proto.FLOAT8E4M3FN, "int8": proto.INT8, "int4": proto.INT4}[self.bits]
        data = np.ascontiguousarray(values)
        if self.bits == "int4":
            flat = data.reshape(-1).astype(np.uint8) & 0xF
            data = flat[0::2] | (flat[1::2] << 4)
        tensor = proto(name=name, data_type=kind, dims=values.shape, data_location=proto.EXTERNAL)
        for key, value in (("location", _DATA), ("offset", self._stream.tell()), ("length", data.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._stream.write(data.tobytes())
        return tensor

    def _read(self, tensor: onnx.TensorProto) -> Floats:
        kind = self._onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if tensor.data_location != tensor.EXTERNAL:
            return np.asarray(self._onnx.numpy_helper.to_array(tensor), np.float32)
        place = {entry.key: entry.value for entry in tensor.external_data}
        # Not onnx's own reader: it refuses files with several links.
        count = int(place["length"]) // np.dtype(kind).itemsize
        values = np.fromfile(self._folder / place["location"], kind, count, offset=int(place.get("offset", 0)))
        return np.asarray(values.reshape(tuple(tensor.dims)), np.float32)

    def _rounded(self, largest: Floats, dtype: int) -> Floats:
        """Scales as the graph will hold them, so that weights are divided by what they are multiplied with."""
        scale = np.maximum(largest / _LARGEST[self.bits], _LEAST)
        return np.asarray(scale.astype(self._onnx.helper.tensor_dtype_to_np_dtype(dtype)), np.float32)


class _Rewriting:
    """One graph, whose layers are to read the weights of ``store``."""

    def __init__(self, model: onnx.ModelProto, ranges: dict[str, InputRange], store: _Store) -> None:
        import onnx

        self._onnx = onnx
        self._graph, self._ranges, self._store = model.graph, ranges, store
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def run(self) -> int:
        """Rewrite all linear layers that may be; how many those were."""
        instead: dict[str, list[onnx.NodeProto]] = {}  # of the node with this output
        replaced = set()
        for source, nodes in self._by_input().items():
            made = self._rewritten(source, nodes)
            for node, new in zip(nodes, made, strict=True):
                instead[node.output[0]] = new
                replaced.add(node.input[1])
        nodes = [new for node in self._graph.node for new in instead.get(node.output[0], [node])]
        # In the order of their inputs still: what replaces a node stands where it stood.
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        kept = [tensor for name, tensor in self._tensors.items() if name not in replaced]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        return len(instead)

    def _by_input(self) -> dict[str, list[onnx.NodeProto]]:
        """Layers that read the same tensor share its quantised form."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self._graph.node:
            if node.op_type != "Gemm" or not node.input[1].endswith(".weight") or node.input[1] not in self._tensors:
                continue
            name = _layer(node)
            if not _may_be_quantised(name):
                continue
            if {one.name: one.i for one in node.attribute}.get("transB") != 1:
                raise ExportError(f"layer {name}: its graph is not that of a linear layer")
            if name not in self._ranges:
                raise ExportError(f"layer {name}: no range was kept of its inputs; export the checkpoint again")
            found.setdefault(node.input[0], []).append(node)
        return found

    def _rewritten(self, source: str, nodes: list[onnx.NodeProto]) -> list[list[onnx.NodeProto]]:
        """What stands for each of the ``nodes``, which all read ``source``; for the first, with what they share."""
        first = _layer(nodes[0])
        weights, seen = [self._tensors[node.input[1]] for node in nodes], self._ranges[first]
        dtype, bits, layers = weights[0].data_type, self._store.bits, self._store.layers(weights, seen)
        shared, x = [], source
        if layers.smooth is not None:
            x = f"{first}.smooth"
            shared.append(self._node("Mul", [source, self._floats(f"{x}.by", 1 / layers.smooth, dtype)], x))
        if bits != "int4":
            largest = float((seen.largest if layers.smooth is None else seen.largest / layers.smooth).max())
            start = f"{first}.input"
            scale = self._floats(f"{start}.scale", np.float32(max(largest, _LEAST) / _LARGEST[bits]), dtype)
            zero = self._held(self._onnx.numpy_helper.from_array(np.zeros((), self._store.kind), f"{start}.zero"))
            shared.append(self._node("QuantizeLinear", [x, scale, zero], f"{start}.q"))
            shared.append(self._node("DequantizeLinear", [f"{start}.q", scale, zero], f"{start}.dq"))
            x = f"{start}.dq"
        made = []
        for node, (weight, scales) in zip(nodes, layers.tensors, strict=True):
            options = {"axis": 1} if bits != "int4" else {"axis": 0, "block_size": _group(weight.dims[0])}
            restored = f"{node.input[1]}.dq"
            new = [self._node("DequantizeLinear", [self._held(weight), self._held(scales)], restored, **options)]
            bias = list(node.input[2:3])
            product = f"{_layer(node)}.product" if bias else node.output[0]
            new.append(self._node("MatMul", [x, restored], product))
            if bias:
                new.append(self._node("Add", [product, *bias], node.output[0]))
            made.append([*shared, *new])
            shared = []
        return made

    def _floats(self, name: str, values: Any, dtype: int) -> str:
        kind = self._onnx.helper.tensor_dtype_to_np_dtype(dtype)
        return self._held(self._onnx.numpy_helper.from_array(np.asarray(values).astype(kind), name))

    def _held(self, tensor: onnx.TensorProto) -> str:
        self._tensors[tensor.name] = tensor
        return tensor.name

    def _node(self, kind: str, inputs: list[str], output: str, **options: Any) -> onnx.NodeProto:
        return self._onnx.helper.make_node(kind, inputs, [output], f"{output}.node", **options)


def _layer(node: onnx.NodeProto) -> str:
    return str(node.input[1]).removesuffix(".weight")


def _may_be_quantised(name: str) -> bool:
    block = re.match(r"blocks\.(\d+)\.", name)
    if block is not None:
        return int(block[1]) >= KEPT_VISION_BLOCKS
    return name.startswith("decoder.layers.")


def _as_it_is(weights: list[Floats], seen: InputRange) -> None:
    """E4M3 keeps three bits of any size, so its inputs need no smoothing."""


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
