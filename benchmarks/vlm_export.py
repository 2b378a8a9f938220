"""Export a model of a known shape with random weights and compile it ahead of time; record sizes, times and memory.

    python -m benchmarks.vlm_export FOLDER [--shape qwen3-vl-2b] [--target sm89] [--precision bf16 fp8] [--json FILE]

FOLDER takes the export and the engines, some 5 GB and 12 GB for each precision of the 2B shape. Each step runs in its
own process, so that its peak memory is its own; one that is done is not done again. Neither numerics nor speed are
proven by this: that takes `differad-edge verify` on the GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import differad_edge
from benchmarks.vlm_shape import load_shape, random_model
from differad_edge.benchmarking import peak_memory_mib
from differad_edge.engines.vlm.exported import TOKENIZER, Exported
from differad_edge.engines.vlm.tensorrt_runner import read_compiled
from differad_edge.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results"


def export(folder: Path, shape_name: str) -> dict[str, Any]:
    """Write the export; PyTorch answers about one pair, which also gives the ranges for fewer bits."""
    from differad_edge.engines.vlm.torch_runner import TorchRunner
    from differad_edge.export.onnx import write_export
    from differad_edge.export.parity import answers_of, generated_pictures, write_golden
    from differad_edge.export.ranges import watched, write_ranges

    shape = load_shape(shape_name)
    began = time.perf_counter()
    model = random_model(shape, dtype="bfloat16", device="cpu")
    steps: list[tuple[str, float]] = [("build", time.perf_counter() - began)]

    def told(step: str) -> None:
        print(f"{step} ...", file=sys.stderr, flush=True)
        steps.append((step, time.perf_counter() - began))

    def write_beside(beside: Path) -> None:
        told("answers")
        runner = TorchRunner(model, shape.question.layout, graphs=False)
        with watched(runner) as ranges:
            golden = answers_of(runner, shape.question, generated_pictures(shape.question, 1))
        write_golden(golden, beside)
        write_ranges(ranges, beside)
        (beside / TOKENIZER).write_text("{}\n", encoding="utf-8")  # random weights say nothing that could be read
        told("hashes")

    write_export(
        model,
        shape.question,
        folder,
        identity="random",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        write_beside=write_beside,
        progress=told,
    )
    steps.append(("end", time.perf_counter() - began))
    manifest = Exported(folder).manifest
    return {
        "seconds": round(steps[-1][1], 1),
        "began_at_s": {name: round(at, 1) for name, at in steps},
        "peak_mib": peak_memory_mib(),
        "bytes": {name: entry.bytes for name, entry in manifest.files.items()},
        "versions": manifest.versions,
    }


def compile_engines(folder: Path, target: str, precision: str) -> dict[str, Any]:
    """Compile all stages."""
    from differad_edge.export.tensorrt import compile_export

    began = time.perf_counter()
    made = compile_export(
        Exported(folder),
        target=target,
        precision=precision,
        told=lambda stage: print(f"{precision} {stage} ...", file=sys.stderr, flush=True),
    )
    compiled = read_compiled(made)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mib": peak_memory_mib(),
        "stages": compiled.figures,
        "builder": f"{compiled.builder} {compiled.version}",
    }


def _file_of(wanted: argparse.Namespace, step: str) -> Path:
    """What a step found out, of this shape and target alone."""
    what = f"{wanted.shape}-export" if step == "export" else f"{wanted.shape}-{wanted.target}-{step}"
    return Path(wanted.folder / f"{what}.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a known shape and compile it ahead of time.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", default="qwen3-vl-2b")
    parser.add_argument("--target", default="sm89")
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    parser.add_argument("--step", default=None, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.step is not None:
        done = (
            export(wanted.folder / "export", wanted.shape)
            if wanted.step == "export"
            else compile_engines(wanted.folder / "export", wanted.target, wanted.step)
        )
        _file_of(wanted, wanted.step).write_text(json.dumps(done), encoding="utf-8")
        return
    wanted.folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"benchmark": "vlm-export", "shape": wanted.shape, "weights": "random"}
    for step in ("export", *wanted.precision):
        file = _file_of(wanted, step)
        if not file.is_file():
            again = [sys.executable, "-m", "benchmarks.vlm_export", *sys.argv[1:], "--step", step]
            subprocess.run(again, check=True)
        done = json.loads(file.read_text(encoding="utf-8"))
        if step == "export":
            report["export"] = done
        else:
            report.setdefault("compiled", {})[f"{wanted.target}-{step}"] = done
    report |= {"machine": describe_machine(), "versions": {"differad_edge": differad_edge.__version__}}
    out = wanted.json or RESULTS / f"vlm-export-{wanted.shape}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
