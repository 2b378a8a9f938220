"""How long the student takes for one part, against transformers' own ``generate``, in one run.

The model has a known shape and random weights, and the answer is fixed: the same work, whatever it would say. Rows:

================  =====================================================================================
reference         reading the golden sample, once, at registration
ok                the engine, from the frame to OK: one vision encode, one pass over the tail
ng                the engine, to NG with a box, digit by digit
ng_drafted        the same box drafted by another engine and checked in one pass
ng_described      the engine, to NG with a box and a description
naive             generate() with both images and as many new tokens as ng_described, pixels prepared beforehand
================  =====================================================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import differad_edge
from benchmarks.roofline import GPUS, Work, find_gpu
from benchmarks.vlm_shape import Shape, random_model
from differad_edge.benchmarking import peak_memory_mib
from differad_edge.engines.base import ReferenceView
from differad_edge.engines.vlm.grammar import BoxWriter
from differad_edge.engines.vlm.questions import Question
from differad_edge.engines.vlm.student import StudentEngine
from differad_edge.errors import ConfigError
from differad_edge.machine import describe_machine
from differad_edge.results import Box

__all__ = ["ROWS", "run_vlm_benchmark"]

ROWS = ("ok", "ng", "ng_drafted", "ng_described", "naive")

BOX = (125, 250, 480, 672)  # 12 digits, in 0-1000 steps
DESCRIPTION_TOKENS = 40
WARM_UP = 5
_SURE = 1e4


@dataclass(frozen=True)
class _Script:
    """The fixed answer, from the verdict on; ``end``: the token that reads </think>."""

    tokens: tuple[int, ...]
    end: int


class _FixedAnswer:
    """A runner that does all the work and then says what the script says.

    Hidden states get a column more, which says which token of the answer comes next.
    """

    def __init__(self, runner: Any, script: _Script) -> None:
        self._runner, self._script = runner, script
        self._start = runner.layout.length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def read(self, features: Any) -> Any:
        hidden = self._runner.read(features)
        return np.concatenate([hidden, np.zeros((len(hidden), 1), np.float32)], axis=1)

    def advance(self, tokens: Sequence[int], at: int) -> Any:
        places = np.arange(1, len(tokens) + 1, dtype=np.float32)[:, None] + (at - self._start)
        return np.concatenate([self._runner.advance(tokens, at), places], axis=1)

    def logits(self, hidden: Any, rows: Sequence[int] | None = None) -> Any:
        found = np.array(self._runner.logits(np.ascontiguousarray(hidden[..., :-1]), rows))
        for place in np.ndindex(found.shape[:-1]):
            token = self._script.tokens[min(int(hidden[place][-1]), len(self._script.tokens) - 1)]
            index = token if rows is None else list(rows).index(token) if token in rows else None
            if index is not None:
                found[place][index] = _SURE
        return found


def run_vlm_benchmark(
    shape: Shape,
    *,
    n: int,
    device: str | None = None,
    dtype: str = "bfloat16",
    rows: Sequence[str] = ROWS,
    told: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time each of ``rows`` ``n`` times after a warm-up (none for n = 1) and return the report in plain JSON types.

    ``device``: "cuda" or "cpu", None for what there is. Memory is the most that the process, or the GPU, has held up to
    the row's end. Raises ConfigError for less than one time, and for a GPU where there is none.
    """
    import torch
    import transformers

    if n < 1:
        raise ConfigError(f"--pairs: got {n}, allowed: 1 or more")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device: got 'cuda', allowed here: cpu; PyTorch {torch.__version__} sees no NVIDIA GPU")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    load = os.getloadavg()[0]
    began = time.perf_counter()
    told(f"{shape.name}: random weights in {dtype} on {device} ...")
    model = random_model(shape, dtype=dtype, device=device)
    build_s = time.perf_counter() - began
    with torch.inference_mode():
        found = _rows(shape, model, n, device, rows, told)
    layout = shape.question.layout
    work = Work(
        shape.config, layout.size.patch_rows * layout.size.patch_columns, layout.prefix_length, layout.tail_length
    )
    gpu_name = torch.cuda.get_device_name() if device == "cuda" else None
    _add_roofline(found, work, gpu_name)
    naive_ms = found["naive"]["p50_ms"] if "naive" in found else None
    return {
        "benchmark": "latency-vlm",
        "shape": shape.name,
        "weights": "random",
        "device": gpu_name or "cpu",
        "measured_on_a_gpu": gpu_name is not None,
        "dtype": dtype,
        "size_px": [layout.size.width_px, layout.size.height_px],
        "tokens": {"prefix": layout.prefix_length, "tail": layout.tail_length},
        "build_s": round(build_s, 1),
        "rows": found,
        "naive_over": {
            name: None if naive_ms is None else naive_ms / row["p50_ms"]
            for name, row in found.items()
            if "tokens" in row
        },
        "predicted": _predictions(work, {row: len(tokens) for row, tokens in _answers(shape.question).items()}),
        "load_1min": load,
        "machine": describe_machine(),
        "versions": {
            "differad_edge": differad_edge.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _answers(question: Question) -> dict[str, tuple[int, ...]]:
    """The fixed answer of each row, from the verdict on."""
    grammar = question.grammar
    assert grammar.verdicts
    ok, ng = grammar.verdicts
    box = (ng, *BoxWriter(grammar).guess(BOX).tokens)
    described = (*box, *(grammar.digits[0],) * DESCRIPTION_TOKENS, grammar.close[0])
    return {"ok": (ok,), "ng": box, "ng_drafted": box, "ng_described": described, "naive": described}


def _rows(
    shape: Shape, model: Any, n: int, device: str, wanted: Sequence[str], told: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    from differad_edge.engines.vlm.torch_runner import TorchRunner

    question = shape.question
    size = question.layout.size
    rng = np.random.default_rng(0)
    reference, target = (rng.integers(0, 256, (size.height_px, size.width_px, 3), dtype=np.uint8) for _ in range(2))
    runner = TorchRunner(model, question.layout)
    answers = _answers(question)
    end = question.grammar.close[0]
    found: dict[str, dict[str, Any]] = {}
    width, height = size.width_px, size.height_px
    drafted = Box(*(step * side / 1000 for step, side in zip(BOX, (width, height) * 2, strict=True)))
    prepared = None
    for name in (one for one in wanted if one != "naive"):
        fixed: Any = _FixedAnswer(runner, _Script(answers[name], end))
        engine = StudentEngine(
            fixed,
            question,
            identity="random",
            to_text=lambda ids: "x" * len(ids) + ("</think>" if ids and ids[-1] == end else ""),
            max_new_tokens=DESCRIPTION_TOKENS + 2,
            describes=name == "ng_described",
        )
        if prepared is None:
            told("reference ...")
            took_ms, prepared = _timed(lambda engine=engine: engine.prepare([ReferenceView(reference, None, "0" * 64)]))
            found["reference"] = {"n": 1, **dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), took_ms), **_memory(device)}
        told(f"{name} ...")
        options = {"draft": drafted} if name == "ng_drafted" else {}
        times, evidence = _times(partial(engine.compare_as_it_lies, prepared, target, **options), n)
        assert bool(evidence.candidates) == (name != "ok"), evidence
        assert name != "ng_described" or evidence.candidates[0].description
        found[name] = {**_summary(times), "tokens": len(answers[name]), **_memory(device)}
    if "naive" not in wanted:
        return found
    told("naive ...")
    new = len(answers["naive"])
    inputs = _naive_inputs(question, shape, model, (reference, target))
    times, _ = _times(lambda: _generate(model, inputs, new), n)
    found["naive"] = {**_summary(times), "tokens": new, **_memory(device)}
    return found


def _naive_inputs(question: Question, shape: Shape, model: Any, images: Sequence[Any]) -> dict[str, Any]:
    """Token ids with both images in their places, and the pixels as Qwen's image processor lays them out."""
    import torch
    from transformers import Qwen2VLImageProcessorPil

    layout, size = question.layout, question.layout.size
    vision = shape.config["vision_config"]
    processor = Qwen2VLImageProcessorPil(
        patch_size=size.patch_px,
        merge_size=size.merge,
        temporal_patch_size=vision["temporal_patch_size"],
        size={"shortest_edge": 1, "longest_edge": size.width_px * size.height_px},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    pixels = processor([image[..., ::-1] for image in images], return_tensors="pt")
    image = [question.image_token] * size.tokens
    ids = torch.tensor([[*layout.before, *image, *layout.between, *image, *layout.after]], device=model.device)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == question.image_token).int(),
        "pixel_values": pixels["pixel_values"].to(model.device, model.dtype),
        "image_grid_thw": pixels["image_grid_thw"].to(model.device),
    }


def _generate(model: Any, inputs: dict[str, Any], new: int) -> Any:
    ids = model.generate(**inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
    ids = ids.cpu()  # waits for the GPU
    assert ids.shape[1] == inputs["input_ids"].shape[1] + new
    return ids


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return (time.perf_counter() - began) * 1e3, result


def _times(work: Callable[[], Any], n: int) -> tuple[list[float], Any]:
    for _ in range(WARM_UP if n > 1 else 0):
        work()
    pairs = [_timed(work) for _ in range(n)]
    return [ms for ms, _ in pairs], pairs[-1][1]


def _summary(times_ms: Sequence[float]) -> dict[str, Any]:
    p50, p95, p99 = (float(value) for value in np.percentile(times_ms, [50, 95, 99]))
    return {"n": len(times_ms), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def _memory(device: str) -> dict[str, float | None]:
    import torch

    gpu = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    return {"peak_mib": peak_memory_mib(), "gpu_peak_mib": gpu}


def _steps(name: str, tokens: int) -> int:
    """Passes over the weights after the question that the row's answer needs."""
    digits = sum(len(str(number)) for number in BOX)
    return {"ok": 0, "ng": digits, "ng_drafted": 1, "ng_described": digits + DESCRIPTION_TOKENS}.get(name, tokens - 1)


def _add_roofline(rows: dict[str, dict[str, Any]], work: Work, gpu_name: str | None) -> None:
    gpu = None if gpu_name is None else find_gpu(gpu_name)
    for name, row in rows.items():
        if gpu is None or name == "reference":
            row["floor_ms"] = row["roofline_share"] = None
            continue
        row["floor_ms"] = 1e3 * work.seconds(gpu, steps=_steps(name, row["tokens"]), naive=name == "naive", floor=True)
        row["roofline_share"] = row["floor_ms"] / row["p50_ms"]


def _predictions(work: Work, tokens: dict[str, int]) -> dict[str, Any]:
    """What all rows would take on GPUs, by arithmetic alone; ``tokens``: of each row's answer. See roofline."""
    arithmetic = {
        "vision_tflop": work.vision_flops / 1e12,
        "tail_tflop": work.prefill_flops(work.tail, work.prefix) / 1e12,
        "step_gb": work.step_bytes / 1e9,
    }
    predicted: dict[str, Any] = {"measured": False, "arithmetic": arithmetic}
    for name, gpu in GPUS.items():
        predicted[name] = {}
        for row, count in tokens.items():
            steps, naive = _steps(row, count), row == "naive"
            predicted[name][row] = {
                "floor_ms": 1e3 * work.seconds(gpu, steps=steps, naive=naive, floor=True),
                "predicted_ms": 1e3 * work.seconds(gpu, steps=steps, naive=naive),
            }
    return predicted
