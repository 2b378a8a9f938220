"""The rewards of IAD-R1 (four, structured) and LR-IAD (focal), for answers of Yes or No. NumPy only.

IAD-R1's answer to a defective part is ``<think>...</think><location>upper left</location><type>scratch</type>
<answer>Yes</answer>``, to a good part ``<think>...</think><answer>No</answer>``. LR-IAD's has neither
location nor type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import TrainingError
from differad_edge.grounding import MAX_ANSWER_CHARS

EXACT, SEMANTIC, CATEGORY, FUZZY, GROUP = 1.0, 0.85, 0.6, 0.4, 0.3  # IAD-R1's type reward
FUZZY_FROM = 0.7  # similarity from which two names count as spellings of one
DEFECT, GOOD = "Yes", "No"

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")
_ROW_WORDS = {"upper": 0, "top": 0, "middle": 1, "lower": 2, "bottom": 2}
_COLUMN_WORDS = {"left": 0, "middle": 1, "right": 2}
_CENTRE_WORDS = frozenset({"center", "centre", "central"})

Floats = NDArray[np.float64]


class Structured(NamedTuple):
    """The parts of an answer; None for a part that is not there. ``order``: the tags in the order they open."""

    order: tuple[str, ...]
    location: str | None
    type: str | None
    answer: str | None


@dataclass(frozen=True)
class TypeTaxonomy:
    """What counts as the same type of defect, nearly so, or of one kind. The default table is our own.

    ``synonyms``: names for one type. ``categories``: types of one kind. ``groups``: categories that lie close together.
    IAD-R1 published its scores but not its tables.
    """

    synonyms: Sequence[frozenset[str]] = (
        frozenset({"scratch", "scrape", "score", "abrasion"}),
        frozenset({"crack", "fracture", "fissure", "split"}),
        frozenset({"hole", "perforation", "puncture", "pin hole", "pinhole"}),
        frozenset({"stain", "contamination", "dirt", "smudge", "oil", "liquid", "glue"}),
        frozenset({"dent", "bump", "indentation", "deformation"}),
        frozenset({"bent", "bend", "twisted"}),
        frozenset({"missing", "missing part", "absent", "lack"}),
        frozenset({"broken", "chip", "chipped", "break", "broken large", "broken small"}),
        frozenset({"cut", "slit", "incision"}),
        frozenset({"colour", "color", "discoloration", "discolouration", "faded"}),
        frozenset({"misplaced", "shifted", "misaligned", "swapped", "cable swap", "flip"}),
        frozenset({"print", "faulty imprint", "misprint", "printing"}),
        frozenset({"thread", "fibre", "fiber", "foreign body", "foreign object"}),
    )
    categories: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: {
            "surface": frozenset({"scratch", "dent", "cut", "crack", "hole"}),
            "appearance": frozenset({"stain", "colour", "print", "thread"}),
            "shape": frozenset({"bent", "broken", "missing"}),
            "assembly": frozenset({"misplaced", "missing", "thread"}),
        }
    )
    groups: Sequence[frozenset[str]] = (frozenset({"surface", "appearance"}), frozenset({"shape", "assembly"}))

    def canonical(self, name: str) -> str:
        """One name for all synonyms; the normalised name itself where the table has none."""
        plain = _plain(name)
        for names in self.synonyms:
            if plain in names:
                return min(names & self._first_names or names)
        return plain

    @property
    def _first_names(self) -> frozenset[str]:
        return frozenset().union(*self.categories.values())

    def score(self, said: str, true: str) -> float:
        """IAD-R1's type reward, 0 to 1: exact, semantic, category, fuzzy or group match."""
        first, second = _plain(said), _plain(true)
        if not first or not second:
            return 0.0
        if first == second:
            return EXACT
        name, other = self.canonical(first), self.canonical(second)
        if name == other:
            return SEMANTIC
        kinds, others = self._kinds(name), self._kinds(other)
        if kinds & others:
            return CATEGORY
        similarity = difflib.SequenceMatcher(None, first, second).ratio()
        if similarity >= FUZZY_FROM:
            return FUZZY * similarity
        close = any(kinds & group and others & group for group in self.groups)
        return GROUP if close else 0.0

    def _kinds(self, name: str) -> frozenset[str]:
        return frozenset(kind for kind, names in self.categories.items() if name in names)


@dataclass(frozen=True)
class FocalConfig:
    """LR-IAD's R_focal = alpha * (1 - p)^gamma * f. Its constants are not published; these are our choice.

    ``alpha`` 1 and ``gamma`` 2 as in focal loss. ``p``: share of the true class among the training pairs, so that the
    rare class pays; ``f``: 1 for the right answer, else 0. ``defect_share``: p of the defective parts.
    """

    alpha: float = 1.0
    gamma: float = 2.0
    defect_share: float = 0.5

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("alpha", self.alpha, 0.0, np.inf),
            ("gamma", self.gamma, 0.0, np.inf),
            ("defect_share", self.defect_share, 0.0, 1.0),
        ):
            if not low <= value <= high:
                raise TrainingError(f"{name}: got {value!r}, allowed: {low:g} to {high:g}")


def read_structured(text: str) -> Structured | None:
    """The tags of an answer; None where one is missing its end, comes twice, or text stands between or around them."""
    if not isinstance(text, str) or len(text) > MAX_ANSWER_CHARS:
        return None
    rest, order, parts = text.strip(), [], {}
    while rest:
        opened = re.match(r"<(think|location|type|answer)>", rest)
        if opened is None or opened[1] in parts:
            return None
        inside, closed, after = rest[opened.end() :].partition(f"</{opened[1]}>")
        if not closed:
            return None
        order.append(opened[1])
        parts[opened[1]] = inside.strip()
        rest = after.lstrip()
    return Structured(tuple(order), parts.get("location"), parts.get("type"), parts.get("answer"))


def consistency_reward(texts: Sequence[str]) -> Floats:
    """1 where the structure fits the answer, else 0: location and type after the thought for Yes, neither for No."""
    right = {DEFECT: ("think", "location", "type", "answer"), GOOD: ("think", "answer")}
    return np.array(
        [float(s is not None and right.get(s.answer or "") == s.order) for s in map(read_structured, texts)]
    )


def accuracy_reward(
    texts: Sequence[str],
    locations: Sequence[str | None],
    types: Sequence[str | None],
    taxonomy: TypeTaxonomy | None = None,
) -> Floats:
    """IAD-R1's accuracy reward, (N,) in [0, 2].

    A good part (``types`` None): 1 for No, else 0. A defective one: 1 + (type + location) / 2 for Yes, else 0.
    """
    table = taxonomy or TypeTaxonomy()
    rewards = np.zeros(len(texts))
    for row, (text, location, kind) in enumerate(zip(texts, locations, types, strict=True)):
        said = read_structured(text)
        if said is None or said.answer != (GOOD if kind is None else DEFECT):
            continue
        if kind is None:
            rewards[row] = 1.0
        else:
            rewards[row] = 1.0 + (table.score(said.type or "", kind) + location_score(said.location, location)) / 2
    return rewards


def location_score(said: str | None, true: str | None) -> float:
    """1 where both texts name the same cell of a 3x3 grid ("upper left", "centre", "bottom"), else 0."""
    first, second = cell_of(said or ""), cell_of(true or "")
    return float(first is not None and first == second)


def cell_of(text: str) -> tuple[int, int] | None:
    """Row and column, 0 to 2, that a text names; a missing one is the middle. None where it names none, or two."""
    words = re.findall(r"[a-z]+", text.lower())
    rows = {_ROW_WORDS[word] for word in words if word in _ROW_WORDS and word != "middle"}
    columns = {_COLUMN_WORDS[word] for word in words if word in _COLUMN_WORDS and word != "middle"}
    central = any(word in _CENTRE_WORDS or word == "middle" for word in words)
    if len(rows) > 1 or len(columns) > 1 or not (rows or columns or central):
        return None
    return next(iter(rows), 1), next(iter(columns), 1)


def focal_reward(texts: Sequence[str], defective: Sequence[bool], config: FocalConfig) -> Floats:
    """R_focal of LR-IAD, (N,): alpha * (1 - p)^gamma for a right answer, 0 for a wrong one or none. See FocalConfig."""
    rewards = np.zeros(len(texts))
    for row, (text, defect) in enumerate(zip(texts, defective, strict=True)):
        said = read_structured(text)
        share = config.defect_share if defect else 1.0 - config.defect_share
        if said is not None and said.answer == (DEFECT if defect else GOOD):
            rewards[row] = config.alpha * (1.0 - share) ** config.gamma
    return rewards


def yes_no_format_reward(texts: Sequence[str]) -> Floats:
    """LR-IAD's binary format reward: 1 for a thought and then Yes or No, else 0."""
    return np.array(
        [
            float(said is not None and said.order == ("think", "answer") and said.answer in (DEFECT, GOOD))
            for said in map(read_structured, texts)
        ]
    )


def _plain(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))
