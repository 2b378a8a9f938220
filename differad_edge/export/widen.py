"""Graphs of bfloat16 for a runtime that computes in float32: every result is rounded to what bfloat16 holds.

ONNX Runtime has next to no bfloat16 arithmetic on a CPU, and PyTorch's there is float32 with rounded results. Weights
stay where they are, in bfloat16; a widened graph takes and gives float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from differad_edge.engines.vlm.exported import STAGES, StageName

__all__ = ["widened_name", "write_widened"]

_MOVES = frozenset(
    {"Concat", "Expand", "Gather", "Identity", "Neg", "Pad", "Reshape", "Slice", "Split", "Squeeze", "TensorScatter"}
    | {"Transpose", "Unsqueeze"}
)
"""Operators whose results need no rounding: they are made of what went in."""


def widened_name(stage: StageName) -> str:
    """The file of a stage's widened graph."""
    return f"{stage}.widened.onnx"


def write_widened(folder: Path) -> dict[StageName, str]:
    """Write the widened graph of every stage in ``folder`` beside it; their names. Raises OSError."""
    import onnx

    for stage in STAGES:
        model = onnx.load(str(folder / f"{stage}.onnx"), load_external_data=False)
        _widen(model)
        onnx.save(model, str(folder / widened_name(stage)))
    return {stage: widened_name(stage) for stage in STAGES}


def _widen(model: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph, narrow, wide = model.graph, TensorProto.BFLOAT16, TensorProto.FLOAT
    named = [*graph.input, *graph.output, *graph.value_info]
    rounded = {one.name for one in named if one.type.tensor_type.elem_type == narrow}
    for one in (*graph.input, *graph.output):
        if one.name in rounded:
            one.type.tensor_type.elem_type = wide
    del graph.value_info[:]  # ONNX Runtime finds them again

    held = {tensor.name for tensor in graph.initializer if tensor.data_type == narrow}
    nodes = [helper.make_node("Cast", [name], [f"{name}.wide"], f"{name}.wide", to=wide) for name in sorted(held)]
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in held:
                node.input[place] = f"{name}.wide"
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == narrow:
                attribute.i = wide
            elif attribute.HasField("t") and attribute.t.data_type == narrow:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype("float32")))
        nodes.append(node)
        if node.op_type in _MOVES:
            continue
        for place, name in enumerate(node.output):
            if name in rounded:
                exact, between = f"{name}.exact", f"{name}.rounded"
                node.output[place] = exact
                nodes.append(helper.make_node("Cast", [exact], [between], between, to=narrow))
                nodes.append(helper.make_node("Cast", [between], [name], f"{name}.again", to=wide))
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
