"""Who labels: a checkpoint in this process through transformers, or any OpenAI-compatible server (vLLM on many GPUs).

Both answer several times to one question, and tell how probable the tokens were in each place, which the students learn
from too.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from differad_edge.config import ConfigModel
from differad_edge.engines.chat import ChatServer, Reply, Token
from differad_edge.engines.vlm.checkpoint import load_model, load_processor, weights_identity
from differad_edge.errors import EngineError
from differad_edge.grounding import EVALUATION_PROMPT, messages
from distill.decisions import RANKS

if TYPE_CHECKING:
    from differad_edge.images import Image

__all__ = ["Teacher", "TeacherConfig", "teacher_of"]

TIMEOUT_S = 600.0  # of a request for several answers of 256 tokens, on a server with a full queue


class TeacherConfig(ConfigModel):
    """``model``: a folder, a hub id, or the server's name of it. ``server``: its address, None for this process."""

    model: str
    server: str | None = Field(default=None, pattern=r"^https?://[^/\s?#@]+(/[^\s?#]*)?$")
    samples: PositiveInt = 5
    temperature: PositiveFloat = 0.9
    max_new_tokens: PositiveInt = 256
    batch: PositiveInt = 8
    """Pairs that are asked about at once: in one batch here, side by side on a server."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """In this process; "auto": bfloat16 on a GPU, else float32."""
    seed: int = Field(default=0, ge=0, lt=2**32)


class Teacher(Protocol):
    """Answers about pairs of HxWx3 uint8 BGR images; ``identity`` tells its weights from others."""

    identity: str

    def answers(self, pairs: Sequence[tuple[Image, Image]], *, seed: int) -> list[list[Reply]]:
        """For each pair as many replies as the configuration says, each with its tokens and the most probable ones.

        Raises EngineError.
        """
        ...


def teacher_of(config: TeacherConfig) -> Teacher:
    """Raises MissingExtraError, ModelIntegrityError, ConfigError and EngineServerError."""
    return LocalTeacher(config) if config.server is None else ServerTeacher(config)


class ServerTeacher:
    """Asks a server; a vLLM server with ``--max-logprobs`` of at least RANKS tells what distillation needs.

    ``seed`` has no effect: the server draws.
    """

    def __init__(self, config: TeacherConfig) -> None:
        assert config.server is not None
        self._config, self._chat = config, ChatServer(config.server, config.model)
        self.identity = f"{self._chat.server} {config.model}"

    def answers(self, pairs: Sequence[tuple[Image, Image]], *, seed: int) -> list[list[Reply]]:
        """See Teacher."""
        with ThreadPoolExecutor(self._config.batch) as pool:
            return list(pool.map(self._ask, pairs))

    def _ask(self, pair: tuple[Image, Image]) -> list[Reply]:
        config = self._config
        return self._chat.ask(
            (*pair, EVALUATION_PROMPT),
            max_tokens=config.max_new_tokens,
            temperature=config.temperature,
            samples=config.samples,
            top=RANKS,
            timeout_s=TIMEOUT_S,
        )


class LocalTeacher:
    """Samples from a checkpoint, in batches; on the GPU where there is one."""

    def __init__(self, config: TeacherConfig) -> None:
        self._processor = load_processor(config.model)
        import torch  # load_processor has said what to install

        gpu = torch.cuda.is_available()
        dtype = ("bfloat16" if gpu else "float32") if config.dtype == "auto" else config.dtype
        self._model = load_model(config.model, dtype=dtype).eval().to("cuda" if gpu else "cpu")
        self._config = config
        self._text = self._processor.apply_chat_template(messages(EVALUATION_PROMPT), add_generation_prompt=True)
        self.identity = weights_identity(config.model)

    def answers(self, pairs: Sequence[tuple[Image, Image]], *, seed: int) -> list[list[Reply]]:
        """See Teacher."""
        import torch
        from PIL import Image as Pictures
        from transformers import LogitsProcessorList

        config, seen = self._config, _Watch()
        pictures = [[Pictures.fromarray(np.ascontiguousarray(image[..., ::-1])) for image in pair] for pair in pairs]
        inputs = self._processor(images=pictures, text=[self._text] * len(pairs), padding=True, return_tensors="pt")
        torch.manual_seed(seed)
        try:
            with torch.inference_mode():
                ids = self._model.generate(
                    **inputs.to(self._model.device),
                    max_new_tokens=config.max_new_tokens,
                    do_sample=True,
                    temperature=config.temperature,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=config.samples,
                    logits_processor=LogitsProcessorList([seen]),
                )
        except RuntimeError as exc:  # out of memory, most of all
            raise EngineError(f"teacher: generation failed: {str(exc).splitlines()[0][:200]}") from exc
        written = ids[:, inputs["input_ids"].shape[1] :].tolist()
        replies = [self._reply(row, number, seen) for number, row in enumerate(written)]
        return [replies[at : at + config.samples] for at in range(0, len(replies), config.samples)]

    def _reply(self, ids: list[int], number: int, seen: _Watch) -> Reply:
        tokenizer: Any = self._processor.tokenizer
        ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        tokens = []
        for place, token in enumerate(ids[:length]):
            top = [(tokenizer.decode([one]), logprob) for one, logprob in seen.top(place, number)]
            tokens.append(Token(tokenizer.decode([token]), seen.logprob(place, number, token), tuple(top)))
        return Reply(tokenizer.decode(ids[:length], skip_special_tokens=True), tuple(tokens))


class _Watch:
    """A logits processor that changes nothing: it comes before temperature, and keeps the most probable tokens."""

    def __init__(self) -> None:
        self._best: list[tuple[list[list[int]], list[list[float]]]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        best = scores.float().log_softmax(-1).topk(min(RANKS, scores.shape[-1]))
        self._best.append((best.indices.tolist(), best.values.tolist()))
        return scores

    def top(self, place: int, row: int) -> list[tuple[int, float]]:
        """Ids and log-probabilities of the most probable tokens of a row's ``place``."""
        ids, values = self._best[place]
        return list(zip(ids[row], values[row], strict=True))

    def logprob(self, place: int, row: int, token: int) -> float:
        """Of the token that was drawn; minus infinity for one that was not among the most probable."""
        return dict(self.top(place, row)).get(token, float("-inf"))
