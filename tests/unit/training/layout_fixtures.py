"""Small copies of published data sets, in the layouts that their pages state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.pairs import Pair, load_pairs
from training.datasets import main

Rect = tuple[int, int, int, int]
WIDTH, HEIGHT = 96, 64


def write_image(path: Path, seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return save(path, np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), dtype=np.uint8))


def write_mask(
    path: Path, rects: Sequence[Rect] = ((10, 20, 30, 40),), value: int = 255, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Path:
    """A grey mask with ``value`` in rectangles ``(x1, y1, x2, y2)``."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    for x1, y1, x2, y2 in rects:
        mask[y1:y2, x1:x2] = value
    return save(path, mask)


def save(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: object) -> Path:
    return write_text(path, json.dumps(content))


def write_mvtec(
    root: Path, products: Sequence[str] = ("bottle", "screw"), good: str = "good", bad: str = "broken"
) -> Path:
    for number, product in enumerate(products):
        for image in range(4):
            write_image(root / product / "train" / good / f"{image:03d}.png", 10 * number + image)
        for image in range(2):
            write_image(root / product / "test" / good / f"{image:03d}.png", 100 + image)
        for image in range(3):
            write_image(root / product / "test" / bad / f"{image:03d}.png", 200 + image)
            write_mask(root / product / "ground_truth" / bad / f"{image:03d}_mask.png")
    return root


def converted(name: str, source: Path, out: Path, *more: str) -> tuple[Pair, ...]:
    """The pairs that the command writes, read back."""
    assert main([name, str(source), str(out), *more]) == 0
    return load_pairs(out).pairs


def labels(pairs: Sequence[Pair]) -> dict[str, int]:
    return {label: sum(pair.label == label for pair in pairs) for label in ("OK", "NG")}
