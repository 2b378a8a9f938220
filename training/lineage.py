"""What a checkpoint is like that is not there yet: as the model that the recipe which writes it starts from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from differad_edge.errors import ConfigError, MissingExtraError
from training.recipe import load_recipe, recipe_names
from training.shapes import KNOWN, Shape, shape_of
from training.tiny.model import tiny_config, tiny_processor
from training.tiny.student import student_config, student_processor

TINY: Mapping[str, Callable[[], Any]] = {
    "runs/tiny/random": lambda: tiny_config(tiny_processor()),
    "runs/tiny/student-random": lambda: student_config(student_processor()),
}
"""The configurations of the random models that the tiny recipes start from, by the folders that they name."""


def model_shape(path: str) -> Shape:
    """The shape of a checkpoint folder, of a model whose name is known, or of what a committed recipe will write.

    Raises ConfigError for any other; MissingExtraError for a tiny model without the training packages.
    """
    at = path
    for _ in range(len(recipe_names()) + 1):  # a recipe that starts from its own result leads nowhere
        file = Path(at) / "config.json"
        if file.is_file():
            return _read(file)
        for name, shape in KNOWN.items():
            if name in at:
                return shape
        if Path(at).as_posix() in TINY:
            return _tiny(Path(at).as_posix())
        at = _origins().get(Path(at), "")
    allowed = f"a checkpoint folder that is there, one that a recipe writes, or a name with {' or '.join(KNOWN)}"
    raise ConfigError(f"--model: got {path[:200]!r}, allowed: {allowed}")


def _read(file: Path) -> Shape:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"got {type(config).__name__}, allowed: an object")
        return shape_of(config)
    except (OSError, ValueError, KeyError, RecursionError) as exc:
        raise ConfigError(f"model.path: {file} does not describe a model of the Qwen-VL family: {exc}") from exc


def _tiny(folder: str) -> Shape:
    try:
        return shape_of(TINY[folder]().to_dict())
    except ImportError as exc:
        raise MissingExtraError("train", exc.name or "transformers") from exc


def _origins() -> dict[Path, str]:
    """Where the committed recipes start, by the folders that they write."""
    recipes = [load_recipe(name) for name in recipe_names()]
    return {folder: recipe.model.path for recipe in recipes for folder in (recipe.run.out, recipe.run.out / "final")}
