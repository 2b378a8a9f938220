"""A student in training sees what the engine on the robot will show it, and says so beside its weights."""

from __future__ import annotations

from pathlib import Path

from differad_edge.engines.vlm.checkpoint import load_processor
from differad_edge.engines.vlm.layout import WorkingSize
from differad_edge.engines.vlm.load import STUDENT_FILE, StudentCard, read_card
from differad_edge.engines.vlm.tokens import tokenizer_sha256
from differad_edge.errors import ConfigError
from training.recipe import ModelRecipe


def student_card(recipe: ModelRecipe) -> StudentCard:
    """How the student is asked: as the recipe says, else as the card beside its weights does, else the defaults.

    Raises ModelIntegrityError for a card of other prompts.
    """
    card = read_card(recipe.path)
    changes = {"size_px": recipe.size_px, "fit": recipe.fit}
    return card.model_copy(update={name: value for name, value in changes.items() if value is not None})


def working_size(recipe: ModelRecipe) -> WorkingSize:
    """The size at which it sees every image. Raises ConfigError for one that is no whole number of its tokens."""
    card, images = student_card(recipe), load_processor(recipe.path, revision=recipe.revision).image_processor
    try:
        return WorkingSize(*card.size_px, card.fit, images.patch_size, images.merge_size)
    except ConfigError as exc:
        raise ConfigError(f"model.size_px: {exc}") from exc


def write_student_card(recipe: ModelRecipe, folder: Path) -> None:
    """Write the card into ``folder``, beside the weights that were trained with it and their tokenizer."""
    card = student_card(recipe).model_copy(update={"tokenizer_sha256": tokenizer_sha256(folder)})
    (folder / STUDENT_FILE).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
