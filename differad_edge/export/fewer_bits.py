"""Weights of fewer bits, and the scales that they need: SmoothQuant's for int8, AWQ's for int4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.runner import Floats
from differad_edge.errors import ExportError
from differad_edge.export.ranges import InputRange

if TYPE_CHECKING:
    import onnx

__all__ = [
    "AWQ_STEPS",
    "DATA",
    "LARGEST",
    "LEAST",
    "Bits",
    "Layers",
    "QuantisedWeights",
    "awq",
    "group_of",
    "smoothing",
]

Bits = Literal["fp8", "int8", "int4"]
SMOOTHING = 0.5  # SmoothQuant's alpha
AWQ_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # AWQ's alpha is searched among these
GROUPS = (128, 64, 32)  # inputs that share a scale of four bits: the first that divides
LARGEST: dict[Bits, float] = {"fp8": 448.0, "int8": 127.0, "int4": 7.0}
LEAST = 1e-8  # a layer whose inputs were all zero still needs a scale
DATA = "quantised.bin"


@dataclass(frozen=True)
class Layers:
    """Layers that read the same input, as a graph computes them with fewer bits."""

    smooth: Floats | None
    """(K,): what the input is divided by first."""
    tensors: tuple[tuple[onnx.TensorProto, onnx.TensorProto], ...]
    """Of each layer, its weight (K, N) and the weight's scales."""


class QuantisedWeights:
    """Weights of fewer bits in the open file DATA of ``folder``: made once, whichever stages read them."""

    def __init__(self, bits: Bits, folder: Path, stream: BinaryIO) -> None:
        import onnx

        self._onnx, self._folder, self._stream = onnx, folder, stream
        self._made: dict[tuple[str, ...], Layers] = {}
        self.bits = bits

    @property
    def kind(self) -> Any:
        """How NumPy holds a value of these bits."""
        if self.bits != "fp8":
            return np.int8
        return self._onnx.helper.tensor_dtype_to_np_dtype(self._onnx.TensorProto.FLOAT8E4M3FN)

    def layers(self, weights: list[onnx.TensorProto], seen: InputRange) -> Layers:
        """Of the exported ``weights`` (N, K) of layers that read the same input, whose range was ``seen``."""
        key = tuple(weight.name for weight in weights)
        if key not in self._made:
            read = [self._read(weight) for weight in weights]
            smooth = {"fp8": _as_it_is, "int8": smoothing, "int4": awq}[self.bits](read, seen)
            wide = read if smooth is None else [weight * smooth for weight in read]
            tensors = [self._quantised(weight, values.T) for weight, values in zip(weights, wide, strict=True)]
            self._made[key] = Layers(smooth, tuple(tensors))
        return self._made[key]

    def _quantised(self, weight: onnx.TensorProto, values: Floats) -> tuple[onnx.TensorProto, onnx.TensorProto]:
        if self.bits == "int4":
            group = group_of(len(values))
            scale = self._rounded(np.abs(values.reshape(-1, group, values.shape[1])).max(1), weight.data_type)
            exact = np.asarray(values / np.repeat(scale, group, 0), np.float32)
        else:
            scale = self._rounded(np.abs(values).max(0), weight.data_type)
            exact = np.asarray(values / scale, np.float32)
        if self.bits != "fp8":
            exact = np.asarray(np.rint(exact), np.float32)
        small = np.clip(exact, -LARGEST[self.bits], LARGEST[self.bits]).astype(self.kind)
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
        for key, value in (("location", DATA), ("offset", self._stream.tell()), ("length", data.nbytes)):
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
        scale = np.maximum(largest / LARGEST[self.bits], LEAST)
        return np.asarray(scale.astype(self._onnx.helper.tensor_dtype_to_np_dtype(dtype)), np.float32)


def _as_it_is(weights: list[Floats], seen: InputRange) -> None:
    """E4M3 keeps three bits of any size, so its inputs need no smoothing."""


def smoothing(weights: list[Floats], seen: InputRange) -> Floats:
    """SmoothQuant's scale of each input, (K,): what is hard about inputs goes over to weights."""
    of_weights = np.maximum(np.max([np.abs(weight).max(0) for weight in weights], axis=0), LEAST)
    of_inputs = np.maximum(seen.largest, LEAST)
    scale: Floats = of_inputs**SMOOTHING / of_weights ** (1 - SMOOTHING)
    return np.clip(scale, 1e-4, 1e4)


def awq(weights: list[Floats], seen: InputRange) -> Floats:
    """AWQ's scale of each input, (K,): of AWQ_STEPS, the one whose rounding moves the outputs least.

    An input of mean square m adds m * (error of its weights)^2 to that of the outputs, were inputs independent.
    """
    size = np.sqrt(np.maximum(seen.mean_square, LEAST))

    def candidates() -> Iterator[tuple[float, Floats]]:
        for alpha in AWQ_STEPS:
            scale = size**alpha
            scale = np.clip(scale / np.sqrt(scale.max() * scale.min()), 1e-4, 1e4).astype(np.float32)
            error = 0.0
            for weight in weights:
                wide = (weight * scale).reshape(len(weight), -1, group_of(weight.shape[1]))
                step = np.maximum(np.abs(wide).max(2, keepdims=True) / LARGEST["int4"], LEAST)
                off = (np.rint(wide / step) * step - wide).reshape(weight.shape) / scale
                error += float((np.square(off).sum(0) * seen.mean_square).sum())
            yield error, scale

    return min(candidates(), key=lambda one: one[0])[1]


def group_of(inputs: int) -> int:
    group = next((size for size in GROUPS if inputs % size == 0), None)
    if group is None:
        raise ExportError(f"int4: got a layer of {inputs} inputs, allowed: a multiple of {GROUPS[-1]}")
    return group
