"""What flows into the linear layers: looked at while PyTorch answers, so that fewer bits can be chosen later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from differad_edge.engines.vlm.runner import Floats
from differad_edge.errors import ExportError

if TYPE_CHECKING:
    from differad_edge.engines.vlm.torch_runner import TorchRunner

__all__ = ["RANGES", "InputRange", "read_ranges", "watched", "write_ranges"]

RANGES = "ranges.npz"


@dataclass
class InputRange:
    """Of a linear layer's K inputs: ``largest`` absolute values and ``mean_square``, (K,) float32, over ``rows``."""

    largest: Floats
    mean_square: Floats
    rows: int = 0


@contextmanager
def watched(runner: TorchRunner) -> Iterator[dict[str, InputRange]]:
    """Inside, every question to ``runner``, which must not replay captured graphs, widens the ranges.

    They are named as the weights in the exported graphs are, without ".weight".
    """
    import torch

    ranges: dict[str, InputRange] = {}

    def look(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1])
            largest, mean_square = x.abs().amax(0).cpu().numpy(), x.square().mean(0).cpu().numpy()
            known = ranges.setdefault(name, InputRange(largest * 0, mean_square * 0))
            known.largest = np.maximum(known.largest, largest)
            share = len(x) / (known.rows + len(x))
            known.mean_square = (1 - share) * known.mean_square + share * mean_square
            known.rows += len(x)

        return hook

    hooks = [
        module.register_forward_pre_hook(look(f"{start}{name}"))
        for start, stage in runner.modules.items()
        for name, module in stage.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()


def write_ranges(ranges: dict[str, InputRange], folder: Path) -> None:
    """Write them beside an export."""
    arrays = {
        f"{name}.{kind}": getattr(one, kind) for name, one in ranges.items() for kind in ("largest", "mean_square")
    }
    np.savez(folder / RANGES, **arrays)


def read_ranges(folder: Path) -> dict[str, InputRange]:
    """Raises ExportError where there are none, or the file is torn."""
    try:
        with np.load(folder / RANGES, allow_pickle=False) as file:
            names = {key.rpartition(".")[0] for key in file.files}
            return {name: InputRange(file[f"{name}.largest"], file[f"{name}.mean_square"]) for name in sorted(names)}
    except Exception as exc:  # a damaged archive fails in many ways
        raise ExportError(f"{folder / RANGES}: cannot be read: {exc}; export the checkpoint again") from exc
