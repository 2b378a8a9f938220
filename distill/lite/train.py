"""Train the difference network on generated pairs: `python -m distill.lite.train --out runs/lite`.

Pair number i is generated from the seed (seed, i) alone, so that a run gives the same pairs with any number of workers
and after any interruption: started again with the same `--out`, it goes on where its last checkpoint stands.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from distill.lite.generate import training_pair
from distill.lite.network import HEAT_STRIDE, DifferenceNet

#: Pairs of validation come from seeds that training never reaches.
VALIDATION_SEED_OFFSET = 1_000_000_007


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run gives."""

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


Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class GeneratedBatches(Dataset[Batch]):
    """Batch number k: (reference, target) (B, 3, S, S) uint8 RGB, (label, weight) (B, 1, S, S) uint8."""

    def __init__(self, recipe: Recipe, *, offset: int = 0) -> None:
        self.recipe, self.offset = recipe, offset

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(1)
        first = self.offset + index * self.recipe.batch
        pairs = [
            training_pair(np.random.default_rng((self.recipe.seed, first + i)), self.recipe.side_px)
            for i in range(self.recipe.batch)
        ]
        images = (
            torch.from_numpy(np.stack([getattr(p, name) for p in pairs])[..., ::-1].transpose(0, 3, 1, 2).copy())
            for name in ("reference", "target")
        )
        maps = (torch.from_numpy(np.stack([getattr(p, name) for p in pairs])[:, None]) for name in ("label", "weight"))
        return (*images, *maps)  # type: ignore[return-value]


def heat_targets(label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Label and weight at the heat map's stride: any defect pixel makes a cell one, any doubtful one takes its vote."""
    return (
        F.max_pool2d(label.float(), HEAT_STRIDE),
        1 - F.max_pool2d(1 - weight.float(), HEAT_STRIDE),
    )


def loss_of(logits: Tensor, label: Tensor, weight: Tensor, recipe: Recipe) -> Tensor:
    """Weighted cross-entropy + Dice per image + the peaks that decide the verdict.

    The peak term is the cross-entropy of each image's strongest answer outside its defects and strongest answer inside:
    those two numbers, not the mean pixel, make a false alarm or a miss.
    """
    truth, weight = heat_targets(label, weight)
    pixel = F.binary_cross_entropy_with_logits(
        logits, truth, weight, pos_weight=torch.tensor(recipe.positive_weight, device=logits.device)
    )
    probability = logits.sigmoid() * weight
    axes = (1, 2, 3)
    dice = 1 - (2 * (probability * truth).sum(axes) + 1) / (probability.sum(axes) + (truth * weight).sum(axes) + 1)
    smooth = F.avg_pool2d(logits, 3, 1, 1)
    near = F.max_pool2d(torch.maximum(truth, 1 - weight), 9, 1, 4)
    outside = smooth.masked_fill(near > 0, -20).amax(axes)
    inside = smooth.masked_fill(truth * weight == 0, -20).amax(axes)
    bad = (truth * weight).amax(axes) > 0
    peak = F.softplus(outside).mean() + (F.softplus(-inside) * bad).mean()
    return pixel + dice.mean() + recipe.peak_weight * peak


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate: linear warm-up, then half a cosine down to one hundredth."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones; running statistics are copied."""
    for a, b in zip(average.parameters(), net.parameters(), strict=True):
        a.lerp_(b, 1 - decay)
    for a, b in zip(average.buffers(), net.buffers(), strict=True):
        a.copy_(b)


@torch.no_grad()
def validate(net: nn.Module, recipe: Recipe, batches: int, device: torch.device) -> dict[str, float]:
    """Figures on generated pairs that training never sees: pixel F1 at 0.5, image AUROC, false alarms and misses."""
    data = GeneratedBatches(recipe, offset=VALIDATION_SEED_OFFSET)
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
    net.train()
    bad_peaks = np.array([p for p, b in peaks if b])
    good_peaks = np.array([p for p, b in peaks if not b])
    return {
        "pixel_f1": 2 * hits / max(1.0, found + real),
        "image_auroc": float((bad_peaks[:, None] > good_peaks[None]).mean()),
        "true_normal_rate": float((good_peaks < 0.5).mean()),
        "recall": float((bad_peaks >= 0.5).mean()),
    }


def train(
    recipe: Recipe, out: Path, *, workers: int, threads: int, device: torch.device, init: Path | None = None
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    net = DifferenceNet().to(device, memory_format=torch.channels_last)
    if init is not None:
        net.load_state_dict(torch.load(init, map_location=device, weights_only=True)["average"])
    average = DifferenceNet().to(device, memory_format=torch.channels_last)
    average.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    checkpoint, step = out / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        if saved["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} comes from another recipe: {saved['recipe']}")
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]
    loader = DataLoader(
        GeneratedBatches(recipe),
        batch_size=None,
        sampler=range(step, recipe.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    began, running = time.monotonic(), 0.0
    for reference, target, label, weight in loader:
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, recipe)
        shape = torch.channels_last
        logits = net(
            reference.to(device).float().contiguous(memory_format=shape),
            target.to(device).float().contiguous(memory_format=shape),
        )
        loss = loss_of(logits, label.to(device), weight.to(device), recipe)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimiser.step()
        step += 1
        follow(average, net, min(recipe.ema_decay, (1 + step) / (10 + step)))
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        if step % 500 == 0 or step == recipe.steps:
            state = {"net": net.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "step": step, "recipe": asdict(recipe)}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            figures = validate(average, recipe, 12, device)
            line = {"step": step, "seconds": round(time.monotonic() - began), "loss": round(running, 4), **figures}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, log and recipe")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--side", type=int, default=Recipe.side_px, help="side of the generated crops, px")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--init", type=Path, help="checkpoint to start from, for a second stage")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--workers", type=int, default=1, help="processes that generate pairs")
    parser.add_argument("--threads", type=int, default=max(1, torch.get_num_threads()))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args()
    recipe = Recipe(
        steps=a.steps,
        batch=a.batch,
        side_px=a.side,
        learning_rate=a.learning_rate,
        seed=a.seed,
        init_sha256=None if a.init is None else hashlib.sha256(a.init.read_bytes()).hexdigest(),
    )
    train(recipe, a.out, workers=a.workers, threads=a.threads, device=torch.device(a.device), init=a.init)


if __name__ == "__main__":
    main()
