"""The engine "remote": a model on an OpenAI-compatible server (vLLM and others) is asked about each part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from differad_edge.config import ModelConfig
from differad_edge.engines.chat import ChatServer
from differad_edge.engines.grounded import GroundedEngine, Said, answer_probability

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline
    from differad_edge.images import Image

__all__ = ["RemoteEngine"]


class RemoteEngine(GroundedEngine):
    """Asks ``model.path`` on ``model.server``; see `ChatServer`. One instance is used by one thread at a time.

    Raises EngineServerError when the server does not answer or does not have the model.
    """

    name = "remote"

    def __init__(self, model: ModelConfig) -> None:
        assert model.server is not None
        assert model.path is not None
        self._chat = ChatServer(model.server, model.path)
        named = f"{self._chat.server} {model.path}"
        super().__init__(model=named, prompt=model.prompt, max_new_tokens=model.max_new_tokens)

    def ask(self, reference: Image, target: Image, deadline: Deadline | None) -> Said:
        """One chat completion: both images as PNG and the prompt, at temperature 0."""
        images = (reference, target)
        content = (self.prompt, *images) if self.text_first else (*images, self.prompt)
        (reply,) = self._chat.ask(content, max_tokens=self.max_new_tokens, deadline=deadline)
        return Said(reply.text, answer_probability([(token.text, token.logprob) for token in reply.tokens]))
