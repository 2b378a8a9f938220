"""Small pair sets, with what may be wrong in one."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np


def write_set(root: Path, count: int, *, broken: tuple[int, ...] = (), outside: tuple[int, ...] = ()) -> Path:
    """``count`` pairs of 64x48 px, the even ones NG; the ``broken`` targets are no images."""
    root.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for index in range(count):
        reference = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        target = reference.copy()
        target[10:20, 30:50] = (0, 0, 255)
        cv2.imwrite(str(root / f"r{index}.png"), reference)
        cv2.imwrite(str(root / f"t{index}.png"), target)
        if index in broken:
            (root / f"t{index}.png").write_bytes(b"no image")
        boxes = [[30, 10, 500 if index in outside else 50, 20], [32, 12, 40, 24]]
        line = {"id": f"p{index}", "product": "x", "reference": f"r{index}.png", "target": f"t{index}.png"}
        line |= {"boxes": boxes if index % 2 == 0 else [], "label": "OK" if index % 2 else "NG"}
        lines.append(json.dumps(line | {"defect_types": [] if index % 2 else ["bent_pin"]}))
    (root / "pairs.jsonl").write_text("\n".join(lines))
    return root


def change_line(folder: Path, index: int, **fields: object) -> Path:
    """Give other fields to a line of the set; returns ``folder``."""
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    lines[index] = json.dumps(json.loads(lines[index]) | fields)
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder
