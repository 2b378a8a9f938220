"""The engine "vlm": a Qwen-VL checkpoint that answers through transformers' ``generate``.

Everything is computed anew for each part, the reference too. It is how a checkpoint is evaluated, and what a faster
engine is measured against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from differad_edge.config import ModelConfig
from differad_edge.engines.grounded import GroundedEngine, Said, answer_probability
from differad_edge.engines.vlm.checkpoint import chat_text, load_model, load_processor, weights_identity
from differad_edge.errors import EngineError
from differad_edge.grounding import messages, student_messages

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline
    from differad_edge.images import Image

__all__ = ["GenerateEngine"]


class GenerateEngine(GroundedEngine):
    """Greedy answers of ``model.path``, a folder or hub id; on CUDA in bfloat16 where there is a GPU, else in float32.

    ``threads``: of PyTorch on the CPU, None for its own choice.

    Raises MissingExtraError, and ModelIntegrityError for what is no checkpoint of the Qwen-VL family.
    """

    name = "vlm"

    def __init__(self, model: ModelConfig, *, threads: int | None = None) -> None:
        assert model.path is not None
        self._processor = load_processor(model.path)
        import torch  # load_processor has said what to install

        gpu = torch.cuda.is_available()
        self._model = load_model(model.path, dtype="bfloat16" if gpu else "float32").eval().to("cuda" if gpu else "cpu")
        if threads is not None:
            torch.set_num_threads(threads)
        super().__init__(model=weights_identity(model.path), prompt=model.prompt, max_new_tokens=model.max_new_tokens)
        chat = student_messages() if self.text_first else messages(self.prompt)
        self._text = chat_text(self._processor, chat)

    def ask(self, reference: Image, target: Image, deadline: Deadline | None) -> Said:
        """One greedy answer; past the deadline it breaks off after the token at hand."""
        import torch
        from PIL import Image as Pictures
        from transformers import StoppingCriteriaList

        pictures = [Pictures.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) for image in (reference, target)]
        inputs = self._processor(images=[pictures], text=[self._text], return_tensors="pt").to(self._model.device)
        stop = [] if deadline is None else [lambda ids, scores, **_: torch.full((len(ids),), deadline.expired)]
        try:
            with torch.inference_mode():
                made = self._model.generate(
                    **inputs,
                    max_new_tokens=self.max_new_tokens,
                    do_sample=False,
                    return_dict_in_generate=True,
                    output_logits=True,
                    stopping_criteria=StoppingCriteriaList(stop),
                )
        except RuntimeError as exc:  # out of memory, most of all
            raise EngineError(f"generation failed: {str(exc).splitlines()[0][:200]}") from exc
        ids = made.sequences[0, inputs["input_ids"].shape[1] :]
        tokenizer = self._processor.tokenizer
        pieces = [
            (tokenizer.decode(token), float(logits[0].float().log_softmax(-1)[token]))
            for token, logits in zip(ids, made.logits, strict=True)
        ]
        return Said(tokenizer.decode(ids, skip_special_tokens=True), answer_probability(pieces))
