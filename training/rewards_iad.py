"""The rewards of IAD-R1 (four, structured) and LR-IAD (focal), for answers of Yes or No. NumPy only.

IAD-R1's answer to a defective part is ``<think>...</think><location>upper left</location><type>scratch</type>
<answer>Yes</answer>``, to a good part ``<think>...</think><answer>No</answer>``. LR-IAD's has neither
location nor type. A text that strays from this earns nothing: the tags and Yes or No are taken to the letter.
"""

from __future__ import annotations

import difflib
import math
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
_ROW_WORDS = {"upper": 0, "top": 0, "lower": 2, "bottom": 2}
_COLUMN_WORDS = {"left": 0, "right": 2}
_CENTRE_WORDS = frozenset({"center", "centre", "central", "middle"})
_CELLS = f"{', '.join(ROWS)} and {', '.join(COLUMNS)}, one of each or one alone"
_TAG = re.compile(r"<(/?)(think|location|type|answer)>")

Floats = NDArray[np.float64]


class Structured(NamedTuple):
    """The parts of an answer; None for a part that is not there. ``order``: the tags in the order they open."""

    order: tuple[str, ...]
    location: str | None
    type: str | None
    answer: str | None


@dataclass(frozen=True)
class TypeTaxonomy:
    """What counts as the same type of defect, nearly so, or of one kind.

    ``synonyms``: names for one type. ``categories``: types of one kind; one name of a set of synonyms stands for all.
    ``groups``: categories that lie close together. Names are in lower case, words separated by one space.
    The scores are IAD-R1's; the default tables are this project's own, made for common industrial defects.
    Raises TrainingError for a name that could never match, a name with two sets of synonyms, an unknown category.
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

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for names in self.synonyms:
            for name in names:
                if name in seen:
                    raise TrainingError(f"synonyms: {name!r} stands in two sets, allowed: each name once")
                seen.add(name)
        for name in seen.union(*self.categories.values()):
            if not name or name != _plain(name):
                raise TrainingError(f"taxonomy: got the name {name!r}, allowed: lower case, one space between words")
        for kind in frozenset().union(*self.groups) - set(self.categories):
            raise TrainingError(f"groups: got {kind!r}, allowed: {', '.join(self.categories)}")

    def score(self, said: str, true: str) -> float:
        """IAD-R1's type reward, 0 to 1: the first that holds of exact, semantic, category, fuzzy and group match.

        Case, punctuation and white space do not count.
        """
        first, second = _plain(said), _plain(true)
        if not first or not second:
            return 0.0
        if first == second:
            return EXACT
        names, others = self._names(first), self._names(second)
        if names == others:
            return SEMANTIC
        kinds, other_kinds = self._kinds(names), self._kinds(others)
        if kinds & other_kinds:
            return CATEGORY
        matcher = difflib.SequenceMatcher(None, first, second)
        # The bound from the lengths first: ratio() takes long for a long text, and that one is never similar.
        if matcher.real_quick_ratio() >= FUZZY_FROM and (similarity := matcher.ratio()) >= FUZZY_FROM:
            return FUZZY * similarity
        return GROUP if any(kinds & group and other_kinds & group for group in self.groups) else 0.0

    def _names(self, name: str) -> frozenset[str]:
        """The name with all its synonyms."""
        return next((names for names in self.synonyms if name in names), frozenset({name}))

    def _kinds(self, names: frozenset[str]) -> frozenset[str]:
        return frozenset(kind for kind, members in self.categories.items() if names & members)


@dataclass(frozen=True)
class FocalConfig:
    """LR-IAD's R_focal = alpha * (1 - p)^gamma * f, which favours right answers of the rare kind.

    LR-IAD publishes neither alpha and gamma nor what p and f are; this is the project's choice. ``p``: share of the
    true answer (Yes or No) among the training pairs, so that a rare defect found moves the model more than a common
    good part passed, as long as rewards are not divided by their spread in the group, where p is the same for all; it
    could also be the model's probability of its answer, as in focal loss, which would need log-probabilities that a
    reward does not see. ``f``: what a right answer is worth; a wrong one is worth 0.

    ``alpha``: scale, from 0; 1 keeps the reward within [0, 1] as the others are. ``gamma``: how much rarity counts,
    from 0 (not at all); 2 is focal loss's usual value (Lin et al., 2017). ``defect_share``: p of the defective parts,
    0 to 1; one half, for pairs made in equal numbers. ``f``: from 0. Raises TrainingError for other values.
    """

    alpha: float = 1.0
    gamma: float = 2.0
    defect_share: float = 0.5
    f: float = 1.0

    def __post_init__(self) -> None:
        for name, value, high in (
            ("alpha", self.alpha, math.inf),
            ("gamma", self.gamma, math.inf),
            ("defect_share", self.defect_share, 1.0),
            ("f", self.f, math.inf),
        ):
            if not (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and math.isfinite(value)
                and 0 <= value <= high
            ):
                limit = "a finite number from 0" if high == math.inf else f"0 to {high:g}"
                raise TrainingError(f"{name}: got {value!r}, allowed: {limit}")


def read_structured(text: str) -> Structured | None:
    """The parts of an answer, in time linear in its length.

    None for a tag without its end, within another or there twice, for text outside the tags, and for more than
    MAX_ANSWER_CHARS characters.
    """
    if not isinstance(text, str) or len(text) > MAX_ANSWER_CHARS:
        return None
    parts: dict[str, str] = {}
    at, tags = 0, list(_TAG.finditer(text))
    if len(tags) % 2:
        return None
    for opening, closing in zip(tags[::2], tags[1::2], strict=True):
        name = opening[2]
        if opening[1] or not closing[1] or closing[2] != name or name in parts or text[at : opening.start()].strip():
            return None
        parts[name] = text[opening.end() : closing.start()].strip()
        at = closing.end()
    if text[at:].strip():
        return None
    return Structured(tuple(parts), parts.get("location"), parts.get("type"), parts.get("answer"))


def consistency_reward(texts: Sequence[str]) -> Floats:
    """IAD-R1's consistency reward, (N,): 1 where the structure fits the answer, else 0.

    Yes: think, location, type, answer, in this order, location and type not empty. No: think, answer.
    """
    return np.array([float(_is_consistent(read_structured(text))) for text in texts], dtype=np.float64)


def _is_consistent(said: Structured | None) -> bool:
    if said is None:
        return False
    if said.answer == DEFECT:
        return said.order == ("think", "location", "type", "answer") and bool(said.location and said.type)
    return said.answer == GOOD and said.order == ("think", "answer")


def accuracy_reward(
    texts: Sequence[str],
    locations: Sequence[str | None],
    types: Sequence[str | None],
    taxonomy: TypeTaxonomy | None = None,
) -> Floats:
    """IAD-R1's accuracy reward, (N,) in [0, 2].

    A good part (its row of ``types`` is None): 1 for No, else 0. A defective one: 1 + (type + location) / 2 for Yes,
    else 0; with None for a row of ``locations``, no location earns anything. Raises TrainingError for sequences of
    unequal lengths, a type that is no text and a location that names no cell.
    """
    _same_length(texts, locations=locations, types=types)
    table = taxonomy or TypeTaxonomy()
    rewards = np.zeros(len(texts))
    for row, (text, location, kind) in enumerate(zip(texts, locations, types, strict=True)):
        said = read_structured(text)
        if kind is None:
            rewards[row] = float(said is not None and said.answer == GOOD)
            continue
        if not isinstance(kind, str):
            raise TrainingError(f"types: row {row} is {kind!r}, allowed: a text, or None for a good part")
        if location is not None and (not isinstance(location, str) or cell_of(location) is None):
            raise TrainingError(f"locations: row {row} is {location!r}, allowed: {_CELLS}")
        if said is not None and said.answer == DEFECT:
            rewards[row] = 1.0 + (table.score(said.type or "", kind) + location_score(said.location, location)) / 2
    return rewards


def location_score(said: str | None, true: str | None) -> float:
    """1 where both texts name the same cell of a 3x3 grid ("upper left", "centre", "bottom"), else 0."""
    first, second = cell_of(said or ""), cell_of(true or "")
    return float(first is not None and first == second)


def cell_of(text: str) -> tuple[int, int] | None:
    """Row and column, 0 to 2, that a text names; a missing one is the middle. None where it names none, or two."""
    words = re.findall(r"[a-z]+", text.lower())
    rows = {_ROW_WORDS[word] for word in words if word in _ROW_WORDS}
    columns = {_COLUMN_WORDS[word] for word in words if word in _COLUMN_WORDS}
    central = not _CENTRE_WORDS.isdisjoint(words)
    if len(rows) > 1 or len(columns) > 1 or not 1 <= len(rows) + len(columns) + central <= 2:
        return None
    return next(iter(rows), 1), next(iter(columns), 1)


def focal_reward(texts: Sequence[str], defective: Sequence[bool], config: FocalConfig) -> Floats:
    """R_focal of LR-IAD, (N,): alpha * (1 - p)^gamma * f for a right answer, 0 for a wrong one or none.

    Raises TrainingError for sequences of unequal lengths.
    """
    _same_length(texts, defective=defective)
    rewards = np.zeros(len(texts))
    for row, (text, defect) in enumerate(zip(texts, defective, strict=True)):
        said = read_structured(text)
        share = config.defect_share if defect else 1.0 - config.defect_share
        if said is not None and said.answer == (DEFECT if defect else GOOD):
            rewards[row] = config.alpha * (1.0 - share) ** config.gamma * config.f
    return rewards


def yes_no_format_reward(texts: Sequence[str]) -> Floats:
    """LR-IAD's binary format reward, (N,): 1 for a thought and then Yes or No, else 0."""
    answers = map(read_structured, texts)
    right = [s is not None and s.order == ("think", "answer") and s.answer in (DEFECT, GOOD) for s in answers]
    return np.array(right, dtype=np.float64)


def _plain(name: str) -> str:
    """In lower case, the words separated by one space: "Broken_large" and "broken-large" are the same."""
    return " ".join(re.findall(r"[^\W_]+", name.lower()))


def _same_length(texts: Sequence[str], **columns: Sequence[object]) -> None:
    for name, column in columns.items():
        if len(column) != len(texts):
            raise TrainingError(f"{name}: got {len(column)} rows for {len(texts)} texts, allowed: as many")
