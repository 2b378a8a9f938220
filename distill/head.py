"""``python -m distill.head CHECKPOINT --pairs SET... | --tiny N``: train the box head of a student, in minutes.

The student stays as it is; what is learnt is written beside its weights, as head.safetensors. Its queries see what the
student sees of a pair, and learn the box that the student was taught: so that the engine has a box to check in one pass
where it would write one digit by digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from pydantic import Field
from torch import Tensor

from differad_edge.config import ConfigModel, ModelConfig, parse_config
from differad_edge.engines.vlm.box_head import BOX_HEAD_FILE, BoxHead, write_box_head
from differad_edge.engines.vlm.checkpoint import model_type, weights_sha256
from differad_edge.engines.vlm.load import load_student
from differad_edge.errors import DifferadError, TrainingError
from differad_edge.geometry import iou
from differad_edge.grounding import GridBox
from differad_edge.results import Box
from distill.head_losses import HeadLossConfig, head_losses
from distill.head_model import FrozenStudent, TrainedHead
from distill.head_pairs import ReadPairs
from training.data import PairSource, Source, TinySource
from training.preflight import usable_pairs

__all__ = ["HeadTraining", "measure", "split", "train", "train_head"]

GRADIENT_NORM = 1.0
HELD_OUT = 64
"""Pairs that are not learnt from, at most, and at most a tenth of all."""
_TOLD_EVERY = 20  # steps

Told = Callable[[dict[str, float]], None]


class HeadTraining(ConfigModel):
    """How a head is trained. ``batch``: pairs a step.

    ``learning_rate``: at the beginning, from where it falls along a cosine; a step moves a logit by about this times
    the model's width, so that the tiny student wants 0.01.
    ``keep_mb``: of questions that stay on the device instead of being read again; a student of 2B has 150 MB for each.
    """

    steps: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    keep_mb: Annotated[float, Field(ge=0)] = 1000.0
    losses: HeadLossConfig = HeadLossConfig()


def split(count: int, seed: int) -> tuple[list[int], list[int]]:
    """The numbers of the pairs to learn from, and of those held out. Raises TrainingError for less than two."""
    if count < 2:
        raise TrainingError(f"pairs: got {count}, allowed: at least 2, of which one is held out")
    order = np.random.default_rng([seed, 0]).permutation(count).tolist()
    held = max(1, min(HELD_OUT, count // 10))
    return order[held:], order[:held]


def train(
    student: FrozenStudent, pairs: ReadPairs, indices: Sequence[int], config: HeadTraining, told: Told | None = None
) -> TrainedHead:
    """Learn from the ``pairs`` of these numbers. ``told``: is told the means of the losses every few steps.

    Raises TrainingError where the losses become no numbers, or the GPU's memory does not suffice.
    """
    torch.manual_seed(config.seed)
    head = TrainedHead(student.start)
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / config.steps)
    )
    since: list[list[float]] = []
    for step, batch in enumerate(_batches(pairs, indices, config), start=1):
        try:
            verdicts, bins = head(student.ask(head.queries, [question for question, _ in batch]))
        except torch.OutOfMemoryError as exc:
            raise TrainingError(f"batch: got {config.batch}, allowed: fewer, as the GPU's memory is full") from exc
        ng = torch.tensor([box is not None for _, box in batch], device=verdicts.device)
        boxes = torch.tensor([box or (0, 0, 0, 0) for _, box in batch], device=verdicts.device)
        losses = head_losses(verdicts, bins, ng, boxes, config.losses)
        total = losses.total(config.losses)
        since.append([float(part.detach()) for part in (total, *vars(losses).values())])
        if not math.isfinite(since[-1][0]):
            detail = f"the weights are broken, or a learning_rate of {config.learning_rate} is too high"
            raise TrainingError(f"the loss of step {step} is {since[-1][0]}, allowed: a finite number: {detail}")
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(head.parameters(), GRADIENT_NORM)
        optimiser.step()
        falling.step()
        if told is not None and (step % _TOLD_EVERY == 0 or step == config.steps):
            means = dict(zip(("loss", *vars(losses)), np.mean(since, axis=0).tolist(), strict=True))
            told({"step": step, **{name: round(mean, 4) for name, mean in means.items()}})
            since.clear()
    return head


def _batches(
    pairs: ReadPairs, indices: Sequence[int], config: HeadTraining
) -> Iterator[list[tuple[Tensor, GridBox | None]]]:
    """Every pair once before any comes again; the next ones are decoded while these are learnt from."""
    rng = np.random.default_rng([config.seed, 1])
    order: list[int] = []
    with ThreadPoolExecutor() as pool:
        for _ in range(config.steps):
            while len(order) < 2 * config.batch:
                order += rng.permutation(indices).tolist()
            pairs.ahead(pool, order[: 2 * config.batch])
            yield [pairs[index] for index in order[: config.batch]]
            order = order[config.batch :]


def measure(student: FrozenStudent, head: BoxHead, pairs: ReadPairs, indices: Sequence[int]) -> dict[str, float]:
    """What a head says of the ``pairs`` of these numbers, as the engine would ask it.

    ``iou``, ``edge_steps``: mean overlap of its boxes and mean distance of their edges in steps, of NG pairs;
    ``exact``: share of edges that are right to the step; ``verdicts``: share of right verdicts, of all.
    """
    queries = torch.from_numpy(head.queries).to(student.device)
    right: list[bool] = []
    overlaps: list[float] = []
    away: list[list[int]] = []
    for index in indices:
        question, truth = pairs[index]
        with torch.no_grad():
            hidden = student.ask(queries, [question])[0].cpu().numpy()
        right.append((head.ng(hidden) >= 0.5) == (truth is not None))
        if truth is not None:
            box = head.box(hidden)
            overlaps.append(iou(Box(*map(float, box)), Box(*map(float, truth))))
            away.append([abs(one - other) for one, other in zip(box, truth, strict=True)])
    figures = {"n": float(len(right)), "verdicts": float(np.mean(right))}
    if overlaps:
        figures |= {"iou": float(np.mean(overlaps)), "edge_steps": float(np.mean(away))}
        figures["exact"] = float(np.mean(np.array(away) == 0))
    return {name: round(value, 4) for name, value in figures.items()}


def train_head(checkpoint: Path, source: Source, config: HeadTraining, told: Told | None = None) -> dict[str, float]:
    """Train a head for ``checkpoint``, write it beside the weights, and return its figures on pairs held out.

    Raises TrainingError for what is no folder of a student that answers first, and what reading a checkpoint raises.
    """
    if not checkpoint.is_dir():
        raise TrainingError(f"CHECKPOINT: got {checkpoint}, allowed: a folder, as the head is written into it")
    kind = model_type(checkpoint)
    if kind != "qwen3_vl":
        raise TrainingError(f"CHECKPOINT: {checkpoint} is a {kind!r}, allowed: a Qwen3-VL")
    gpu = torch.cuda.is_available()
    loaded = load_student(
        ModelConfig(path=str(checkpoint)),
        dtype="bfloat16" if gpu else "float32",
        device="cuda" if gpu else "cpu",
        with_head=False,
    )
    if loaded.question.order != "student":
        raise TrainingError(f"order: got {loaded.question.order!r}, allowed: 'student', which gives its verdict first")
    learnt, held = split(len(source), config.seed)
    student, size = FrozenStudent(loaded), loaded.question.layout.size
    pairs = ReadPairs(student, source, size, keep_bytes=config.keep_mb * 1e6)
    head = train(student, pairs, learnt, config, told).to_box_head(weights_sha256(checkpoint))
    figures = measure(student, head, ReadPairs(student, source, size), held)
    trained = {"training": config.model_dump(), "pairs": len(learnt), "held_out": figures}
    write_box_head(head, checkpoint / BOX_HEAD_FILE, trained)
    return figures


def main(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a student, a Qwen3-VL.")],
    pairs: Annotated[list[Path] | None, typer.Option(help="A pair set; may be given several times.")] = None,
    tiny: Annotated[int | None, typer.Option(metavar="N", min=2, help="N pairs of the tiny generator.")] = None,
    steps: Annotated[int, typer.Option(help="How often the head is corrected.")] = 1000,
    batch: Annotated[int, typer.Option(help="Pairs a step.")] = 16,
    learning_rate: Annotated[float, typer.Option()] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of the order of pairs, the first queries, and tiny pairs.")] = 0,
) -> None:
    """Train the box head of a student and write it beside its weights; print its figures on pairs held out as JSON."""
    try:
        if bool(pairs) == (tiny is not None):
            raise typer.BadParameter("either --pairs or --tiny")
        settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
        config = parse_config(settings, HeadTraining, where="options")
        source: Source = PairSource(usable_pairs(pairs)) if pairs else TinySource(tiny or 0, seed)
        figures = train_head(checkpoint, source, config, lambda line: typer.echo(json.dumps(line), err=True))
    except (DifferadError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(json.dumps({"checkpoint": str(checkpoint), **figures}))


if __name__ == "__main__":
    typer.run(main)
