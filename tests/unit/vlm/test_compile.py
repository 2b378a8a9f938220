"""Compiling without a GPU and finding compiled engines: targets, precisions, and what is refused by whom."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from differad_edge.engines.vlm import onnx_runner, tensorrt_runner
from differad_edge.engines.vlm.exported import STAGES
from differad_edge.engines.vlm.load import runner_for
from differad_edge.engines.vlm.tensorrt_runner import TensorRtRunner, engines_for, read_compiled
from differad_edge.errors import ConfigError, EngineError, ExportError, MissingExtraError, ModelIntegrityError
from differad_edge.export import tensorrt
from differad_edge.export.tensorrt import compile_export, target_of


class Capability:
    SM89 = "sm89"
    SM120 = "sm120"


def fake_tensorrt(*, parses: bool = True, builds: bool = True) -> Any:
    """What `compile_export` calls of tensorrt_rtx; an engine is the name of its graph."""

    class Parser:
        num_errors = 1

        def __init__(self, network: Any, logger: Any) -> None:
            self.network = network

        def parse_from_file(self, file: str) -> bool:
            self.network.append(Path(file).name)
            return parses

        def get_error(self, index: int) -> Any:
            return types.SimpleNamespace(desc=lambda: "no such operator")

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> list[str]:
            return []

        def create_builder_config(self) -> Any:
            return types.SimpleNamespace(set_compute_capability=lambda capability, index: None)

        def build_serialized_network(self, network: list[str], config: Any) -> bytes | None:
            if not builds:
                self.logger.log(1, "no kernel")
            return network[0].encode() if builds else None

    class Logger:
        ERROR = 1

    return types.SimpleNamespace(
        __version__="1.0",
        ComputeCapability=Capability,
        ILogger=Logger,
        Builder=Builder,
        OnnxParser=Parser,
        NetworkDefinitionCreationFlag=types.SimpleNamespace(),
    )


class FakeExport:
    """As much of an export as compiling needs."""

    sha256 = "a" * 64

    def __init__(self, folder: Path, precision: str = "bfloat16") -> None:
        self.folder = folder
        self.manifest = types.SimpleNamespace(precision=precision)

    def check_files(self) -> None:
        """All are there."""

    def stage(self, name: str) -> Path:
        return self.folder / f"{name}.onnx"


def compiled(folder: Path, **options: str) -> Path:
    return compile_export(FakeExport(folder), **{"target": "sm89", "precision": "bf16"} | options)  # type: ignore[arg-type]


def test_every_stage_becomes_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt())
    folder = compiled(tmp_path)
    assert folder == tmp_path / "engines" / "sm89-bf16"
    assert {file.name for file in folder.iterdir()} == {"compiled.json", *(f"{stage}.engine" for stage in STAGES)}
    assert (folder / "tail.engine").read_bytes() == b"tail.onnx"
    said = read_compiled(folder)
    assert (said.target, said.precision, said.version, said.manifest_sha256) == ("sm89", "bf16", "1.0", "a" * 64)
    assert set(said.figures["tail"]) == {"seconds", "bytes", "peak_rss_bytes"}
    assert compiled(tmp_path) == folder  # again, in its place
    assert not list(folder.parent.glob("*.building"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "fp32"}, "--precision: got 'fp32', allowed: bf16, fp16, fp8, int8, int4"),
        ({"precision": "fp16"}, "--precision: got 'fp16' for an export in bfloat16; export the checkpoint with"),
        ({"target": "sm90"}, "--target: got 'sm90', allowed for tensorrt_rtx 1.0: sm120, sm89"),
    ],
)
def test_what_does_not_fit_is_named(
    options: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt())
    with pytest.raises(ConfigError) as caught:
        compiled(tmp_path, **options)
    assert words in str(caught.value)
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"parses": False}, "stage vision: TensorRT does not take its graph: no such operator"),
        ({"builds": False}, "stage vision: TensorRT builds no engine: no kernel"),
    ],
)
def test_what_tensorrt_refuses_is_named(
    fault: dict[str, bool], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(**fault))
    with pytest.raises(ExportError, match=words):
        compiled(tmp_path)
    assert engines_for(FakeExport(tmp_path), (8, 9)) is None  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("*.building"))


def test_plain_tensorrt_builds_for_the_gpu_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt())
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: (9, 0))
    made = compiled(tmp_path, target=target_of("native"))
    assert made.name == "sm90-bf16"
    assert read_compiled(made).builder == "tensorrt"
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: None)
    with pytest.raises(ConfigError, match="got 'native' on a machine without an NVIDIA GPU"):
        compiled(tmp_path, target="native")


@pytest.mark.parametrize(
    ("target", "package", "extra"),
    [("sm89", "tensorrt_rtx", "tensorrt"), ("native", "tensorrt", "tensorrt-native")],
)
def test_without_tensorrt_the_extra_is_named(
    target: str, package: Any, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who compiles, and by who runs what was compiled."""
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: (8, 9))
    monkeypatch.setattr(tensorrt_runner, "Cuda", lambda: types.SimpleNamespace(capability=(8, 9)))
    monkeypatch.setitem(sys.modules, package, fake_tensorrt())
    folder = compiled(tmp_path, target=target)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"differad-edge\[{extra}\]"):
        compiled(tmp_path, target=target)
    with pytest.raises(MissingExtraError, match=rf"differad-edge\[{extra}\]"):
        TensorRtRunner(FakeExport(tmp_path), folder)  # type: ignore[arg-type]
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'\n{extra} = ["{package.replace("_", "-")}' in project


def test_without_the_bindings_of_cuda_the_extra_is_that_of_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Any:
        raise MissingExtraError("tensorrt", "cuda-python")

    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt())
    monkeypatch.setattr(tensorrt, "gpu_capability", missing)
    with pytest.raises(MissingExtraError, match=r"'cuda-python' .*differad-edge\[tensorrt-native\]"):
        compiled(tmp_path, target="native")


def no_gpu() -> Any:
    return None


def no_bindings() -> Any:
    raise MissingExtraError("tensorrt", "cuda-python")


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        (no_bindings, "'cuda-python' is not installed; install it with: pip install 'differad-edge[tensorrt]'"),
        (no_gpu, "this machine has no NVIDIA GPU, or no driver"),
        (lambda: (12, 0), "for this GPU run: differad-edge compile {folder} --target sm120"),
    ],
)
def test_engines_that_cannot_be_used_are_told_in_the_log(
    capability: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tensorrt_runner, "gpu_capability", capability)
    monkeypatch.setattr(onnx_runner, "OnnxRunner", lambda exported, threads: "ONNX Runtime")
    export: Any = FakeExport(tmp_path)
    export.is_compiled = False
    assert runner_for(export) == "ONNX Runtime"
    assert caplog.records == []
    export.is_compiled = True
    assert runner_for(export) == "ONNX Runtime"
    (said,) = caplog.records
    assert (said.levelname, "\n" in said.getMessage()) == ("WARNING", False)
    assert words.format(folder=tmp_path) in said.getMessage()


def test_targets_have_names() -> None:
    assert [target_of(name) for name in ("rtx4090", "RTX-4090", "sm89", "SM120", "l4")] == [
        *["sm89"] * 3,
        "sm120",
        "sm89",
    ]
    for name in ("4090", "", "sm", "smx9", "gtx"):
        with pytest.raises(ConfigError, match="allowed: smNN, native, or one of"):
            target_of(name)
    assert set(tensorrt.GPUS.values()) <= {f"sm{n}" for n in (75, 80, 86, 89, 120, 121)}


def test_engines_are_found_by_gpu_precision_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt())
    export: Any = FakeExport(tmp_path)
    assert engines_for(export, (8, 9)) is None
    made = {name: compiled(tmp_path, precision=name) for name in ("bf16",)}
    monkeypatch.setattr(tensorrt, "quantise_export", lambda exported, bits, folder: exported)
    made["fp8"] = compiled(tmp_path, precision="fp8")
    for age, name in enumerate(("fp8", "bf16")):
        os.utime(made[name] / "compiled.json", ns=(0, age))
    assert engines_for(export, (8, 9)) == made["bf16"]
    assert engines_for(export, (8, 9), "fp8") == made["fp8"]
    assert engines_for(export, (8, 9), "int4") is None
    assert engines_for(export, (12, 0)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest_sha256": "b" * 64}, "built from another export"),
        ({"target": "sm86"}, "target: got sm86, allowed on this GPU: sm89"),
        ({"version": "0.9"}, "built by tensorrt_rtx 0.9, here is tensorrt_rtx 1.0; compile again"),
        ({"target": "4090"}, "compiled engines: .*target: got '4090'"),
        ({"precision": "int2"}, "compiled engines: .*precision: got 'int2'"),
        ({"surprise": 1}, "surprise: unknown setting"),
    ],
)
def test_engines_of_something_else_are_refused(
    change: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt())
    monkeypatch.setattr(tensorrt_runner, "Cuda", lambda: types.SimpleNamespace(capability=(8, 9)))
    folder = compiled(tmp_path)
    said = json.loads((folder / "compiled.json").read_text())
    (folder / "compiled.json").write_text(json.dumps(said | change))
    with pytest.raises(ModelIntegrityError, match=words):
        TensorRtRunner(FakeExport(tmp_path), folder)  # type: ignore[arg-type]


def test_without_engines_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_runner, "Cuda", lambda: types.SimpleNamespace(capability=(8, 9)))
    with pytest.raises(ModelIntegrityError, match=r"run: differad-edge compile .* --target sm89"):
        TensorRtRunner(FakeExport(tmp_path))  # type: ignore[arg-type]


def test_without_a_gpu_there_is_no_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Any:
        raise EngineError("no GPU")

    monkeypatch.setattr(tensorrt_runner, "Cuda", none)
    assert tensorrt_runner.gpu_capability() is None
