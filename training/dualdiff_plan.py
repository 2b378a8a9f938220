"""Which categories an AD-DualDiff has, and which of the pairs that could be made are taken.

The paper gives the numbers (13,003 pairs, 20 categories, three subsets); how they spread is not known, so that the rule
of `quotas` and `select` is our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from differad_edge.config import ConfigModel
from training.datasets import READERS

CATEGORIES_FILE = Path(__file__).parent / "dualdiff_categories.yaml"
SUBSETS = ("easy_structure", "common_logic", "complex_structure")

Text = Annotated[str, Field(min_length=1)]


class Category(ConfigModel):
    """A product of a public set, under the ``name`` that it has here.

    ``alignable``: whether a motion brings two good images of it into agreement; ``reported_in_paper``: whether the
    paper reports on an MVTec AD category of this name.
    """

    name: Text
    dataset: Text
    product: Text
    subset: Literal["easy_structure", "common_logic", "complex_structure"]
    alignable: bool = True
    reported_in_paper: bool = False


class Plan(ConfigModel):
    """The content of ``dualdiff_categories.yaml``. ``pairs``: how many are taken at the most."""

    pairs: PositiveInt
    categories: Annotated[tuple[Category, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Plan:
        names = [category.name for category in self.categories]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"category {twice[0]!r} stands there twice; allowed: each name once")
        for category in self.categories:
            if category.dataset not in READERS:
                raise ValueError(f"dataset {category.dataset!r} of {category.name!r}; allowed: {', '.join(READERS)}")
        return self


def quotas(available: Mapping[str, int], total: int) -> dict[str, int]:
    """How many of ``available`` each name gives so that all together are ``total``, as evenly as that is possible.

    Names that have fewer than an even share give all they have, and the others share what is left; what does not divide
    goes to those that have most. Where there are fewer than ``total``, all are taken.
    """
    given: dict[str, int] = {}
    left = total
    by_count = sorted(available, key=lambda name: available[name])
    for place, name in enumerate(by_count):
        share = left // (len(by_count) - place)
        given[name] = min(available[name], share)
        left -= given[name]
    return given


def select(records: Sequence[Mapping[str, Any]], total: int, seed: int) -> list[Mapping[str, Any]]:
    """``total`` of the records at the most, in their order: even over ``category``, and within it over ``target``.

    Every target gives its best pair (``place`` 0) before any gives its second; among equals the seed decides.
    """
    by_category: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        by_category.setdefault(record["category"], []).append(number)
    quota = quotas({name: len(numbers) for name, numbers in by_category.items()}, total)
    chance = np.random.default_rng(seed).permutation(len(records)).tolist()
    taken: set[int] = set()
    for name, numbers in by_category.items():
        taken.update(sorted(numbers, key=lambda number: (records[number]["place"], chance[number]))[: quota[name]])
    return [record for number, record in enumerate(records) if number in taken]
