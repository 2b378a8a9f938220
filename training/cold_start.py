"""Cold start: supervised fine-tuning on pairs with a reasoned answer, before any reward.

DifferAD-R1 starts from UniVG-R1, which learned to reason before it grounds (stage 1); IAD-R1 calls the same step
PA-SFT, on Expert-AD. ``python -m training.cold_start RECIPE [key=value ...]``; with several devices through
``accelerate launch`` or ``torchrun``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from differad_edge.errors import MissingExtraError, TrainingError
from training.launch import adapters, load_model, main, run_arguments, set_up, training_rows
from training.recipe import Recipe
from training.resume import LoadsWholeCheckpoints, begin, run

if TYPE_CHECKING:
    from trl import SFTTrainer


def cold_start_trainer(recipe: Recipe) -> SFTTrainer:
    """TRL's trainer for this recipe, ready to train. The loss is taken on the answer's tokens alone."""
    try:
        from torch.utils.data import SequentialSampler
        from trl import SFTConfig, SFTTrainer
    except ImportError as exc:
        raise MissingExtraError("train", exc.name or "trl") from exc

    class ColdStartTrainer(LoadsWholeCheckpoints, SFTTrainer):  # type: ignore[misc]  # TRL's classes are Any here
        """SFTTrainer that reads the rows as they come where the recipe does not shuffle: a curriculum is an order."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if recipe.data.shuffle:
                return super()._get_train_sampler(train_dataset)
            return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    rows = training_rows(recipe)
    if not len(rows):
        raise TrainingError("data: got no pair that can be used, allowed: at least one")
    with set_up():
        model, processor = load_model(recipe.model, recipe.weights_dtype)
        return ColdStartTrainer(
            model=model,
            args=SFTConfig(**run_arguments(recipe), completion_only_loss=True, max_length=None),
            train_dataset=rows,
            processing_class=processor,
            peft_config=adapters(recipe.model),
        )


def train(recipe: Recipe) -> None:
    """Train, from the last checkpoint in the run's folder where there is one, and write ``OUT/final``.

    Nothing is done where that is there already. Raises TrainingError, see `training.resume`.
    """
    if begin(recipe):
        run(cold_start_trainer(recipe), recipe)


if __name__ == "__main__":
    raise SystemExit(main("cold-start", train))
