"""Models of a known shape with random weights: what speed and memory depend on, without anybody's weights.

A shape is a file in shapes/: the sizes of a Qwen3-VL, and the student's question in the tokens of its vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from differad_edge.engines.vlm.exported import QuestionEntry
from differad_edge.engines.vlm.questions import Question
from differad_edge.errors import ConfigError

__all__ = ["SHAPES", "Shape", "load_shape", "random_model"]

SHAPES = Path(__file__).resolve().parent / "shapes"


@dataclass(frozen=True)
class Shape:
    """``config``: of transformers' Qwen3-VL, as a mapping."""

    name: str
    config: dict[str, Any]
    question: Question


def load_shape(name: str) -> Shape:
    """Raises ConfigError for a shape that is not in shapes/."""
    file = SHAPES / f"{name}.json"
    if not file.is_file():
        known = ", ".join(sorted(one.stem for one in SHAPES.glob("*.json")))
        raise ConfigError(f"--shape: got {name!r}, allowed: {known}")
    read = json.loads(file.read_text(encoding="utf-8"))
    return Shape(name, read["config"], QuestionEntry.model_validate(read["question"]).to_question())


def random_model(shape: Shape, *, dtype: str, device: str, seed: int = 0) -> Any:
    """The model in memory, in its precision from the start: a copy in float32 would double what it needs."""
    import torch
    from transformers import AutoModelForImageTextToText, Qwen3VLConfig

    torch.manual_seed(seed)
    config = Qwen3VLConfig(**shape.config)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    return model.eval()
