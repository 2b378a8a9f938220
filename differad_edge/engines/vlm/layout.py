"""The question to the student as constants: tokens, positions and image slots of one prompt at one working size.

The reference stands before everything that changes from part to part::

    prefix  <|im_start|>user ... instruction <|vision_start|> REFERENCE <|vision_end|><|vision_start|>   once
    tail    TARGET <|vision_end|><|im_end|> <|im_start|>assistant <answer>                               per part

so that its vision features and its keys and values are computed once. Positions are Qwen's three (time, row, column):
text moves all three on by one a token, an image spans its rows and columns and moves on by the longer side. They are
part of the layout because a tail that is given its own index, or none, is silently wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import ConfigError

__all__ = ["Fit", "Layout", "WorkingSize", "positions_of"]

Fit = Literal["stretch", "letterbox"]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class WorkingSize:
    """The size at which the model sees every image, whatever the camera's.

    ``fit``: "stretch" gives both sides the working size; "letterbox" keeps the aspect and leaves the rest grey.
    ``patch_px``, ``merge``: the model's; a token covers patch_px x merge pixels a side.

    Raises ConfigError for a side that is no whole number of tokens.
    """

    width_px: int = 800
    height_px: int = 800
    fit: Fit = "stretch"
    patch_px: int = 16
    merge: int = 2

    def __post_init__(self) -> None:
        token_px = self.patch_px * self.merge
        for name, side in (("width_px", self.width_px), ("height_px", self.height_px)):
            if side < token_px or side % token_px:
                raise ConfigError(f"{name}: got {side}, allowed: a multiple of {token_px}")

    @property
    def rows(self) -> int:
        """Tokens along the height."""
        return self.height_px // (self.patch_px * self.merge)

    @property
    def columns(self) -> int:
        """Tokens along the width."""
        return self.width_px // (self.patch_px * self.merge)

    @property
    def tokens(self) -> int:
        """Of one image: 625 at 800x800."""
        return self.rows * self.columns

    @property
    def patch_rows(self) -> int:
        """Patches along the height, before they are merged."""
        return self.height_px // self.patch_px

    @property
    def patch_columns(self) -> int:
        """Patches along the width, before they are merged."""
        return self.width_px // self.patch_px


@dataclass(frozen=True)
class Layout:
    """Token ids around the images.

    ``before``: up to the reference; ``between``: from it to the target; ``after``: from there to the answer;
    ``capacity``: how many keys and values are kept, enough for the question and its answer.
    """

    size: WorkingSize
    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    capacity: int

    def __post_init__(self) -> None:
        if self.capacity <= self.length:
            raise ConfigError(
                f"capacity: got {self.capacity}, allowed: more than the {self.length} tokens of a question"
            )

    @property
    def prefix_length(self) -> int:
        """Tokens up to the target."""
        return len(self.before) + self.size.tokens + len(self.between)

    @property
    def tail_length(self) -> int:
        """Tokens from the target to the answer."""
        return self.size.tokens + len(self.after)

    @property
    def length(self) -> int:
        """Tokens of the whole question."""
        return self.prefix_length + self.tail_length

    @property
    def position_delta(self) -> int:
        """What is added to a token's index for its position, after the question."""
        return int(self.positions.max()) + 1 - self.length

    @property
    def positions(self) -> Positions:
        """(3, length): time, row and column of every token of the question."""
        image = (self.size.rows, self.size.columns)
        return positions_of([len(self.before), image, len(self.between), image, len(self.after)])

    def positions_after(self, count: int) -> Positions:
        """(3, count): of what is read behind the question, which is text."""
        return np.broadcast_to(np.arange(self.length, self.length + count) + self.position_delta, (3, count))

    def token_ids(self, image_token: int) -> list[int]:
        """The whole question, with ``image_token`` in the slots of both images."""
        image = [image_token] * self.size.tokens
        return [*self.before, *image, *self.between, *image, *self.after]


def positions_of(parts: Sequence[int | tuple[int, int]]) -> Positions:
    """(3, tokens) positions of texts, given by their lengths, and images, given by (rows, columns) of tokens."""
    at, found = 0, []
    for part in parts:
        if isinstance(part, int):
            found.append(np.broadcast_to(np.arange(at, at + part), (3, part)))
            at += part
        else:
            rows, columns = part
            row, column = np.divmod(np.arange(rows * columns), columns)
            found.append(np.stack([np.full(math.prod(part), at), at + row, at + column]))
            at += max(part)
    return np.concatenate(found, axis=1).astype(np.int64)
