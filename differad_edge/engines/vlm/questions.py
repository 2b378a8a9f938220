"""From a checkpoint's own chat template and tokenizer to the constants of a question: its layout and its grammar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from differad_edge.engines.vlm.checkpoint import chat_text
from differad_edge.engines.vlm.grammar import AnswerTokens, answer_tokens
from differad_edge.engines.vlm.layout import Layout, WorkingSize
from differad_edge.errors import ModelIntegrityError
from differad_edge.grounding import EVALUATION_PROMPT, messages, student_messages

if TYPE_CHECKING:
    from transformers import ProcessorMixin

__all__ = ["AnswerOrder", "Question", "question_of"]

AnswerOrder = Literal["student", "trained"]
"""The student gives its verdict first; a teacher, trained in the paper's format, thinks before it answers."""

_IMAGE = "<|image_pad|>"


@dataclass(frozen=True)
class Question:
    """``order``: of the answer; ``stop``: tokens that end any answer; ``image_token``: in the slots of images.

    ``think_open``: tokens of <think> where the answer begins with it, else none.
    """

    layout: Layout
    grammar: AnswerTokens
    order: AnswerOrder
    stop: frozenset[int]
    image_token: int
    think_open: tuple[int, ...]


def question_of(processor: ProcessorMixin, size: WorkingSize, *, order: AnswerOrder, max_new_tokens: int) -> Question:
    """Render the prompt with the checkpoint's chat template and find its tokens.

    Raises ModelIntegrityError for a template that is missing, fails or has not two images, or a tokenizer that the
    grammar cannot be read with.
    """
    tokenizer: Any = processor.tokenizer
    chat = student_messages() if order == "student" else messages(EVALUATION_PROMPT)
    parts = chat_text(processor, chat).split(_IMAGE)
    image_token, end = tokenizer.convert_tokens_to_ids(_IMAGE), tokenizer.eos_token_id
    if len(parts) != 3 or image_token is None or end is None:
        raise ModelIntegrityError(f"chat template: got {len(parts) - 1} images marked by {_IMAGE}, allowed: 2")
    before, between, after = (tuple(tokenizer.encode(part, add_special_tokens=False)) for part in parts)
    first = order == "student"
    grammar = answer_tokens(_encoder_after(tokenizer, parts[2] if first else "</think>"), verdict_first=first)
    opening = grammar.opening if first else ()
    spare = max_new_tokens + grammar.longest
    question = len(before) + len(between) + len(after) + len(opening) + 2 * size.tokens
    return Question(
        layout=Layout(size, before, between, (*after, *opening), question + spare),
        grammar=grammar,
        order=order,
        stop=frozenset({end, tokenizer.convert_tokens_to_ids("<|endoftext|>")}),
        image_token=image_token,
        think_open=() if first else tuple(_encoder_after(tokenizer, parts[2])("<think>")),
    )


def _encoder_after(tokenizer: Any, before: str) -> Callable[[str], list[int]]:
    """Texts to tokens as they are written right after ``before``."""
    known: list[int] = tokenizer.encode(before, add_special_tokens=False)

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(before + text, add_special_tokens=False)
        if ids[: len(known)] != known:
            raise ModelIntegrityError(f"tokenizer: {text[:20]!r} changes the tokens of what stands before it")
        return ids[len(known) :]

    return encode
