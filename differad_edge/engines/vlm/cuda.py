"""The little of CUDA's runtime that an engine without PyTorch needs: memory, copies, one stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import EngineError, MissingExtraError

__all__ = ["Block", "Cuda"]


class Block:
    """``bytes`` on the GPU at ``address``; given back when nobody holds it any more."""

    def __init__(self, cuda: Cuda, count: int) -> None:
        self._cuda, self.bytes = cuda, count
        self.address: int = cuda.call("cudaMalloc", count)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._cuda.runtime.cudaFree(self.address)


class Cuda:
    """The current device and a stream of its own.

    Raises MissingExtraError without CUDA's Python bindings, EngineError where there is no GPU or no driver.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as exc:
            raise MissingExtraError("tensorrt", "cuda-python") from exc
        self.runtime: Any = runtime
        attributes = runtime.cudaDeviceAttr
        names = ("cudaDevAttrComputeCapabilityMajor", "cudaDevAttrComputeCapabilityMinor")
        major, minor = (self.call("cudaDeviceGetAttribute", getattr(attributes, name), 0) for name in names)
        self.capability: tuple[int, int] = (int(major), int(minor))
        self.stream: Any = self.call("cudaStreamCreate")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime and return what it gives beside its status. Raises EngineError."""
        status, *given = getattr(self.runtime, name)(*arguments)
        if int(status) != 0:
            _, words = self.runtime.cudaGetErrorString(status)
            text = words.decode() if isinstance(words, bytes) else str(words)
            raise EngineError(f"CUDA: {name} failed: {text}; is there an NVIDIA GPU with its driver?")
        return given[0] if given else None

    def block(self, count: int) -> Block:
        """Memory for ``count`` bytes. Raises EngineError where it does not suffice."""
        return Block(self, count)

    def to_device(self, array: NDArray[Any], address: int) -> None:
        """Copy a contiguous array, in the order of the stream; it may be changed afterwards."""
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)
        self.wait()

    def to_host(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """A copy of what lies at ``address``, once all before it in the stream is done."""
        array = np.empty(shape, dtype)
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)
        self.wait()
        return array

    def copy_rows(self, to: int, to_pitch: int, source: int, source_pitch: int, width: int, rows: int) -> None:
        """Copy ``rows`` of ``width`` bytes on the device; a pitch is the distance of two rows in bytes."""
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.call("cudaMemcpy2DAsync", to, to_pitch, source, source_pitch, width, rows, kind, self.stream)

    def wait(self) -> None:
        """Until all that was asked for is done. Raises EngineError where some of it failed."""
        self.call("cudaStreamSynchronize", self.stream)
