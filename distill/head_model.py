"""The box head as it is trained, and the student that it is trained for, whose weights stay as they are.

The question is read once for each pair and without gradients; what learns are five rows behind it. Rows of several
pairs go through the layers together, each pair against the keys and values of its own question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from differad_edge.engines.vlm.box_head import BINS, QUERIES, BoxHead
from differad_edge.engines.vlm.modules import BufferMemory, Decoder, Vision

if TYPE_CHECKING:
    from differad_edge.engines.vlm.load import LoadedStudent
    from differad_edge.images import Image

__all__ = ["FrozenStudent", "TrainedHead"]

_NOISE = 0.1  # of the first queries, as a share of the embedding that they begin as


class TrainedHead(nn.Module):
    """Queries and two linear maps, in float32. ``start``: (width,) embedding that every query begins as.

    The maps begin at zero: no verdict and no place is likelier than another.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        begun = start.detach().float().expand(QUERIES, -1)
        self.queries = nn.Parameter(begun + _NOISE * begun.std() * torch.randn(begun.shape).to(begun))
        self.verdict = nn.Linear(len(start), 1, device=start.device)
        self.bins = nn.Linear(len(start), BINS, device=start.device)
        for parameter in (*self.verdict.parameters(), *self.bins.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 5, width) float32 hidden states to (N,) verdicts and (N, 4, 1001) bins, both logits."""
        return self.verdict(hidden[:, 0])[:, 0], self.bins(hidden[:, 1:])

    def to_box_head(self, model: str) -> BoxHead:
        """As the engine takes it. ``model``: SHA-256 of the weights that it was trained for."""
        tensors = (self.queries, self.verdict.weight[0], self.verdict.bias, self.bins.weight, self.bins.bias)
        return BoxHead(model, *(tensor.detach().float().cpu().numpy() for tensor in tensors))


class FrozenStudent:
    """A loaded student, which gives its verdict first, on its device. Its parameters need no gradients any more."""

    def __init__(self, loaded: LoadedStudent) -> None:
        weights, self._layout = loaded.weights.requires_grad_(False), loaded.question.layout
        self._vision = Vision(weights.model.visual, self._layout.size, loaded.mean, loaded.std).eval()
        self._decoder = Decoder(weights, self._layout).eval()
        self.device, self.dtype = weights.device, weights.dtype
        text = weights.config.text_config
        self._shape = (text.num_hidden_layers, 2, text.num_key_value_heads, self._layout.length, text.head_dim)
        # After NG a box follows: from there a query has the least to learn.
        verdicts = loaded.question.grammar.verdicts
        assert verdicts  # a student's grammar has them
        self.start: Tensor = self._decoder.embed(torch.tensor(verdicts[1], device=self.device))

    def read(self, reference: Image, target: Image) -> Tensor:
        """(layers, 2, kv_heads, length, head): keys and values of the question about two HxWx3 uint8 BGR canvases."""
        first = self._layout.prefix_length
        with torch.no_grad():
            kept = torch.zeros(self._shape, dtype=self.dtype, device=self.device)
            features, deep = self._seen(reference)
            self._decoder.read_prefix(features, deep, self._memory(kept, 0, first))
            features, deep = self._seen(target)
            self._decoder.read_tail(features, deep, self._memory(kept, first, self._layout.tail_length))
        return kept

    def ask(self, queries: Tensor, questions: Sequence[Tensor]) -> Tensor:
        """(N, Q, width) float32 hidden states of (Q, width) queries behind each of N questions that were read."""
        count = len(queries)
        after = torch.arange(count, device=self.device) + self._layout.length + self._layout.position_delta
        x, positions = queries.to(self.dtype).repeat(len(questions), 1), after.repeat(len(questions))
        hidden = self._decoder.read_at(x, positions, _Questions(questions, count))
        return hidden.float().reshape(len(questions), count, -1)

    def _seen(self, canvas: Image) -> tuple[Tensor, Tensor]:
        features: tuple[Tensor, Tensor] = self._vision(torch.from_numpy(canvas).to(self.device))
        return features

    def _memory(self, kept: Tensor, start: int, count: int) -> BufferMemory:
        return BufferMemory(kept, torch.tensor([start], device=self.device), count)


class _Questions:
    """Memory of several questions side by side, each with ``count`` rows behind it."""

    def __init__(self, questions: Sequence[Tensor], count: int) -> None:
        self._questions, self._count = questions, count
        length = questions[0].shape[3]
        rows = torch.arange(length, length + count, device=questions[0].device)
        self._seen = torch.arange(length + count, device=rows.device) <= rows[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See Memory; the rows of one question stand one behind the other."""
        several = (len(self._questions), self._count)
        query, key, value = (x.reshape(len(x), *several, -1).transpose(0, 1) for x in (query, key, value))
        keys, values = (
            torch.cat([torch.stack([question[layer, kind] for question in self._questions]), rows], dim=2)
            for kind, rows in ((0, key), (1, value))
        )
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=self._seen, enable_gqa=True)
        return mixed.transpose(0, 1).flatten(1, 2)
