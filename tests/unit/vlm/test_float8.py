"""Weights in eight bits: which layers, how far answers move, and how a checkpoint is asked for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from students import GRAMMAR, IMAGE, picture, question, student

from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.float8 import Float8Linear, hold_in_float8
from differad_edge.engines.vlm.load import vlm_engine
from differad_edge.engines.vlm.questions import Question
from differad_edge.engines.vlm.runner import Floats
from differad_edge.engines.vlm.torch_runner import TorchRunner
from differad_edge.errors import ConfigError

ASKED = Question(question(128), GRAMMAR, "student", frozenset({901}), IMAGE, ())


def hidden_of(model: object) -> Floats:
    runner = TorchRunner(model, ASKED.layout)  # type: ignore[arg-type]
    runner.load(runner.make_prefix("a", runner.encode(picture(1))))
    return runner.read(runner.encode(picture(2)))


def test_one_layer_is_as_near_as_three_bits_of_mantissa() -> None:
    torch.manual_seed(0)
    exact = torch.nn.Linear(256, 64)
    exact.weight.data[3] = 0.0  # a scale of nothing
    x = torch.randn(50, 256)
    with torch.no_grad():
        right, found = exact(x), Float8Linear(exact)(x)
    assert torch.isfinite(found).all()
    assert 0.001 < float((right - found).std() / right.std()) < 0.05
    assert Float8Linear(exact).weight.element_size() == 1


def test_the_layers_that_bear_it_are_replaced() -> None:
    model = student(5)
    right = hidden_of(model)
    assert hold_in_float8(model) == 4 * 7 + 1 * 4  # four layers of text; the fourth block of vision
    kept = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert all(name.endswith("lm_head") or "merger" in name or ".blocks." in name for name in kept)
    assert not any(".blocks.3." in name for name in kept)
    off = np.sqrt(np.square(hidden_of(model) - right).mean()) / right.std()
    assert 0.001 < off < 0.2
    assert hold_in_float8(model) == 0


def test_a_checkpoint_is_asked_for_it(tmp_path: Path) -> None:
    from training.tiny.student import write_tiny_student

    path = str(write_tiny_student(tmp_path / "student"))
    prints = {
        precision: vlm_engine(ModelConfig(path=path, size_px=(64, 64), precision=precision)).fingerprint
        for precision in (None, "fp32", "bf16", "fp8")
    }
    assert prints[None] == prints["fp32"]  # without a GPU
    assert len(set(prints.values())) == 3  # references that were read in another precision are read again
    with pytest.raises(ConfigError, match=r"model\.precision: got 'int4', allowed for a checkpoint: fp32, bf16"):
        vlm_engine(ModelConfig(path=path, size_px=(64, 64), precision="int4"))
