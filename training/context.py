"""Whether a pair's question and answer fit the model's context; a run of hours would end on the first that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from differad_edge.engines.vlm.checkpoint import load_processor
from differad_edge.errors import MissingExtraError, ModelIntegrityError
from differad_edge.grounding import TRAINING_PROMPTS, Message, messages
from differad_edge.pairs import Pair
from training.data import truth_of
from training.formats import FORMATS
from training.preflight import SizePx
from training.recipe import ModelRecipe, Recipe
from training.student import working_size

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@dataclass(frozen=True)
class Context:
    """A ``preflight.Check`` of a recipe for a model of ``limit`` positions.

    ``question``: the longest that a pair may be asked. ``canvas_px``: the size at which a student sees every image,
    None where each keeps its own. Image tokens follow from the sizes by the processor's rule, without a look at pixels.
    """

    recipe: Recipe
    processor: ProcessorMixin
    limit: int
    question: list[Message]
    canvas_px: SizePx | None = None

    def __call__(self, pair: Pair, reference_px: SizePx, target_px: SizePx) -> str | None:
        tokens = self.tokens(pair, reference_px, target_px)
        if tokens <= self.limit:
            return None
        return f"{pair.where}: question and answer take {tokens} tokens, allowed: {self.limit}, the model's context"

    def tokens(self, pair: Pair, reference_px: SizePx, target_px: SizePx) -> int:
        """Of the question and the pair's answer, or the longest that is sampled."""
        images = sum(self._image_tokens(self.canvas_px or size) - 1 for size in (reference_px, target_px))
        if self.recipe.stage == "grpo":
            return images + text_tokens(self.processor, self.question) + self.recipe.grpo.max_new_tokens
        said = FORMATS[self.recipe.data.answers].answer(truth_of(pair, *target_px))
        return images + text_tokens(self.processor, self.question, said)

    def _image_tokens(self, size: SizePx) -> int:
        images = self.processor.image_processor
        tokens: int = images.get_number_of_image_patches(size[1], size[0], {}) // images.merge_size**2
        return tokens


def context_of(recipe: Recipe) -> Context | None:
    """The check of this recipe; None for a model whose configuration names no limit.

    Raises MissingExtraError without the training packages, ModelIntegrityError for what is no checkpoint.
    """
    limit = _positions(recipe.model)
    if limit is None:
        return None
    size = working_size(recipe.model) if recipe.is_student else None
    processor = load_processor(recipe.model.path, revision=recipe.model.revision)
    answers = recipe.data.answers
    questions = [FORMATS[answers].chat(0, 0)]
    if answers == "difference":  # which of them a pair is asked follows from its place among those that are left
        questions = [messages(text) for text in TRAINING_PROMPTS]
    longest = max(questions, key=lambda question: text_tokens(processor, question))
    return Context(recipe, processor, limit, longest, None if size is None else (size.width_px, size.height_px))


def text_tokens(processor: ProcessorMixin, question: list[Message], said: str | None = None) -> int:
    """Tokens of a chat, each of its images counted as one."""
    chat = question if said is None else [*question, {"role": "assistant", "content": said}]
    text = processor.apply_chat_template(chat, add_generation_prompt=said is None)
    ids: list[int] = processor.tokenizer(text).input_ids
    return len(ids)


def _positions(recipe: ModelRecipe) -> int | None:
    try:
        from transformers import AutoConfig
    except ImportError as exc:
        raise MissingExtraError("train", exc.name or "transformers") from exc
    try:
        config = AutoConfig.from_pretrained(recipe.path, revision=recipe.revision).get_text_config()
    except Exception as exc:  # a wrong config fails wherever it is first used
        first = (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]
        raise ModelIntegrityError(f"model: {recipe.path} cannot be loaded: {first}") from exc
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None
