"""What turns a teacher's labels into a student: up to three stages, each a recipe of `training`. YAML, typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from differad_edge.config import ConfigModel
from distill.whole import MERGED
from training.recipe import (
    DataRecipe,
    GrpoRecipe,
    ModelRecipe,
    OptimiserRecipe,
    Recipe,
    RewardRecipe,
    RolloutRecipe,
    RunRecipe,
    Share,
    read_recipe,
)

__all__ = ["RECIPES", "MigrateRecipe", "Stage", "StageName", "load_migrate_recipe", "migrate_recipe_names"]

RECIPES = Path(__file__).parent / "recipes"

StageName = Literal["sft", "logits", "grpo"]


class SftStage(ConfigModel):
    """The student repeats the labels, in its own order."""

    optimiser: OptimiserRecipe


class LogitStage(ConfigModel):
    """It learns how sure the teacher was. ``weight``: of that in the loss; the rest is of the labels."""

    optimiser: OptimiserRecipe
    weight: Share = 0.5


class GrpoStage(ConfigModel):
    """It is rewarded for its own answers. ``pair_sets``: with true boxes; none: the labels of the other stages."""

    optimiser: OptimiserRecipe
    reward: RewardRecipe = RewardRecipe(kind="student")
    grpo: GrpoRecipe = GrpoRecipe(max_new_tokens=96)
    rollout: RolloutRecipe = RolloutRecipe()
    pair_sets: tuple[Path, ...] = ()


class MigrateRecipe(ConfigModel):
    """One student. ``pair_sets``: labels, as `distill.label` writes them; ``held_out``: what it is measured on."""

    name: str
    about: str
    model: ModelRecipe
    pair_sets: Annotated[tuple[Path, ...], Field(min_length=1)]
    held_out: tuple[Path, ...] = ()
    sft: SftStage | None = None
    logits: LogitStage | None = None
    grpo: GrpoStage | None = None
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    run: RunRecipe

    @model_validator(mode="after")
    def _something_is_learnt(self) -> MigrateRecipe:
        if self.sft is None and self.logits is None and self.grpo is None:
            raise ValueError("at least one of sft, logits and grpo")
        self.stages()  # each is checked as a recipe of its own
        return self

    def stages(self) -> list[Stage]:
        """The stages in their order; each starts from where the one before it ended."""
        found: list[Stage] = []
        model = self.model
        for name in ("sft", "logits", "grpo"):
            part: SftStage | LogitStage | GrpoStage | None = getattr(self, name)
            if part is None:
                continue
            out = self.run.out / name
            weight = part.weight if isinstance(part, LogitStage) else 0.0
            grpo = part if isinstance(part, GrpoStage) else None
            recipe = Recipe(
                # The weight decides what a run gives: a run of another must not go on here.
                name=f"{self.name}-{name}" + (f"-{weight:g}" if weight else ""),
                stage="cold-start" if grpo is None else "grpo",
                about=self.about,
                model=model,
                data=DataRecipe(
                    pair_sets=(grpo.pair_sets if grpo is not None else ()) or self.pair_sets,
                    answers="student",
                    workers=self.workers,
                ),
                optimiser=part.optimiser,
                **({} if grpo is None else {"reward": grpo.reward, "grpo": grpo.grpo, "rollout": grpo.rollout}),
                run=self.run.model_copy(update={"out": out}),
            )
            found.append(Stage(name, recipe, weight))
            final = out / ("final" if model.lora is None else MERGED)
            model = model.model_copy(update={"path": str(final), "revision": None})
        return found


@dataclass(frozen=True)
class Stage:
    """``weight``: of the teacher's probabilities, 0 outside of "logits"."""

    name: StageName
    recipe: Recipe
    weight: float


def migrate_recipe_names() -> tuple[str, ...]:
    """The recipes that are committed."""
    return tuple(sorted(file.stem for file in RECIPES.glob("*.yaml")))


def load_migrate_recipe(name: str, changes: Sequence[str] = ()) -> MigrateRecipe:
    """Read the committed recipe ``name``, or the file of that path, with ``changes`` ("sft.optimiser.batch=4") applied.

    Raises ConfigError, naming field, value and what is allowed.
    """
    return read_recipe(name, changes, MigrateRecipe, RECIPES)
