"""The loss of the trainer where groups were dropped: policy and KL term alike get the share of those that are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")

import torch
from trl import GRPOTrainer

from training.grpo_trainer import DifferenceGrpoTrainer
from training.recipe import GrpoRecipe


@pytest.mark.parametrize(("loss", "expected"), [("grpo", 4.0), ("dr_grpo", 4.0), ("dapo", 3.0)])
def test_dropped_groups_do_not_dilute_the_loss(loss: str, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four groups of two, one of them flat: what the others bring is a mean over all eight, or over their tokens."""
    trainer: Any = object.__new__(DifferenceGrpoTrainer)
    trainer._grpo, trainer.loss_type, trainer.num_generations = GrpoRecipe(), loss, 2
    logged: dict[str, float] = {}
    trainer._log = logged.__setitem__
    trainer.accelerator = type("One", (), {"process_index": 0})()
    monkeypatch.setattr("training.grpo_trainer.gather", lambda tensor: tensor)
    output = {"advantages": torch.ones(8), "completion_mask": torch.ones(8, 5, dtype=torch.long)}
    trainer._drop(output, np.array([False, True, False, False]))
    assert output["completion_mask"].sum(1).tolist() == [5, 5, 0, 0, 5, 5, 5, 5]
    assert output["num_items_in_batch"] == 30
    assert output["advantages"].tolist() == [1.0] * 8
    assert logged == {"groups/degenerate_after": 0.25}
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", lambda self, model, inputs: torch.tensor(3.0))
    assert trainer._compute_loss(None, output).item() == expected


def test_nothing_is_shared_out_where_all_groups_are_dropped() -> None:
    trainer: Any = object.__new__(DifferenceGrpoTrainer)
    trainer._grpo, trainer.loss_type, trainer.num_generations = GrpoRecipe(resample=False), "grpo", 2
    trainer._log = lambda name, value: None
    output = {"advantages": torch.ones(4)}
    trainer._drop(output, np.array([True, True]))
    assert output["kept_share"] == 1.0
