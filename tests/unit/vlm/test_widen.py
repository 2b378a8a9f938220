"""bfloat16 on ONNX Runtime: widened graphs round as PyTorch does, and weights stay where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from differad_edge.engines.vlm.numbers import to_bfloat16, to_float32  # noqa: E402
from differad_edge.export.widen import _widen  # noqa: E402

K, N = 32, 24


def weights() -> Any:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(N, K)).astype(np.float32)).bfloat16()


def narrow_graph() -> Any:
    """y = silu(x W^T) in bfloat16, turned round, from x in float32."""
    held = numpy_helper.from_array(to_bfloat16(weights().float().numpy()), "w")
    held.data_type = TensorProto.BFLOAT16
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.BFLOAT16),
        helper.make_node("Gemm", ["x16", "w"], ["product"], transB=1),
        helper.make_node("Sigmoid", ["product"], ["gate"]),
        helper.make_node("Mul", ["product", "gate"], ["gated"]),
        helper.make_node("Transpose", ["gated"], ["y"]),
    ]
    inner = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, None) for name in ("x16", "product", "gate")]
    inner.append(helper.make_tensor_value_info("gated", TensorProto.BFLOAT16, None))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, K])
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [N, 4])
    graph = helper.make_graph(nodes, "g", [x], [y], [held], value_info=inner)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


def test_every_result_is_rounded_as_pytorch_rounds_it(tmp_path: Path) -> None:
    model = narrow_graph()
    _widen(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(tmp_path / "g.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(4, K)).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    product = torch.from_numpy(x).bfloat16() @ weights().T
    right = (product * product.sigmoid()).T.float().numpy()
    assert found.dtype == np.float32
    assert not (found.view(np.uint32) & 0xFFFF).any()
    # A sum in another order may round to the neighbour: 2^-8 of the value.
    np.testing.assert_allclose(found, right, rtol=2**-7)
    assert (found == right).mean() > 0.9


def test_weights_stay_in_bfloat16() -> None:
    model = narrow_graph()
    _widen(model)
    assert [tensor.data_type for tensor in model.graph.initializer] == [TensorProto.BFLOAT16]
    # What only moves numbers is not rounded again.
    assert [node.op_type for node in model.graph.node].count("Cast") == 1 + 1 + 2 * 4


def test_bfloat16_comes_back_as_it_went() -> None:
    exact = np.array([0.0, 1.0, -2.5, 3.0e38, 1e-30], np.float32)
    kept = to_bfloat16(exact)
    assert kept.dtype == np.uint16
    np.testing.assert_array_equal(to_bfloat16(to_float32(kept)), kept)
    np.testing.assert_allclose(to_float32(kept), exact, rtol=2**-7)
    np.testing.assert_array_equal(to_float32(np.array([1.5], np.float16)), [1.5])
