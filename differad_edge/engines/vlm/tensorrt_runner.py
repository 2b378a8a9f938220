"""The student on TensorRT: the engines that ``differad-edge compile`` built from an export, on an NVIDIA GPU.

Keys and values lie in buffers whose addresses are input and output at once, so that an engine updates them in place.
Host and device meet for one image, a few hidden states and the tokens in between.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from differad_edge.config import ConfigModel, load_config
from differad_edge.engines.vlm.cuda import Block, Cuda
from differad_edge.engines.vlm.exported import COMPILED, ENGINES, STAGES, Exported, FileEntry, StageName, sha256_of
from differad_edge.engines.vlm.exported_runner import ExportedRunner
from differad_edge.engines.vlm.numbers import to_float32
from differad_edge.engines.vlm.runner import Floats, Prefix
from differad_edge.errors import ConfigError, EngineError, MissingExtraError, ModelIntegrityError

if TYPE_CHECKING:
    from differad_edge.images import Image

__all__ = ["EXTRAS", "Builder", "Compiled", "TensorRtRunner", "engines_for", "gpu_capability", "read_compiled"]

_ONE_TIME: frozenset[StageName] = frozenset({"prefix"})  # used at registration alone: not held in between


Builder = Literal["tensorrt", "tensorrt_rtx"]
EXTRAS: dict[Builder, str] = {"tensorrt": "tensorrt-native", "tensorrt_rtx": "tensorrt"}
"""What installs each."""


class Compiled(ConfigModel):
    """What `differad-edge compile` writes beside the engines of one target."""

    manifest_sha256: str
    """Of the export that they were built from."""
    target: Annotated[str, Field(pattern=r"^sm\d{2,3}$")]
    precision: Literal["bf16", "fp16", "fp8", "int8", "int4"]
    builder: Builder
    version: str
    """Of the builder: an engine runs with this version alone."""
    engines: dict[StageName, FileEntry]
    figures: dict[str, dict[str, float]]
    """Of each stage: seconds to build, bytes, peak memory of the build."""


def engines_for(exported: Exported, capability: tuple[int, int], precision: str | None = None) -> Path | None:
    """The folder of engines for a GPU of this compute capability, None where there is none.

    ``precision``: as `differad-edge compile` was told; None for what was compiled last.
    """
    names = f"sm{capability[0]}{capability[1]}-{precision or '*'}/{COMPILED}"
    found = sorted((exported.folder / ENGINES).glob(names), key=lambda file: file.stat().st_mtime_ns)
    return found[-1].parent if found else None


def gpu_capability() -> tuple[int, int] | None:
    """The compute capability of this machine's GPU; None without one. Raises MissingExtraError."""
    try:
        return Cuda().capability
    except EngineError:
        return None


class TensorRtRunner(ExportedRunner):
    """See Runner. ``folder``: of the engines, None for those that fit this machine's GPU.

    Raises MissingExtraError, EngineError without a GPU, ModelIntegrityError for engines that are missing, torn, of
    another export, another GPU or another version of TensorRT.
    """

    def __init__(self, exported: Exported, folder: Path | None = None) -> None:
        self._cuda = cuda = Cuda()
        major, minor = cuda.capability
        here = f"sm{major}{minor}"
        folder = engines_for(exported, cuda.capability) if folder is None else folder
        if folder is None:
            remedy = f"differad-edge compile {exported.folder} --target {here}"
            raise ModelIntegrityError(f"{exported.folder}: no engines for this GPU, which is {here}; run: {remedy}")
        self._folder, self._compiled = folder, read_compiled(folder)
        if self._compiled.manifest_sha256 != exported.sha256:
            raise ModelIntegrityError(f"{folder}: built from another export, allowed: {exported.sha256[:12]}...")
        if self._compiled.target != here:
            raise ModelIntegrityError(f"{folder}: target: got {self._compiled.target}, allowed on this GPU: {here}")
        self._trt = _tensorrt(self._compiled)
        super().__init__(exported)
        self.precision = {"bf16": "bfloat16", "fp16": "float16"}.get(self._compiled.precision, self._compiled.precision)
        self.name = f"tensorrt-{here}-{self._compiled.precision}"
        self.version = sha256_of(folder / COMPILED)
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        self._contexts = {name: self._context(name) for name in STAGES if name not in _ONE_TIME}
        self._value_bytes = int(np.dtype(self._kept).itemsize)
        row = self._shape.kv_heads * self._shape.head_dim * self._value_bytes
        self._buffer = cuda.block(len(self._names) * self.layout.capacity * row)
        tokens, width = self.layout.size.tokens, self._shape.width
        sizes = {
            "image": self.layout.size.width_px * self.layout.size.height_px * 3,
            "features": tokens * width * self._value_bytes,
            "deep": max(1, self._shape.deep_levels) * tokens * width * self._value_bytes,
            "x": self._jump * width * 4,
            "start": 8,
            "hidden": max(self._jump, self._answers) * width * 4,
            "logits": self._shape.vocabulary * 4,
        }
        self._places = {name: cuda.block(count) for name, count in sizes.items()}

    def encode(self, canvas: Image) -> str:
        """See Runner. The features stay where the next image's will be: they are read before that one comes."""
        self._cuda.to_device(np.ascontiguousarray(canvas), self._places["image"].address)
        self._run("vision", {})
        return "features"

    def pooled(self, features: str) -> Floats:
        """See Runner."""
        shape = (self.layout.size.tokens, self._shape.width)
        return to_float32(self._cuda.to_host(self._places["features"].address, shape, self._kept))

    def make_prefix(self, key: str, features: str) -> Prefix:
        """See Runner."""
        block = self._cuda.block(self._prefix_bytes * len(self._names))
        context = self._context("prefix")
        outputs = {f"{name}_out": block.address + n * self._prefix_bytes for n, name in enumerate(self._names)}
        self._run("prefix", outputs, context)
        self._cuda.wait()
        return Prefix(key, block, block.bytes)

    def save_prefix(self, prefix: Prefix) -> dict[str, NDArray[Any]]:
        """See Runner."""
        return {"keys_and_values": self._cuda.to_host(prefix.content.address, self._prefix_shape, self._kept)}

    def read(self, features: str) -> Floats:
        """See Runner."""
        self._run("tail", {})
        return self._hidden(self._answers)

    def _restored(self, key: str, array: NDArray[Any]) -> Prefix:
        block: Block = self._cuda.block(array.nbytes)
        self._cuda.to_device(np.ascontiguousarray(array), block.address)
        return Prefix(key, block, block.bytes)

    def _copy_in(self, prefix: Prefix) -> None:
        row = self._shape.head_dim * self._value_bytes
        from_pitch, to_pitch = self.layout.prefix_length * row, self.layout.capacity * row
        heads = self._shape.kv_heads * len(self._names)
        self._cuda.copy_rows(self._buffer.address, to_pitch, prefix.content.address, from_pitch, from_pitch, heads)

    def _hidden_after(self, stage: Literal["step", "jump"], tokens: Sequence[int], start: int) -> Floats:
        self._cuda.to_device(np.ascontiguousarray(self._embedded(tokens)), self._places["x"].address)
        self._cuda.to_device(np.array([start], np.int64), self._places["start"].address)
        self._run(stage, {})
        return self._hidden(len(tokens))

    def _logits_of(self, state: Floats) -> Floats:
        self._cuda.to_device(np.ascontiguousarray(state), self._places["hidden"].address)
        self._run("head", {})
        logits: Floats = self._cuda.to_host(self._places["logits"].address, (self._shape.vocabulary,), np.float32)
        return logits

    @property
    def _prefix_bytes(self) -> int:
        """Of the keys, or of the values, of one layer."""
        return self._shape.kv_heads * self.layout.prefix_length * self._shape.head_dim * self._value_bytes

    def _hidden(self, count: int) -> Floats:
        found: Floats = self._cuda.to_host(self._places["hidden"].address, (count, self._shape.width), np.float32)
        return found

    def _run(self, stage: StageName, placed: dict[str, int], context: Any = None) -> None:
        """Run a stage on what lies in its places; ``placed``: addresses of tensors that lie elsewhere."""
        context = self._contexts[stage] if context is None else context
        layer_bytes = self._buffer.bytes // len(self._names)
        places = {name: block.address for name, block in self._places.items()}
        for number, name in enumerate(self._names):
            places[name] = places[f"{name}_out"] = self._buffer.address + number * layer_bytes
        places |= placed
        engine = context.engine
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if not context.set_tensor_address(name, places[name]):
                raise EngineError(f"stage {stage}: TensorRT refuses the place of {name}")
        if not context.execute_async_v3(int(self._cuda.stream)):
            raise EngineError(f"stage {stage}: TensorRT could not run it")

    def _context(self, stage: StageName) -> Any:
        file = self._folder / f"{stage}.engine"
        entry = self._compiled.engines.get(stage)
        try:
            if entry is None or file.stat().st_size != entry.bytes or sha256_of(file) != entry.sha256:
                raise ModelIntegrityError(f"{file}: is not what {COMPILED} says; compile again")
            engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        except OSError as exc:
            raise ModelIntegrityError(f"{file}: cannot be read: {exc.strerror or exc}") from exc
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            made = f"{self._compiled.target} by {self._compiled.builder} {self._compiled.version}"
            raise ModelIntegrityError(f"{file}: TensorRT refuses it; it was built for {made}")
        return context


def read_compiled(folder: Path) -> Compiled:
    """What was written beside the engines. Raises ModelIntegrityError."""
    try:
        return load_config(folder / COMPILED, Compiled)
    except ConfigError as exc:
        raise ModelIntegrityError(f"compiled engines: {exc}") from exc


def _tensorrt(compiled: Compiled) -> Any:
    try:
        trt = importlib.import_module(compiled.builder)
    except ImportError as exc:
        raise MissingExtraError(EXTRAS[compiled.builder], compiled.builder.replace("_", "-")) from exc
    if trt.__version__ != compiled.version:
        got = f"{compiled.builder} {trt.__version__}"
        raise ModelIntegrityError(
            f"engines: built by {compiled.builder} {compiled.version}, here is {got}; compile again"
        )
    return trt
