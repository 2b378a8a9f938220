"""Logit distillation on answer spans: the student learns how sure its teacher was, not only what it said.

The teacher's probabilities were kept when it labelled (`distill.labelling`), so that no teacher needs to be in memory:
for the verdict the share of its answers that said NG, for each decision inside the box its distribution over the next
digit or the end of the number (`distill.decisions`). Each model is asked in its own words and order; what is compared
is the same decision after the same digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.checkpoint import load_processor
from differad_edge.engines.vlm.grammar import AnswerTokens
from differad_edge.engines.vlm.questions import question_of
from differad_edge.errors import BoxError, ConfigError, DatasetError, TrainingError
from differad_edge.geometry import GRID, from_grid
from differad_edge.grounding import GridBox
from differad_edge.pairs import Pair
from distill.decisions import OUTCOMES, RANKS, student_decisions
from distill.labelling import LABELS_FILE
from training.context import context_of
from training.data import ZERO_BOX, CanvasSource, PairSource, rows
from training.launch import adapters, load_model, run_arguments, set_up
from training.preflight import usable_pairs
from training.recipe import Recipe
from training.resume import LoadsWholeCheckpoints
from training.student import working_size

__all__ = ["Soft", "distillation_loss", "logit_trainer", "read_labels", "soft_targets"]

_NOT_LEARNT = -100  # of TRL's labels


@dataclass(frozen=True, slots=True)
class Soft:
    """What a teacher thought of one pair.

    ``ng_share``: 0 to 1. ``decisions``: (decisions, 11) probabilities in ``box``, None for OK and where they cannot be
    told; ``ranked``: (places, RANKS) sorted probabilities in their stead, or None.
    """

    ng_share: float
    box: GridBox | None
    decisions: Tensor | None = None
    ranked: Tensor | None = None


def read_labels(folder: Path) -> dict[str, Soft]:
    """What stands beside the pairs that a teacher labelled, by the pair's id; empty where none did.

    Raises DatasetError, naming file and line.
    """
    file = folder / LABELS_FILE
    if not file.is_file():
        return {}
    found: dict[str, Soft] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            row = json.loads(line)
            found[str(row["id"])] = _soft(row)
        except (BoxError, ValueError, KeyError, TypeError, RecursionError) as exc:
            raise DatasetError(f"{file}, line {number}: no label: {exc}") from exc
    return found


def soft_targets(pairs: Sequence[Pair], labels: Mapping[str, Soft]) -> list[Soft]:
    """For each pair what the teacher thought; where no teacher labelled it, its label alone."""
    return [labels.get(pair.id, Soft(1.0 if pair.boxes else 0.0, None)) for pair in pairs]


def distillation_loss(logits: Tensor, soft: Sequence[Soft], grammar: AnswerTokens) -> Tensor:
    """The mean over the verdicts plus the mean over the decisions in boxes; each at least 0, and 0 for an equal.

    ``logits``: (B, T, vocabulary), of which place t predicts token t of the answer, <answer> first.

    Verdicts and decisions: Kullback-Leibler divergence from the teacher's distribution. Sorted probabilities: their
    absolute differences (universal logit distillation).
    """
    logs = logits.float().log_softmax(-1)
    at = len(grammar.opening)
    share = torch.tensor([one.ng_share for one in soft], dtype=logs.dtype, device=logs.device)
    truth = torch.stack([1 - share, share], dim=1)
    said = logs[:, at][:, list(grammar.verdicts)]
    loss = _divergence(truth, said).mean()
    divergences: list[Tensor] = []
    for row, one in enumerate(soft):
        if one.box is None:
            continue
        places, choices = (torch.from_numpy(array).to(logs.device) for array in student_decisions(grammar, one.box))
        places = places + at + 1
        if one.decisions is not None:
            divergences.append(_divergence(one.decisions.to(logs), logs[row, places].gather(1, choices)))
        elif one.ranked is not None:
            first, last = int(places[0]), int(places[-1])
            mine = logs[row, first : last + 1].exp().topk(min(RANKS, logs.shape[-1])).values
            mine, theirs = _same_width(mine, one.ranked.to(logs))
            count = min(len(mine), len(theirs))
            divergences.append((mine[:count] - theirs[:count]).abs().sum(1))
    if divergences:
        loss = loss + torch.cat(divergences).mean()
    return loss


def logit_trainer(recipe: Recipe, weight: float) -> SFTTrainer:
    """TRL's trainer with ``weight`` of the loss taken from the teacher's probabilities, the rest from its answers.

    Raises ConfigError for a student that keeps the aspect of its images: the teacher's digits are of another grid.
    """
    size = working_size(recipe.model)
    if size.fit != "stretch":
        raise ConfigError(f"model.fit: got {size.fit!r}, allowed with logit distillation: 'stretch'")
    labels: dict[str, Soft] = {}
    for folder in recipe.data.pair_sets:
        labels |= read_labels(folder)
    pairs = usable_pairs(recipe.data.pair_sets, context_of(recipe))
    soft = soft_targets(pairs, labels)
    table = rows(CanvasSource(PairSource(pairs), size), answers="student", seed=recipe.run.seed)
    question = question_of(
        load_processor(recipe.model.path, revision=recipe.model.revision),
        size,
        order="student",
        max_new_tokens=ModelConfig().max_new_tokens,
    )
    with set_up():
        model, processor = load_model(recipe.model, recipe.weights_dtype)
        trainer = _LogitTrainer(
            model=model,
            args=SFTConfig(**run_arguments(recipe), completion_only_loss=True, max_length=None),
            train_dataset=table,
            processing_class=processor,
            peft_config=adapters(recipe.model),
        )
    trainer.teach(question.grammar, soft, weight)
    return trainer


class _LogitTrainer(LoadsWholeCheckpoints, SFTTrainer):  # type: ignore[misc]  # TRL's classes are Any here
    """SFTTrainer whose batches carry what the teacher thought."""

    def teach(self, grammar: AnswerTokens, soft: Sequence[Soft], weight: float) -> None:
        """To be called once, before training."""
        self._grammar, self._weight = grammar, weight
        self.data_collator: Any = _Collator(self.data_collator, soft)
        # The loss below is a mean over its batch: the trainer is to divide it by the accumulation.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        soft, labels = inputs.pop("soft"), inputs.pop("labels")
        first = int((labels != _NOT_LEARNT).int().argmax(1).min())
        answers = labels[:, first:]
        opening = answers[:, : len(self._grammar.opening)]
        if (opening != torch.tensor(self._grammar.opening, device=labels.device)).any():
            raise TrainingError("answers: they do not begin at one place, as a student's questions of one length do")
        logits = model(**inputs, use_cache=False, logits_to_keep=answers.shape[1] + 1).logits[:, :-1]
        hard = F.cross_entropy(logits.flatten(0, 1).float(), answers.flatten(), ignore_index=_NOT_LEARNT)
        taught = distillation_loss(logits, soft, self._grammar)
        mode = "train" if self.model.training else "eval"
        for name, value in (("distill/answers", hard), ("distill/probabilities", taught)):
            self._metrics[mode][name].append(float(value.detach()))
        loss = (1 - self._weight) * hard + self._weight * taught
        return (loss, None) if return_outputs else loss


@dataclass(frozen=True)
class _Collator:
    base: Any
    soft: Sequence[Soft]

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        soft = [self.soft[example["index"]] for example in examples]
        for example, one in zip(examples, soft, strict=True):
            if one.box is not None and tuple(example["box"]) != (one.box or ZERO_BOX):
                raise DatasetError(f"{LABELS_FILE}: box {one.box} of a pair whose box is {tuple(example['box'])}")
        batch = self.base(examples)
        batch["soft"] = soft
        return batch


def _divergence(truth: Tensor, logs: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each row; what a model gives to other tokens counts against it."""
    # Where the teacher gives nothing the student may give nothing either: 0 times minus infinity is 0 here.
    return (torch.xlogy(truth, truth) - torch.where(truth > 0, truth * logs, 0.0)).sum(-1)


def _same_width(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    width = max(one.shape[1], other.shape[1])
    return F.pad(one, (0, width - one.shape[1])), F.pad(other, (0, width - other.shape[1]))


def _soft(row: Mapping[str, Any]) -> Soft:
    """Raises ValueError, KeyError and TypeError for what is no label."""
    box = None if row["box"] is None else tuple(int(value) for value in row["box"])
    if box is not None:
        from_grid(box, GRID, GRID)
    soft = Soft(
        ng_share=float(row["ng_share"]),
        box=box,  # type: ignore[arg-type]  # of four: from_grid has said so
        decisions=_table(row.get("decisions"), OUTCOMES),
        ranked=_table(row.get("ranked"), RANKS),
    )
    if not 0.0 <= soft.ng_share <= 1.0:
        raise ValueError(f"ng_share: got {soft.ng_share}, allowed: 0 to 1")
    wanted = 0 if box is None else sum(len(str(number)) + 1 for number in box)
    if soft.decisions is not None and len(soft.decisions) != wanted:
        raise ValueError(f"decisions: got {len(soft.decisions)}, allowed for the box {box}: {wanted}")
    return soft


def _table(value: Any, width: int) -> Tensor | None:
    if value is None:
        return None
    table = torch.tensor(value, dtype=torch.float32)
    if table.ndim != 2 or table.shape[1] != width or not torch.isfinite(table).all() or (table < 0).any():
        raise ValueError(f"probabilities of shape {tuple(table.shape)}, allowed: (places, {width}), from 0 to 1")
    return table
