"""``differad-edge compile``: TensorRT engines of an export, one for each stage.

TensorRT for RTX builds ahead of time for any GPU generation that it knows, on a machine without a GPU. Plain TensorRT
builds for the GPU of this machine (target "native").
"""

from __future__ import annotations

import importlib
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from differad_edge.engines.vlm.exported import (
    COMPILED,
    ENGINES,
    STAGES,
    Exported,
    FileEntry,
    Precision,
    StageName,
    sha256_of,
)
from differad_edge.engines.vlm.tensorrt_runner import EXTRAS, Builder, Compiled, gpu_capability
from differad_edge.errors import ConfigError, ExportError, MissingExtraError
from differad_edge.export.quantise import QUANTISED, quantise_export

__all__ = ["GPUS", "NATIVE", "compile_export", "target_of"]

GPUS = {
    "t4": "sm75",
    "rtx2080": "sm75",
    "a100": "sm80",
    "a10": "sm86",
    "a6000": "sm86",
    "rtx3090": "sm86",
    "l4": "sm89",
    "l40s": "sm89",
    "rtx4090": "sm89",
    "rtx5090": "sm120",
    "rtxpro6000": "sm120",
    "dgxspark": "sm121",
}
"""Names that stand for a compute capability."""
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "bf16": ("bfloat16",),
    "fp16": ("float16",),
    **dict.fromkeys(QUANTISED, ("bfloat16", "float16")),
}
"""Of the arithmetic, and the precisions of an export that it can be made from."""
NATIVE = "native"
"""The GPU of this machine, by plain TensorRT."""
_GRAPHS = "graphs"


def target_of(name: str) -> str:
    """``rtx4090`` or ``sm89`` as "sm89"; "native" is left. Raises ConfigError."""
    if name.lower() == NATIVE:
        return NATIVE
    target = GPUS.get(name.lower().replace("-", ""), name.lower())
    if not (target.startswith("sm") and target[2:].isdigit()):
        raise ConfigError(f"--target: got {name!r}, allowed: smNN, {NATIVE}, or one of {', '.join(GPUS)}")
    return target


def compile_export(
    exported: Exported, *, target: str, precision: str, told: Callable[[str], None] | None = None
) -> Path:
    """Build the engines of all stages for ``target`` ("sm89", NATIVE); their folder, which replaces an older one.

    ``precision``: one of PRECISIONS; for fewer bits than the export has, see `quantise_export`. ``told``: is told each
    stage that begins.
    Raises ConfigError, ExportError where TensorRT refuses a stage or the target, MissingExtraError.
    """
    wanted = PRECISIONS.get(precision)
    if wanted is None:
        raise ConfigError(f"--precision: got {precision!r}, allowed: {', '.join(PRECISIONS)}")
    if exported.manifest.precision not in wanted:
        remedy = f"export the checkpoint with --precision {' or '.join(wanted)}"
        raise ConfigError(f"--precision: got {precision!r} for an export in {exported.manifest.precision}; {remedy}")
    builder: Builder = "tensorrt" if target == NATIVE else "tensorrt_rtx"
    try:
        trt = importlib.import_module(builder)
    except ImportError as exc:
        raise MissingExtraError(EXTRAS[builder], builder.replace("_", "-")) from exc
    if target == NATIVE:
        try:
            found = gpu_capability()
        except MissingExtraError as exc:
            raise MissingExtraError(EXTRAS[builder], exc.package) from exc
        if found is None:
            raise ConfigError(f"--target: got {NATIVE!r} on a machine without an NVIDIA GPU, allowed here: smNN")
        target = "sm{}{}".format(*found)
    elif not hasattr(trt.ComputeCapability, target.upper()):
        known = sorted(name.lower() for name in dir(trt.ComputeCapability) if name.startswith("SM"))
        raise ConfigError(f"--target: got {target!r}, allowed for tensorrt_rtx {trt.__version__}: {', '.join(known)}")
    exported.check_files()
    folder = exported.folder / ENGINES / f"{target}-{precision}"
    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        compiled = _compiled(builder, trt, exported, building, target=target, precision=precision, told=told)
        (building / COMPILED).write_text(compiled.model_dump_json(indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except OSError as exc:
        raise ExportError(f"{building}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(building, ignore_errors=True)  # gigabytes, where a stage was refused
    return folder


def _compiled(
    made_by: Builder,
    trt: Any,
    exported: Exported,
    building: Path,
    *,
    target: str,
    precision: str,
    told: Callable[[str], None] | None,
) -> Compiled:
    source = exported
    if precision in QUANTISED:
        if told is not None:
            told(precision)
        source = quantise_export(exported, precision, building / _GRAPHS)
    engines: dict[StageName, FileEntry] = {}
    figures = {}
    for stage in STAGES:
        if told is not None:
            told(stage)
        began = time.perf_counter()
        file = building / f"{stage}.engine"
        capability = None if made_by == "tensorrt" else getattr(trt.ComputeCapability, target.upper())
        file.write_bytes(_built(trt, source.stage(stage), capability, stage))
        engines[stage] = FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file))
        figures[stage] = {
            "seconds": round(time.perf_counter() - began, 2),
            "bytes": float(engines[stage].bytes),
            "peak_rss_bytes": float(_peak_rss_bytes()),
        }
    shutil.rmtree(building / _GRAPHS, ignore_errors=True)
    return Compiled(
        manifest_sha256=exported.sha256,
        target=target,
        precision=precision,
        builder=made_by,
        version=trt.__version__,
        engines=engines,
        figures=figures,
    )


def _built(trt: Any, file: Path, capability: Any, stage: str) -> Any:
    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]  # TensorRT carries no types
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                said.append(message)

    logger = Log()
    builder = trt.Builder(logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        faults = "; ".join(parser.get_error(index).desc()[:200] for index in range(min(3, parser.num_errors)))
        raise ExportError(f"stage {stage}: TensorRT does not take its graph: {faults}")
    config = builder.create_builder_config()
    if capability is not None:  # else the GPU at hand
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"stage {stage}: TensorRT builds no engine: {'; '.join(said[-3:])[:400]}")
    return engine


def _peak_rss_bytes() -> int:
    """Of this process so far; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
