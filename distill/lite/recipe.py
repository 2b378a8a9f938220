"""What a training run is made of, and the checkpoint that remembers it."""

from __future__ import annotations

import hashlib
import math
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from differad_edge.errors import ConfigError
from distill.lite.network import INPUT_MULTIPLE
from distill.lite.scenes import MIN_SIDE_PX


@dataclass(frozen=True)
class Recipe:
    """Everything, beside the code, that decides what a training run gives.

    ``side_px``: of the generated pairs. ``positive_weight``: of a defect's cells in the cross-entropy.
    ``peak_weight``: of the peaks in the loss. ``ema_decay``: of the averaged weights, which are the ones that ship.

    Raises ConfigError for a value outside what is allowed.
    """

    steps: int = 12_000
    batch: int = 12
    side_px: int = 192
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 300
    positive_weight: float = 2.0
    peak_weight: float = 0.1
    ema_decay: float = 0.999
    seed: int = 0
    init_sha256: str | None = None
    """Of the checkpoint whose averaged weights training starts from; None: from random weights."""
    pairs_sha256: str | None = None
    """Identity of the labelled pair sets (:class:`distill.lite.pair_sets.LabelledSets`); None: all pairs generated."""
    pairs_share: float = 0.0
    """Of labelled pairs among all."""

    def __post_init__(self) -> None:
        self._check("steps", self.steps >= 1, "at least 1")
        self._check("batch", self.batch >= 1, "at least 1")
        whole = self.side_px % INPUT_MULTIPLE == 0 and self.side_px >= MIN_SIDE_PX
        self._check("side_px", whole, f"a multiple of {INPUT_MULTIPLE} from {MIN_SIDE_PX} up")
        self._check("learning_rate", self.learning_rate > 0, "above 0")
        self._check("seed", self.seed >= 0, "at least 0")
        if self.pairs_sha256 is None:
            self._check("pairs_share", self.pairs_share == 0, "0 without labelled pairs")
        else:
            self._check("pairs_share", 0 < self.pairs_share <= 1, "above 0, at most 1, with labelled pairs")

    def _check(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: {allowed}")


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate: linear warm-up, then half a cosine down to one hundredth."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What training saved: net, average and optimiser (state dicts), step, recipe, and pair_sets where it had any.

    Raises ConfigError when the file is missing or something else.
    """
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        missing = {"net", "average", "optimiser", "step", "recipe"} - set(saved)
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise ConfigError(f"checkpoint: got {path}, allowed: a file that distill.lite.train wrote: {error}") from error
    if missing:
        raise ConfigError(
            f"checkpoint: got {path} without {sorted(missing)}, allowed: one that distill.lite.train wrote"
        )
    return saved


def refuse_other_recipe(checkpoint: Path, saved: dict[str, Any], recipe: Recipe) -> None:
    """Raise ConfigError, naming the fields, when the recipe in a checkpoint is not the wanted one."""
    wanted = asdict(recipe)
    default = asdict(Recipe())  # what a checkpoint does not name, its program did not know yet
    other = [
        f"{name} {saved.get(name, default[name])} there, {value} asked for"
        for name, value in wanted.items()
        if saved.get(name, default[name]) != value
    ]
    if other:
        raise ConfigError(f"recipe: {checkpoint} was trained with another one ({'; '.join(other)}); give another --out")


def stages(checkpoint: Path) -> list[dict[str, Any]]:
    """How a checkpoint came about, from random weights on: each stage's recipe, `run` (its folder) and `steps_done`.

    A stage that learnt from labelled pairs has `pair_sets` too: name, folder, ok, ng and left_out of each set.
    The checkpoint that a stage started from is looked for, by its SHA-256, in the folders beside the stage's own.
    Raises ConfigError when it is not there: nobody could say how such a model was made.
    """
    saved = read_checkpoint(checkpoint, torch.device("cpu"))
    this = {"run": checkpoint.resolve().parent.name, **saved["recipe"], "steps_done": saved["step"]}
    if "pair_sets" in saved:
        this["pair_sets"] = saved["pair_sets"]
    wanted = saved["recipe"].get("init_sha256")
    if wanted is None:
        return [this]
    for other in sorted(checkpoint.resolve().parent.parent.glob(f"*/{checkpoint.name}")):
        if hashlib.sha256(other.read_bytes()).hexdigest() == wanted:
            return [*stages(other), this]
    raise ConfigError(
        f"init_sha256: {checkpoint} was trained from {wanted}, allowed: a checkpoint in a folder beside it"
    )
