"""How well a checkpoint grounds differences: greedy answers to held-out examples, scored by the project's own rules.

``python -m training.evaluate CHECKPOINT --pairs FOLDER`` or ``--tiny N``. Answers come in batches: for curves over many
checkpoints. ``differad-edge evaluate --engine vlm`` asks the same model one pair at a time, as a line would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from differad_edge.errors import AnswerError, DifferadError
from differad_edge.grounding import EVALUATION_PROMPT, messages, parse_answer
from differad_edge.results import Box, Finding, Verdict
from differad_edge.scoring import Outcome, judge, one_box
from training.data import Example, PairSource, Source, TinySource
from training.launch import load_model
from training.preflight import usable_pairs
from training.recipe import ModelRecipe
from training.tiny.pairs import HELD_OUT_SEED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

GRID = (1000, 1000)
TINY_SEED = HELD_OUT_SEED


def ask(
    model: PreTrainedModel, processor: ProcessorMixin, examples: Sequence[Example], *, max_new_tokens: int = 256
) -> list[str]:
    """The model's greedy answers, in one batch."""
    import torch
    from PIL import Image

    text = processor.apply_chat_template(messages(EVALUATION_PROMPT), add_generation_prompt=True)
    inputs = processor(
        images=[[Image.fromarray(example.reference), Image.fromarray(example.target)] for example in examples],
        text=[text] * len(examples),
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    said: list[str] = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return said


def outcome_of(answer: str, example: Example, product: str) -> Outcome:
    """What an answer counts for, in grid units; an answer that cannot be parsed is UNDECIDED."""
    truth = () if example.box is None else (Box(*map(float, example.box)),)
    try:
        box = parse_answer(answer).box
    except AnswerError:
        return Outcome(product, truth, (), (), Verdict.UNDECIDED, GRID, score=0.0)
    if box is None:
        return Outcome(product, truth, (), (), Verdict.OK, GRID, score=0.0)
    finding = Finding(Box(*map(float, box)), 1.0)
    return Outcome(product, truth, (finding,), (finding,), Verdict.NG, GRID, score=1.0)


def evaluate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    source: Source,
    *,
    batch: int = 64,
    max_new_tokens: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Ask for every example of ``source``; ``progress`` is told how many of how many are done."""
    outcomes: list[Outcome] = []
    was_training = model.training
    model.eval()
    for start in range(0, len(source), batch):
        examples = [source[index] for index in range(start, min(start + batch, len(source)))]
        answers = ask(model, processor, examples, max_new_tokens=max_new_tokens)
        outcomes += [outcome_of(answer, one, "pair") for answer, one in zip(answers, examples, strict=True)]
        if progress is not None:
            progress(len(outcomes), len(source))
    model.train(was_training)
    return outcomes


def main(
    checkpoint: Annotated[str, typer.Argument(help="A folder, or an id of the model hub.")],
    pairs: Annotated[list[Path] | None, typer.Option(help="A pair set; may be given several times.")] = None,
    tiny: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N held-out pairs of the tiny generator.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pairs asked at once.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    each: Annotated[bool, typer.Option(help="Also what each pair counted for, for paired comparisons.")] = False,
) -> None:
    """Print the figures of a checkpoint as JSON."""
    import torch

    try:
        if bool(pairs) == (tiny is not None):
            raise typer.BadParameter("either --pairs or --tiny")
        source: Source = PairSource(usable_pairs(pairs)) if pairs else TinySource(tiny or 0, TINY_SEED)
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        model, processor = load_model(ModelRecipe(path=checkpoint, dtype=dtype, freeze_vision=False))
        if torch.cuda.is_available():
            model.to("cuda")
        outcomes = evaluate(model, processor, source, batch=batch, max_new_tokens=max_new_tokens)
    except DifferadError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    figures: dict[str, Any] = {"checkpoint": checkpoint, "n": len(outcomes), **one_box(outcomes)}
    if each:
        judged = [judge(outcome) for outcome in outcomes]
        figures["kinds"] = [one.kind for one in judged]
        figures["ious"] = [round(one.iou, 4) for one in judged]
    typer.echo(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
