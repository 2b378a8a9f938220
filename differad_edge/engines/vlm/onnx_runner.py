"""The student on ONNX Runtime, from an exported folder: on CUDA where this ONNX Runtime has it, else on the CPU.

Of an export in bfloat16 it runs the widened graphs, which compute in float32 and round: right everywhere, fast nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.exported import STAGES, Exported
from differad_edge.engines.vlm.exported_runner import ExportedRunner
from differad_edge.engines.vlm.graph_sizes import check_graph
from differad_edge.engines.vlm.numbers import to_bfloat16, to_float32
from differad_edge.engines.vlm.runner import Floats, Prefix
from differad_edge.errors import EngineError, ModelIntegrityError

if TYPE_CHECKING:
    from differad_edge.engines.vlm.exported import StageName
    from differad_edge.images import Image

__all__ = ["OnnxRunner"]

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
Features = dict[str, Any]  # stage "vision": name to OrtValue


class OnnxRunner(ExportedRunner):
    """See Runner. Keys and values stay on the device and are updated in place.

    Raises ModelIntegrityError for files that ONNX Runtime refuses, or that are not of the sizes in the manifest.
    """

    def __init__(self, exported: Exported, *, threads: int | None = None) -> None:
        import onnxruntime

        super().__init__(exported)
        self._ort = onnxruntime
        self.version = onnxruntime.__version__
        manifest = exported.manifest
        self.precision: str = manifest.precision
        have = onnxruntime.get_available_providers()
        self.providers = [name for name in _PROVIDERS if name in have]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        if manifest.precision == "bfloat16" and not manifest.widened:
            detail = "precision: got bfloat16 without widened graphs, allowed here: float32, float16"
            raise ModelIntegrityError(f"{exported.folder}: {detail}; export the checkpoint again")
        self._sessions = {name: self._session(exported, name, options) for name in STAGES}
        # What it was built with may not run here: without a driver it falls back to the CPU.
        running = self._sessions["tail"].get_providers()
        self._device = "cuda" if running[0].startswith("CUDA") else "cpu"
        self.name = f"onnxruntime-{self._device}"
        for name, session in self._sessions.items():
            check_graph(exported, name, session)
        self._dtype = np.float16 if manifest.precision == "float16" else np.float32
        shape = (1, self._shape.kv_heads, self.layout.capacity, self._shape.head_dim)
        self._buffers = {name: self._value(np.zeros(shape, self._dtype)) for name in self._names}

    def encode(self, canvas: Image) -> Features:
        """See Runner."""
        return self._run("vision", {"image": self._value(canvas)}, ("features", "deep"))

    def pooled(self, features: Features) -> Floats:
        """See Runner."""
        return np.asarray(features["features"].numpy(), np.float32)

    def make_prefix(self, key: str, features: Features) -> Prefix:
        """See Runner."""
        found = self._run("prefix", features, [f"{name}_out" for name in self._names])
        return self._prefix(key, np.concatenate([found[f"{name}_out"].numpy() for name in self._names]))

    def save_prefix(self, prefix: Prefix) -> dict[str, NDArray[Any]]:
        """See Runner."""
        exact: NDArray[Any] = prefix.content
        return {"keys_and_values": to_bfloat16(exact) if self._kept == np.uint16 else exact}

    def read(self, features: Features) -> Floats:
        """See Runner."""
        return self._hidden("tail", features)

    def _restored(self, key: str, array: NDArray[Any]) -> Prefix:
        return self._prefix(key, to_float32(array) if self._kept == np.uint16 else array)

    def _prefix(self, key: str, content: NDArray[Any]) -> Prefix:
        return Prefix(key, content, content.nbytes)

    def _copy_in(self, prefix: Prefix) -> None:
        for number, name in enumerate(self._names):
            buffer = self._buffers[name].numpy()
            buffer[0, :, : self.layout.prefix_length] = prefix.content[number]
            self._buffers[name].update_inplace(buffer)

    def _hidden_after(self, stage: Literal["step", "jump"], tokens: Sequence[int], start: int) -> Floats:
        inputs = {"x": self._value(self._embedded(tokens)), "start": self._value(np.array([start], np.int64))}
        return self._hidden(stage, inputs)

    def _logits_of(self, state: Floats) -> Floats:
        found = self._run("head", {"hidden": self._value(state[None])}, ("logits",))["logits"]
        return np.asarray(found.numpy()[0], np.float32)

    def _hidden(self, stage: StageName, inputs: dict[str, Any]) -> Floats:
        """The hidden states of a stage that goes on from the buffers, and leaves its own keys and values there."""
        kept = {f"{name}_out": self._buffers[name] for name in self._names}
        found = self._run(stage, {**inputs, **self._buffers}, ("hidden",), kept)
        return np.asarray(found["hidden"].numpy(), np.float32)

    def _run(
        self, stage: StageName, inputs: dict[str, Any], outputs: Sequence[str], placed: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        session = self._sessions[stage]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in (placed or {}).items():
            binding.bind_ortvalue_output(name, value)
        for name in outputs:
            binding.bind_output(name, self._device)
        try:
            session.run_with_iobinding(binding)
        except Exception as exc:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"stage {stage}: {str(exc).splitlines()[0][:200]}") from exc
        names = [one.name for one in session.get_outputs()]
        values = dict(zip([*(placed or {}), *outputs], binding.get_outputs(), strict=True))
        assert set(values) == set(names)
        return {name: values[name] for name in outputs}

    def _value(self, array: NDArray[Any]) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device)

    def _session(self, exported: Exported, name: StageName, options: Any) -> Any:
        wide = exported.manifest.precision == "bfloat16"
        file = exported.folder / exported.manifest.widened[name] if wide else exported.stage(name)
        # Of all weights at once, folding would make a copy in float32.
        off = ["ConstantFolding"] if wide else []
        try:
            return self._ort.InferenceSession(str(file), options, self.providers, disabled_optimizers=off)
        except Exception as exc:  # as above
            raise ModelIntegrityError(f"{file}: {str(exc).splitlines()[0][:200]}") from exc
