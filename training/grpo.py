"""GRPO: ``python -m training.grpo RECIPE [key=value ...]``; on several devices with ``accelerate launch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from differad_edge.errors import MissingExtraError, TrainingError
from training.launch import adapters, load_model, main, run_arguments, set_up, training_rows
from training.recipe import Recipe, RolloutRecipe
from training.resume import begin, run
from training.reward_functions import reward_set

if TYPE_CHECKING:
    from training.grpo_trainer import DifferenceGrpoTrainer


def grpo_trainer(recipe: Recipe, trainer: type[DifferenceGrpoTrainer] | None = None) -> DifferenceGrpoTrainer:
    """The trainer for this recipe, ready to train; ``trainer``: a class of one's own in place of DifferenceGrpoTrainer.

    Raises MissingExtraError without the training packages, TrainingError for too few pairs, or for what they refuse.
    """
    try:
        from trl import GRPOConfig

        from training.grpo_trainer import DifferenceGrpoTrainer
    except ImportError as exc:
        raise MissingExtraError("train", exc.name or "trl") from exc
    rewards, grpo, rows = reward_set(recipe.reward), recipe.grpo, training_rows(recipe)
    completions = recipe.optimiser.batch * recipe.optimiser.accumulation * recipe.run.gpus
    if len(rows) < completions // grpo.generations:
        raise TrainingError(
            f"data: got {len(rows)} pairs, allowed: at least {completions // grpo.generations}, one for each of the "
            f"groups of {grpo.generations} in a step of {completions} completions"
        )
    with set_up():
        model, processor = load_model(recipe.model, recipe.weights_dtype)
        arguments = GRPOConfig(
            **run_arguments(recipe),
            **_rollout(recipe.rollout),
            num_generations=grpo.generations,
            temperature=grpo.temperature,
            top_k=grpo.top_k,
            max_completion_length=grpo.max_new_tokens,
            beta=grpo.kl_beta,
            epsilon=grpo.epsilon,
            loss_type=grpo.loss,
            scale_rewards=grpo.scale_rewards,
            reward_weights=list(rewards.weights),
            model_init_kwargs=None if recipe.model.revision is None else {"revision": recipe.model.revision},
            shuffle_dataset=recipe.data.shuffle,
        )
        return (trainer or DifferenceGrpoTrainer)(
            rewards=rewards,
            grpo=grpo,
            model=model,
            args=arguments,
            train_dataset=rows,
            processing_class=processor,
            peft_config=adapters(recipe.model),
        )


def train(recipe: Recipe) -> None:
    """Train, from the last checkpoint in the run's folder where there is one, and write ``OUT/final``.

    Nothing is done where that is there already. Raises TrainingError, see `training.resume`.
    """
    if begin(recipe):
        run(grpo_trainer(recipe), recipe)


def _rollout(recipe: RolloutRecipe) -> dict[str, Any]:
    if recipe.backend == "transformers":
        return {}
    mode = recipe.backend.removeprefix("vllm-")
    server = {"vllm_server_base_url": recipe.server_url} if mode == "server" else {}
    return {
        "use_vllm": True,
        "vllm_mode": mode,
        "vllm_gpu_memory_utilization": recipe.gpu_memory_share,
        "vllm_tensor_parallel_size": recipe.tensor_parallel,
        **server,
    }


if __name__ == "__main__":
    raise SystemExit(main("grpo", train))
