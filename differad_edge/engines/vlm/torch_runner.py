"""The student in PyTorch: on CUDA in bfloat16 with captured graphs, on a CPU as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from differad_edge.engines.vlm.layout import Layout
from differad_edge.engines.vlm.modules import BufferMemory, Decoder, Vision
from differad_edge.engines.vlm.runner import JUMP, Floats, Prefix, check_room
from differad_edge.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from differad_edge.images import Image

__all__ = ["TorchRunner"]

Features = tuple[Tensor, Tensor]
_WARM_UPS = 3  # before a capture: libraries choose their kernels and take their memory


class TorchRunner:
    """See Runner. ``model``: a Qwen3-VL on its device, whose weights are shared; ``mean``, ``std``: of its images.

    ``queries``: (Q, width) of a box head, None without one.
    ``graphs``: capture the vision tower, the tail, a step and a jump as CUDA graphs, at once; None where there is CUDA.

    Raises EngineError when the device's memory does not suffice, or the layout's capacity for the queries.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        queries: Floats | None = None,
        graphs: bool | None = None,
    ) -> None:
        check_room(layout, layout.length + (0 if queries is None else len(queries)))
        self.layout = layout
        self.device, self.dtype = model.device, model.dtype
        self.name = f"torch-{self.device.type}"
        self.version = str(torch.__version__)
        self.precision = str(self.dtype).removeprefix("torch.")
        config = model.config.text_config
        with _memory_errors():
            self._vision = Vision(model.model.visual, layout.size, mean, std).eval()
            asked = None if queries is None else torch.from_numpy(queries)
            self._decoder = Decoder(model, layout, asked).eval()
            shape = (config.num_hidden_layers, 2, config.num_key_value_heads, layout.capacity, config.head_dim)
            self._buffer = torch.zeros(shape, dtype=self.dtype, device=self.device)
        self._head: Tensor = model.lm_head.weight
        self._rows: dict[tuple[int, ...], Tensor] = {}
        self._loaded: Prefix | None = None
        self._graphs = self.device.type == "cuda" if graphs is None else graphs
        self._captured: dict[str, Callable[..., Any]] = {}
        if self._graphs:
            self._capture_all()

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """What it runs, by the beginning of their weights' names in an export."""
        return {"": self._vision, "decoder.": self._decoder}

    def encode(self, canvas: Image) -> Features:
        """See Runner."""
        image = torch.from_numpy(canvas).to(self.device)
        with torch.inference_mode(), _memory_errors():
            features, deep = self._replayed("vision", self._vision, image)
        return features, deep

    def pooled(self, features: Features) -> Floats:
        """See Runner."""
        return features[0].float().cpu().numpy()

    def make_prefix(self, key: str, features: Features) -> Prefix:
        """See Runner."""
        layout = self.layout
        self._loaded = None
        with torch.inference_mode(), _memory_errors():
            self._decoder.read_prefix(*features, self._memory(0, layout.prefix_length))
            content = self._buffer[:, :, :, : layout.prefix_length].clone()
        return Prefix(key, content, content.nbytes)

    def save_prefix(self, prefix: Prefix) -> dict[str, NDArray[Any]]:
        """See Runner."""
        content: Tensor = prefix.content.cpu()
        if content.dtype == torch.bfloat16:
            content = content.view(torch.uint16)
        return {"keys_and_values": content.numpy()}

    def restore_prefix(self, key: str, arrays: dict[str, NDArray[Any]]) -> Prefix:
        """See Runner."""
        self.check_prefix(arrays)
        with _memory_errors():
            content = torch.from_numpy(arrays["keys_and_values"]).view(self.dtype).to(self.device)
        return Prefix(key, content, content.nbytes)

    def check_prefix(self, arrays: dict[str, NDArray[Any]]) -> None:
        """See Runner."""
        array = arrays.get("keys_and_values")
        shape = (*self._buffer.shape[:3], self.layout.prefix_length, self._buffer.shape[4])
        kept = torch.empty(0, dtype=torch.uint16 if self.dtype == torch.bfloat16 else self.dtype).numpy().dtype
        if array is None or array.shape != shape or array.dtype != kept:
            got = "nothing" if array is None else f"{array.shape} {array.dtype}"
            raise EngineError(f"prepared reference: got {got}, allowed: {shape} {kept}")

    def load(self, prefix: Prefix) -> None:
        """See Runner."""
        if self._loaded is None or self._loaded.content is not prefix.content:
            self._loaded = None  # a copy that fails leaves a mixture
            with torch.inference_mode(), _memory_errors():
                self._buffer[:, :, :, : self.layout.prefix_length].copy_(prefix.content)
            self._loaded = prefix

    def read(self, features: Features) -> Floats:
        """See Runner."""
        with torch.inference_mode(), _memory_errors():
            return _host(self._replayed("tail", self._read_tail, *features))

    def advance(self, tokens: Sequence[int], at: int) -> Floats:
        """See Runner."""
        check_room(self.layout, at + len(tokens))
        count = len(tokens)
        # A graph has one size; what fills a jump is seen by none of its tokens, and written over.
        filled = self._graphs and 1 < count <= JUMP and at + JUMP <= self.layout.capacity
        ids = torch.tensor([*tokens, *[0] * (JUMP - count)] if filled else list(tokens), device=self.device)
        start = torch.tensor([at], device=self.device)
        with torch.inference_mode(), _memory_errors():
            return _host(self._replayed(f"step{len(ids)}", self._step, ids, start)[:count])

    def logits(self, hidden: Floats, rows: Sequence[int] | None = None) -> Floats:
        """See Runner."""
        with torch.inference_mode(), _memory_errors():
            states = torch.from_numpy(hidden).to(self.device, self.dtype)
            return _host(states @ (self._head if rows is None else self._some_rows(tuple(rows))).t())

    def _some_rows(self, rows: tuple[int, ...]) -> Tensor:
        if rows not in self._rows:
            self._rows[rows] = self._head[list(rows)]
        return self._rows[rows]

    def _read_tail(self, features: Tensor, deep: Tensor) -> Tensor:
        memory = self._memory(self.layout.prefix_length, self._decoder.tail_length)
        return self._decoder.read_tail(features, deep, memory)[-self._decoder.answers :]

    def _step(self, ids: Tensor, start: Tensor) -> Tensor:
        memory = BufferMemory(self._buffer, start, len(ids))
        return self._decoder.read_tokens(self._decoder.embed(ids), start, memory)

    def _memory(self, start: int, count: int) -> BufferMemory:
        return BufferMemory(self._buffer, torch.full((1,), start, device=self.device), count)

    def _replayed(self, name: str, run: Callable[..., Any], *inputs: Tensor) -> Any:
        """``run(*inputs)``, as the replay of its graph where one was captured."""
        return self._captured.get(name, run)(*inputs)

    def _capture_all(self) -> None:
        """Here, not on the line: the first NG must not wait for it. One pool, for the graphs run one after another."""
        size, start = self.layout.size, torch.zeros(1, dtype=torch.int64, device=self.device)
        with torch.inference_mode(), _memory_errors():
            image = torch.zeros((size.height_px, size.width_px, 3), dtype=torch.uint8, device=self.device)
            pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
            features = self._vision(image)
            self._captured["vision"] = _capture(self._vision, (image,), pool)
            self._captured["tail"] = _capture(self._read_tail, features, pool)
            for count in (1, JUMP):
                ids = torch.zeros(count, dtype=torch.int64, device=self.device)
                self._captured[f"step{count}"] = _capture(self._step, (ids, start), pool)


def _capture(run: Callable[..., Any], inputs: Sequence[Tensor], pool: Any) -> Callable[..., Any]:
    """A function that copies its inputs to where the graph reads them and replays it; results are copies."""
    static = [tensor.clone() for tensor in inputs]
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UPS):
            run(*static)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        outputs = run(*static)

    def replay(*given: Tensor) -> Any:
        for place, tensor in zip(static, given, strict=True):
            place.copy_(tensor)
        graph.replay()
        return outputs.clone() if isinstance(outputs, Tensor) else tuple(output.clone() for output in outputs)

    return replay


def _host(tensor: Tensor) -> Floats:
    return tensor.float().cpu().numpy()


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Out of memory, and whatever else a device refuses, as EngineError."""
    try:
        yield
    except RuntimeError as exc:
        raise EngineError(f"the model could not be run: {str(exc).splitlines()[0][:200]}") from exc
