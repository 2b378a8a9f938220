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
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from differad_edge.engines.vlm.exported import KEPT_VISION_BLOCKS, MANIFEST, Exported, StageName
from differad_edge.errors import ConfigError, ExportError, MissingExtraError
from differad_edge.export.fewer_bits import DATA, LARGEST, LEAST, Bits, QuantisedWeights, group_of
from differad_edge.export.ranges import InputRange, read_ranges
from differad_edge.export.widen import write_widened

if TYPE_CHECKING:
    import onnx

__all__ = ["QUANTISED", "quantise_export"]

QUANTISED: tuple[Bits, ...] = get_args(Bits)

_STAGES: dict[Bits, tuple[StageName, ...]] = {
    "fp8": ("vision", "prefix", "tail", "step", "jump"),
    "int8": ("vision", "prefix", "tail", "step", "jump"),
    "int4": ("step", "jump"),
}


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
        with (folder / DATA).open("wb") as stream:
            store = QuantisedWeights(bits, folder, stream)
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


class _Rewriting:
    """One graph, whose layers are to read the weights of ``store``."""

    def __init__(self, model: onnx.ModelProto, ranges: dict[str, InputRange], store: QuantisedWeights) -> None:
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
            scale = self._floats(f"{start}.scale", np.float32(max(largest, LEAST) / LARGEST[bits]), dtype)
            zero = self._held(self._onnx.numpy_helper.from_array(np.zeros((), self._store.kind), f"{start}.zero"))
            shared.append(self._node("QuantizeLinear", [x, scale, zero], f"{start}.q"))
            shared.append(self._node("DequantizeLinear", [f"{start}.q", scale, zero], f"{start}.dq"))
            x = f"{start}.dq"
        made = []
        for node, (weight, scales) in zip(nodes, layers.tensors, strict=True):
            options = {"axis": 1} if bits != "int4" else {"axis": 0, "block_size": group_of(weight.dims[0])}
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
