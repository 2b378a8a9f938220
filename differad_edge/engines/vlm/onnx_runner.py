"""The student on ONNX Runtime, from an exported folder: on CUDA where this ONNX Runtime has it, else on the CPU.

Of an export in bfloat16 it runs the widened graphs, which compute in float32 and round: right everywhere, fast nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.vlm.exported import STAGES, Exported
from differad_edge.engines.vlm.numbers import to_bfloat16, to_float32
from differad_edge.engines.vlm.runner import Floats, Prefix
from differad_edge.errors import EngineError, ModelIntegrityError

if TYPE_CHECKING:
    from differad_edge.engines.vlm.exported import StageName
    from differad_edge.images import Image

__all__ = ["OnnxRunner"]

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
Features = dict[str, Any]  # stage "vision": name to OrtValue


class OnnxRunner:
    """See Runner. Keys and values stay on the device and are updated in place.

    Raises ModelIntegrityError for files that ONNX Runtime refuses.
    """

    def __init__(self, exported: Exported, *, threads: int | None = None) -> None:
        import onnxruntime

        self._ort = onnxruntime
        manifest = exported.manifest
        self.layout = exported.question.layout
        self.precision: str = manifest.precision
        self._shape, self._jump = manifest.shape, manifest.jump
        have = onnxruntime.get_available_providers()
        self.providers = [name for name in _PROVIDERS if name in have]
        self._device = "cuda" if self.providers[0].startswith("CUDA") else "cpu"
        self.name = f"onnxruntime-{self._device}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        if manifest.precision == "bfloat16" and not manifest.widened:
            detail = "precision: got bfloat16 without widened graphs, allowed here: float32, float16"
            raise ModelIntegrityError(f"{exported.folder}: {detail}; export the checkpoint again")
        self._sessions = {name: self._session(exported, name, options) for name in STAGES}
        self._embeddings, self._head = exported.table("embeddings"), exported.table("head")
        self._names = [f"{kind}_{layer}" for layer in range(self._shape.layers) for kind in ("keys", "values")]
        types = {one.name: one.type for one in self._sessions["tail"].get_inputs()}
        if set(self._names) - set(types):
            raise ModelIntegrityError(f"{exported.stage('tail')}: got other inputs than the manifest says")
        self._dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}.get(types["keys_0"])
        if self._dtype is None:
            raise ModelIntegrityError(f"precision: got {manifest.precision}, allowed here: float32, float16")
        self._kept: Any = np.uint16 if manifest.precision == "bfloat16" else self._dtype
        shape = (1, self._shape.kv_heads, self.layout.capacity, self._shape.head_dim)
        self._buffers = {name: self._value(np.zeros(shape, self._dtype)) for name in self._names}
        self._loaded: Prefix | None = None

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

    def restore_prefix(self, key: str, arrays: dict[str, NDArray[Any]]) -> Prefix:
        """See Runner."""
        shape = (2 * self._shape.layers, self._shape.kv_heads, self.layout.prefix_length, self._shape.head_dim)
        array = arrays.get("keys_and_values")
        if array is None or array.shape != shape or array.dtype != self._kept:
            got = "nothing" if array is None else f"{array.shape} {array.dtype}"
            raise EngineError(f"prepared reference: got {got}, allowed: {shape} {np.dtype(self._kept)}")
        return self._prefix(key, to_float32(array) if self._kept == np.uint16 else array)

    def load(self, prefix: Prefix) -> None:
        """See Runner."""
        if self._loaded is not None and self._loaded.content is prefix.content:
            return
        for number, name in enumerate(self._names):
            buffer = self._buffers[name].numpy()
            buffer[0, :, : self.layout.prefix_length] = prefix.content[number]
            self._buffers[name].update_inplace(buffer)
        self._loaded = prefix

    def read(self, features: Features) -> Floats:
        """See Runner."""
        hidden: Floats = self._hidden("tail", features)[0]
        return hidden

    def advance(self, tokens: Sequence[int], at: int) -> Floats:
        """See Runner."""
        found = []
        for first in range(0, len(tokens), self._jump):
            some = tokens[first : first + self._jump]
            name: StageName = "step" if len(some) == 1 else "jump"
            width = 1 if len(some) == 1 else self._jump
            if at + first + width > self.layout.capacity:
                # A jump fills its length with tokens that nobody sees, and they need room too.
                found += [self.advance([token], at + first + offset)[0] for offset, token in enumerate(some)]
                continue
            x = to_float32(self._embeddings[[*some, *[0] * (width - len(some))]])
            inputs = {"x": self._value(x), "start": self._value(np.array([at + first], np.int64))}
            found += list(self._hidden(name, inputs)[: len(some)])
        return np.asarray(np.stack(found), np.float32)

    def logits(self, hidden: Floats, rows: Sequence[int] | None = None) -> Floats:
        """See Runner."""
        if rows is not None:
            return np.asarray(hidden @ to_float32(self._head[list(rows)]).T, np.float32)
        states = hidden.reshape(-1, hidden.shape[-1])
        found = [self._run("head", {"hidden": self._value(one[None])}, ("logits",))["logits"].numpy() for one in states]
        return np.asarray(np.concatenate(found).reshape(*hidden.shape[:-1], -1), np.float32)

    def _prefix(self, key: str, content: NDArray[Any]) -> Prefix:
        return Prefix(key, content, content.nbytes)

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
