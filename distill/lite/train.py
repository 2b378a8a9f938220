"""Train the difference network on generated pairs: `python -m distill.lite.train --out runs/lite`.

Labelled pair sets, such as a teacher's labelling writes, may stand beside the generated pairs: `--pairs SET`.

Pair number i is made from the seed (seed, i) alone, so that a run gives the same pairs with any number of workers and
after any interruption: started again with the same `--out`, it goes on where its last checkpoint stands.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from differad_edge.errors import ConfigError, DifferadError
from distill.lite.batches import GeneratedBatches, MixedBatches
from distill.lite.loss import heat_targets, loss_of
from distill.lite.network import DifferenceNet
from distill.lite.pair_sets import LabelledSets, read_labelled_sets
from distill.lite.recipe import Recipe, rate_at, read_checkpoint, refuse_other_recipe

#: Pairs of validation come from seeds that training never reaches.
VALIDATION_SEED_OFFSET = 1_000_000_007
VALIDATION_BATCHES = 12
#: Steps between checkpoints: what a power cut costs, about four minutes on two cores.
CHECKPOINT_EVERY = 500
#: Share of labelled pairs where there are any and nobody says.
PAIRS_SHARE = 0.3
#: Longer gradients are cut to this norm, so that one odd batch cannot undo many.
GRADIENT_NORM = 2.0


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones; running statistics are copied."""
    for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
    for slow_buffer, buffer in zip(average.buffers(), net.buffers(), strict=True):
        slow_buffer.copy_(buffer)


@torch.no_grad()
def validate(net: nn.Module, recipe: Recipe, batches: int, device: torch.device) -> dict[str, float | None]:
    """Figures on generated pairs that training never sees: pixel F1 at 0.5, image AUROC, good passed, defects found.

    A figure of which there is nothing to count (no good pair, or none with a defect) is None.
    """
    data = GeneratedBatches(recipe, offset=VALIDATION_SEED_OFFSET)
    training = net.training
    net.eval()
    hits = found = real = 0.0
    peaks: list[tuple[float, bool]] = []
    for index in range(batches):
        reference, target, label, weight = (t.to(device) for t in data[index])
        heat = net(reference.float(), target.float()).sigmoid()
        truth, counts = heat_targets(label, weight)
        answer = (heat > 0.5) * counts
        hits += float((answer * truth).sum())
        found += float(answer.sum())
        real += float((truth * counts).sum())
        bad = (truth * counts).amax((1, 2, 3)) > 0
        # A visible but unlabelled change makes an image neither good nor bad.
        clear = bad | (counts.amin((1, 2, 3)) > 0)
        peak = F.avg_pool2d(heat, 3, 1, 1).amax((1, 2, 3))
        peaks += [(float(p), bool(b)) for p, b, c in zip(peak, bad, clear, strict=True) if c]
    net.train(training)
    bad_peaks = np.array([p for p, b in peaks if b])
    good_peaks = np.array([p for p, b in peaks if not b])
    return {
        "pixel_f1": 2 * hits / max(1.0, found + real),
        "image_auroc": _share(bad_peaks[:, None] > good_peaks[None]),
        "true_normal_rate": _share(good_peaks < 0.5),
        "recall": _share(bad_peaks >= 0.5),
    }


def _share(holds: NDArray[np.bool_]) -> float | None:
    return float(holds.mean()) if holds.size else None


def train(
    recipe: Recipe,
    out: Path,
    *,
    workers: int,
    threads: int,
    device: torch.device,
    init: Path | None = None,
    sets: LabelledSets | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
) -> None:
    """Train in the folder ``out`` up to ``recipe.steps``; go on where its `checkpoint.pt` stands, if there is one.

    With each checkpoint a line goes to `log.jsonl`; `recipe.json` is there to be read.
    ``workers``: processes that generate pairs, 0 for this one. ``threads``: of PyTorch. ``init``: a checkpoint whose
    averaged weights a fresh run starts from. ``sets``: the labelled pairs that ``recipe.pairs_sha256`` names.
    ``checkpoint_every``: in steps.

    Raises ConfigError when ``out`` holds a checkpoint of another recipe, a checkpoint cannot be read, a second stage
    has the seed of the first, or ``sets`` are not those of the recipe.
    """
    given = None if sets is None else sets.sha256
    if given != recipe.pairs_sha256:
        raise ConfigError(f"pairs_sha256: got labelled pairs of {given}, allowed: the recipe's {recipe.pairs_sha256}")
    cv2.setNumThreads(1)  # before workers are forked: a forked copy of OpenCV's threads would hang
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    net, average = _network(device), _network(device)
    if init is not None:
        start = read_checkpoint(init, device)
        if start["recipe"]["seed"] == recipe.seed:
            raise ConfigError(
                f"seed: got {recipe.seed}, that of {init}, allowed: another; else the same pairs come again"
            )
        net.load_state_dict(start["average"])
    average.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, step = out / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = read_checkpoint(checkpoint, device)
        refuse_other_recipe(checkpoint, saved["recipe"], recipe)
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]
    loader = DataLoader(
        GeneratedBatches(recipe) if sets is None else MixedBatches(recipe, sets.pairs),
        batch_size=None,
        sampler=range(step, recipe.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
    began, running = time.monotonic(), 0.0
    for reference, target, label, weight in loader:
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, recipe)
        logits = net(_on(device, reference), _on(device, target))
        loss = loss_of(logits, label.to(device), weight.to(device), recipe)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_NORM)
        optimiser.step()
        step += 1
        # In the first steps the average would hold on to random weights.
        follow(average, net, min(recipe.ema_decay, (1 + step) / (10 + step)))
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        if step % checkpoint_every == 0 or step == recipe.steps:
            weights = {"net": net.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
            learnt_from = {} if sets is None else {"pair_sets": [asdict(counts) for counts in sets.sets]}
            unfinished = checkpoint.with_suffix(".tmp")
            torch.save({**weights, "step": step, "recipe": asdict(recipe), **learnt_from}, unfinished)
            unfinished.replace(checkpoint)
            figures = validate(average, recipe, VALIDATION_BATCHES, device)
            line = {"step": step, "seconds": round(time.monotonic() - began), "loss": round(running, 4), **figures}
            with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)


def _network(device: torch.device) -> DifferenceNet:
    net = DifferenceNet().to(device)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # not in its stubs


def _on(device: torch.device, images: Tensor) -> Tensor:
    return images.to(device).float().contiguous(memory_format=torch.channels_last)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown name; PyTorch without CUDA; ...
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device: got {name!r}, allowed: one that PyTorch can use here: {reason}") from error
    return device


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, log and recipe")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch, help="pairs a step")
    parser.add_argument("--side", type=int, default=Recipe.side_px, help="side of the generated pairs, px")
    parser.add_argument(
        "--pairs",
        type=Path,
        action="append",
        metavar="SET",
        help="folder of labelled pairs (pairs.jsonl) to learn from as well; may be repeated. Only pairs of kind "
        "'aligned': reference and target are compared place by place as they lie",
    )
    parser.add_argument(
        "--pairs-share", type=float, help=f"labelled pairs among all, above 0 up to 1 (with --pairs: {PAIRS_SHARE})"
    )
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--init", type=Path, help="checkpoint to start from, for a second stage")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--workers", type=int, default=1, help="processes that generate pairs, 0 for none beside this")
    parser.add_argument("--threads", type=int, default=max(1, torch.get_num_threads()), help="of PyTorch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(arguments)
    if a.workers < 0:
        parser.error(f"--workers: got {a.workers}, allowed: 0 or more")
    if a.threads < 1:
        parser.error(f"--threads: got {a.threads}, allowed: 1 or more")
    if a.init is not None and not a.init.is_file():
        parser.error(f"--init: got {a.init}, allowed: a checkpoint's file")
    share = PAIRS_SHARE if a.pairs_share is None else a.pairs_share
    if a.pairs_share is not None and not a.pairs:
        parser.error(f"--pairs-share: got {share} without --pairs, allowed: with labelled pairs")
    if not 0 < share <= 1:
        parser.error(f"--pairs-share: got {share}, allowed: above 0, at most 1")
    try:
        recipe = Recipe(
            steps=a.steps,
            batch=a.batch,
            side_px=a.side,
            learning_rate=a.learning_rate,
            seed=a.seed,
            init_sha256=None if a.init is None else hashlib.sha256(a.init.read_bytes()).hexdigest(),
        )
        device = _device(a.device)
        sets = read_labelled_sets(a.pairs) if a.pairs else None
        if sets is not None:
            recipe = replace(recipe, pairs_sha256=sets.sha256, pairs_share=share)
            for counts in sets.sets:
                print(f"{counts.name}: {counts.ok} OK, {counts.ng} NG, {counts.left_out} left out", flush=True)
        train(recipe, a.out, workers=a.workers, threads=a.threads, device=device, init=a.init, sets=sets)
    except DifferadError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
