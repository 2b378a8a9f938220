"""Fewer bits in an export's graphs: which layers, which scales, how far the outputs move, what is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from differad_edge.errors import ConfigError, ExportError  # noqa: E402
from differad_edge.export.fewer_bits import AWQ_STEPS, QuantisedWeights, awq, smoothing  # noqa: E402
from differad_edge.export.quantise import _Rewriting, quantise_export  # noqa: E402
from differad_edge.export.ranges import InputRange, read_ranges, write_ranges  # noqa: E402

K, N, ROWS = 256, 96, 40
MLP = ("decoder.layers.0.mlp.gate_proj", "decoder.layers.0.mlp.up_proj")


def inputs() -> Any:
    """Activations as a transformer's are: a few inputs are far larger than the others."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(ROWS, K)) * np.where(np.arange(K) % 50 == 7, 20.0, 1.0)).astype(np.float32)


def ranges(names: Sequence[str] = MLP) -> dict[str, InputRange]:
    x = inputs()
    return {name: InputRange(np.abs(x).max(0), np.square(x).mean(0), ROWS) for name in names}


def graph(names: Sequence[str] = MLP, *, bias: bool = False) -> Any:
    rng = np.random.default_rng(1)
    weights = [numpy_helper.from_array(rng.normal(size=(N, K)).astype(np.float32) / 16, f"{n}.weight") for n in names]
    extra = [numpy_helper.from_array(rng.normal(size=N).astype(np.float32), "bias")] if bias else []
    nodes = [
        helper.make_node("Gemm", ["x", f"{name}.weight", *(["bias"] if bias else [])], [f"y{n}"], f"g{n}", transB=1)
        for n, name in enumerate(names)
    ]
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, [ROWS, N]) for n in range(len(names))]
    first = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, K])]
    made = helper.make_graph(nodes, "g", first, outputs, [*weights, *extra])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


def run(model: Any, folder: Path) -> list[Any]:
    file = folder / "graph.onnx"
    onnx.save(model, str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": inputs()})  # type: ignore[no-any-return]


def rewrite(model: Any, bits: Any, folder: Path, known: dict[str, InputRange] | None = None) -> int:
    with (folder / "quantised.bin").open("wb") as stream:
        return _Rewriting(model, ranges() if known is None else known, QuantisedWeights(bits, folder, stream)).run()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("bits", "most"), [("fp8", 0.05), ("int8", 0.02), ("int4", 0.12)])
def test_outputs_move_as_little_as_the_bits_allow(bits: str, most: float, bias: bool, tmp_path: Path) -> None:
    exact = run(graph(bias=bias), tmp_path)
    model = graph(bias=bias)
    assert rewrite(model, bits, tmp_path) == 2
    for right, found in zip(exact, run(model, tmp_path), strict=True):
        error = float(np.sqrt(np.square(right - found).mean()) / right.std())
        assert 1e-4 < error < most


def test_layers_that_read_the_same_share_its_quantised_form(tmp_path: Path) -> None:
    model = graph()
    rewrite(model, "fp8", tmp_path)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["QuantizeLinear", "DequantizeLinear", *["DequantizeLinear", "MatMul"] * 2]
    assert not any(tensor.name.endswith(".weight") for tensor in model.graph.initializer)


def test_stages_share_what_is_quantised(tmp_path: Path) -> None:
    first, second = graph(), graph()
    with (tmp_path / "quantised.bin").open("wb") as stream:
        store = QuantisedWeights("int8", tmp_path, stream)
        for model in (first, second):
            assert _Rewriting(model, ranges(), store).run() == 2
    assert (tmp_path / "quantised.bin").stat().st_size == 2 * N * K
    assert first == second
    for one, other in zip(run(first, tmp_path), run(second, tmp_path), strict=True):
        np.testing.assert_array_equal(one, other)


def test_scales_are_those_of_the_formulas(tmp_path: Path) -> None:
    model = graph(MLP[:1])
    weight = numpy_helper.to_array(model.graph.initializer[0])
    rewrite(model, "fp8", tmp_path)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    scale = numpy_helper.to_array(held[f"{MLP[0]}.input.scale"])
    assert scale == pytest.approx(np.abs(inputs()).max() / 448, rel=1e-6)
    found = numpy_helper.to_array(held[f"{MLP[0]}.weight.scale"])
    np.testing.assert_allclose(found, np.abs(weight).max(1) / 448, rtol=1e-6)


def test_smoothing_evens_out_inputs_and_weights() -> None:
    weight = np.random.default_rng(2).normal(size=(N, K)).astype(np.float32)
    seen = ranges()[MLP[0]]
    scale = smoothing([weight], seen)
    # SmoothQuant, Eq. 4: at alpha = 0.5 both sides end with the same range.
    np.testing.assert_allclose(seen.largest / scale, np.abs(weight * scale).max(0), rtol=1e-5)


def test_awq_is_no_worse_than_plain_rounding() -> None:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(N, K)).astype(np.float32)
    seen, x = ranges()[MLP[0]], inputs()

    def error(scale: Any) -> float:
        wide = (weight * scale).reshape(N, -1, 128)
        step = np.abs(wide).max(2, keepdims=True) / 7
        rounded = (np.rint(wide / step) * step).reshape(N, K) / scale
        return float(np.square(x @ (rounded - weight).T).mean())

    assert error(awq([weight], seen)) < 0.8 * error(np.ones(K))
    assert AWQ_STEPS[0] == 0.0  # plain rounding is among what is tried
    flat = InputRange(np.ones(K, np.float32), np.ones(K, np.float32))
    np.testing.assert_allclose(awq([weight], flat), 1.0)


def test_what_must_keep_its_bits_does(tmp_path: Path) -> None:
    kept = ("blocks.0.attn.qkv", "blocks.2.mlp.linear_fc1", "merger.linear_fc1", "deep_mergers.0.linear_fc2", "head")
    model = graph(kept)
    assert rewrite(model, "fp8", tmp_path, {}) == 0
    assert {node.op_type for node in model.graph.node} == {"Gemm"}
    assert rewrite(graph(["blocks.3.attn.qkv"]), "fp8", tmp_path, ranges(["blocks.3.attn.qkv"])) == 1


def test_a_layer_that_was_never_seen_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"layer decoder\.layers\.0\.mlp\.gate_proj: no range was kept"):
        rewrite(graph(), "fp8", tmp_path, {})
    odd = graph()
    del odd.graph.node[0].attribute[:]
    with pytest.raises(ExportError, match="not that of a linear layer"):
        rewrite(odd, "int8", tmp_path)


def test_inputs_that_were_all_zero_are_borne(tmp_path: Path) -> None:
    nothing = {name: InputRange(np.zeros(K, np.float32), np.zeros(K, np.float32)) for name in MLP}
    for bits in ("fp8", "int8", "int4"):
        model = graph()
        rewrite(model, bits, tmp_path, nothing)
        assert all(np.isfinite(found).all() for found in run(model, tmp_path))


def test_groups_of_four_bits_must_fit(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((8, 40), np.float32), f"{MLP[0]}.weight")
    model = graph(MLP[:1])
    model.graph.initializer[0].CopyFrom(weight)
    odd = {MLP[0]: InputRange(np.ones(40, np.float32), np.ones(40, np.float32))}
    with pytest.raises(ExportError, match="int4: got a layer of 40 inputs, allowed: a multiple of 32"):
        rewrite(model, "int4", tmp_path, odd)


def test_ranges_are_kept_beside_the_export(tmp_path: Path) -> None:
    write_ranges(ranges(), tmp_path)
    again = read_ranges(tmp_path)
    assert set(again) == set(MLP)
    np.testing.assert_array_equal(again[MLP[1]].largest, ranges()[MLP[1]].largest)
    (tmp_path / "ranges.npz").write_bytes(b"x")
    with pytest.raises(ExportError, match=r"ranges\.npz: cannot be read.*export the checkpoint again"):
        read_ranges(tmp_path)


def test_other_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision: got 'int2', allowed: fp8, int8, int4"):
        quantise_export(None, "int2", tmp_path / "out")  # type: ignore[arg-type]


def test_four_bits_are_packed_low_first(tmp_path: Path) -> None:
    stream = io.BytesIO()
    QuantisedWeights("int4", tmp_path, stream).stored("t", np.array([[1, -2], [7, -7]], np.int8))
    assert stream.getvalue() == bytes([0xE1, 0x97])
