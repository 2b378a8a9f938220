"""TensorRT's runner on a scripted GPU: its addresses, pitches and places, with ONNX Runtime computing the stages.

What no script can show, that TensorRT computes what ONNX Runtime does, is for `differad-edge verify` on the GPU.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxscript")
pytest.importorskip("transformers")

import onnxruntime
from students import GRAMMAR, QUESTION, picture

from differad_edge.engines.vlm import tensorrt_runner
from differad_edge.engines.vlm.box_head import BoxHead
from differad_edge.engines.vlm.decode import write_box
from differad_edge.engines.vlm.exported import COMPILED, ENGINES, STAGES, Exported, FileEntry, sha256_of
from differad_edge.engines.vlm.tensorrt_runner import Compiled, TensorRtRunner
from differad_edge.engines.vlm.torch_runner import TorchRunner
from differad_edge.errors import EngineError
from differad_edge.export.parity import answers_of, compare_answers, generated_pictures

pytestmark = pytest.mark.slow

NUMBERS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class Block:
    def __init__(self, cuda: Cuda, count: int) -> None:
        self._held = ctypes.create_string_buffer(count)
        self.bytes, self.address, self._cuda = count, ctypes.addressof(self._held), cuda
        cuda.blocks[self.address] = count

    def __del__(self) -> None:
        self._cuda.blocks.pop(self.address, None)


class Cuda:
    """Host memory in place of the GPU's; nothing is read or written outside a block."""

    capability = (8, 9)
    stream = 1
    latest: Cuda

    def __init__(self) -> None:
        self.blocks: dict[int, int] = {}
        Cuda.latest = self

    def block(self, count: int) -> Block:
        return Block(self, count)

    def check(self, address: int, count: int) -> None:
        inside = any(start <= address and address + count <= start + size for start, size in self.blocks.items())
        assert inside, f"{count} bytes at {address} lie in no block"

    def to_device(self, array: Any, address: int) -> None:
        assert array.flags["C_CONTIGUOUS"]
        self.check(address, array.nbytes)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def to_host(self, address: int, shape: tuple[int, ...], dtype: Any) -> Any:
        array = np.empty(shape, dtype)
        self.check(address, array.nbytes)
        ctypes.memmove(array.ctypes.data, address, array.nbytes)
        return array

    def copy_rows(self, to: int, to_pitch: int, source: int, source_pitch: int, width: int, rows: int) -> None:
        for row in range(rows):
            self.check(to + row * to_pitch, width)
            self.check(source + row * source_pitch, width)
            ctypes.memmove(to + row * to_pitch, source + row * source_pitch, width)

    def wait(self) -> None:
        pass


class Context:
    """An engine whose file names the ONNX graph that computes it."""

    def __init__(self, graph: bytes) -> None:
        self._session = onnxruntime.InferenceSession(graph.decode(), providers=["CPUExecutionProvider"])
        self._tensors = {one.name: one for one in (*self._session.get_inputs(), *self._session.get_outputs())}
        self._places: dict[str, int] = {}
        self.engine = self
        self.num_io_tensors = len(self._tensors)

    def create_execution_context(self) -> Context:
        return self

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._places[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda = Cuda.latest
        inputs = {
            one.name: cuda.to_host(self._places[one.name], tuple(one.shape), NUMBERS[one.type])
            for one in self._session.get_inputs()
        }
        for one, found in zip(self._session.get_outputs(), self._session.run(None, inputs), strict=True):
            cuda.to_device(np.ascontiguousarray(found), self._places[one.name])
        return True


class Runtime:
    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, graph: bytes) -> Context:
        return Context(graph)


class Logger:
    ERROR = 1

    def __init__(self, severity: int) -> None:
        pass


def compiled(original: Path, folder: Path) -> Exported:
    """A copy of an export with engines that name its graphs."""
    exported = Exported(shutil.copytree(original, folder))
    engines = folder / ENGINES / "sm89-bf16"
    engines.mkdir(parents=True)
    entries = {}
    for stage in STAGES:
        file = engines / f"{stage}.engine"
        file.write_text(str(exported.stage(stage)))
        entries[stage] = FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file))
    made = Compiled(
        manifest_sha256=exported.sha256,
        target="sm89",
        precision="bf16",
        builder="tensorrt_rtx",
        version="1.0",
        engines=entries,
        figures={},
    )
    (engines / COMPILED).write_text(made.model_dump_json())
    return exported


@pytest.fixture(scope="module", autouse=True)
def _scripted() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt_runner, "Cuda", Cuda)
        module = types.SimpleNamespace(__version__="1.0", Runtime=Runtime, Logger=Logger)
        patch.setitem(sys.modules, "tensorrt_rtx", module)
        yield


@pytest.fixture(scope="module")
def both(random_export: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory, _scripted: None) -> Any:
    model, original = random_export
    exported = compiled(original, tmp_path_factory.mktemp("compiled") / "out")
    return TorchRunner(model, QUESTION.layout), TensorRtRunner(exported)


def test_the_queries_of_a_head_come_with_the_question(head_export: tuple[Any, BoxHead, Path], tmp_path: Path) -> None:
    model, head, original = head_export
    runners = (
        TorchRunner(model, QUESTION.layout, queries=head.queries),
        TensorRtRunner(compiled(original, tmp_path / "out")),
    )
    read = []
    for runner in runners:
        runner.load(runner.make_prefix("1", runner.encode(picture(1))))  # type: ignore[arg-type]
        read.append(runner.read(runner.encode(picture(2))))  # type: ignore[arg-type]
    assert read[0].shape == (6, 64)
    np.testing.assert_allclose(read[1], read[0], atol=1e-4)


def test_it_answers_as_pytorch_does(both: Any) -> None:
    torch_runner, runner = both
    assert runner.name == "tensorrt-sm89-bf16"
    pictures = generated_pictures(QUESTION, 4)
    found = compare_answers(*(answers_of(one, QUESTION, pictures) for one in (torch_runner, runner)))
    assert found.agreed("float32"), found
    assert found.logit_abs < 1e-4


def test_several_references_take_turns(both: Any) -> None:
    """With one buffer for keys and values, and one place for the features of a picture."""
    hidden = []
    for runner in both:
        prefixes = [runner.make_prefix(str(seed), runner.encode(picture(seed))) for seed in (1, 2)]
        prefixes.append(runner.restore_prefix("0", runner.save_prefix(prefixes[0])))
        features = runner.encode(picture(3))
        said = []
        for prefix in (*prefixes, prefixes[1]):
            runner.load(prefix)
            said.append(runner.read(features))
        np.testing.assert_array_equal(said[0], said[2])
        np.testing.assert_array_equal(said[1], said[3])
        assert np.abs(said[0] - said[1]).max() > 1e-3
        hidden.append(np.stack(said))
    np.testing.assert_allclose(hidden[1], hidden[0], atol=1e-4)


def test_drafts_jumps_and_steps_agree(both: Any) -> None:
    _, runner = both
    at, lead = QUESTION.layout.length, GRAMMAR.verdicts[1:]
    runner.load(runner.make_prefix("1", runner.encode(picture(1))))
    runner.read(runner.encode(picture(2)))
    plain = write_box(runner, GRAMMAR, lead=lead, at=at)
    drafted = write_box(runner, GRAMMAR, lead=lead, at=at, draft=(9, 9, 500, 500))
    assert drafted.box == plain.box
    assert drafted.passes <= plain.passes
    tokens = list(range(100, 130))
    at_once = runner.advance(tokens, at)
    one_by_one = np.concatenate([runner.advance([token], at + n) for n, token in enumerate(tokens)])
    np.testing.assert_allclose(at_once, one_by_one, atol=1e-4)
    end = QUESTION.layout.capacity
    assert runner.advance([1, 2, 3], end - 3).shape == (3, 64)
    with pytest.raises(EngineError, match="answer: got"):
        runner.advance([1, 2, 3], end - 2)


def test_a_copy_that_fails_leaves_nothing_loaded(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for runner in both:
        first = runner.make_prefix("1", runner.encode(picture(1)))
        second = runner.make_prefix("2", runner.encode(picture(2)))
        features = runner.encode(picture(3))
        runner.load(first)
        right = runner.read(features)
        broken = type(second)("2", object(), 1)
        with pytest.raises((AttributeError, TypeError)):
            runner.load(broken)
        runner.load(second)
        runner.load(first)
        np.testing.assert_array_equal(runner.read(features), right)
        with pytest.raises((AttributeError, TypeError)):
            runner.load(broken)
        assert runner._loaded is None
