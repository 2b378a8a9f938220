"""References that were read once, kept on the device up to a budget; those used longest ago make room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from differad_edge.engines.vlm.runner import Prefix

__all__ = ["Shelf"]


class Shelf:
    """Prefixes by key. ``budget_bytes``: of all together; the one in use is kept whatever its size."""

    def __init__(self, budget_bytes: float) -> None:
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[str, Prefix] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Held by all that is kept."""
        return sum(prefix.bytes for prefix in self._kept.values())

    def get(self, key: str, restore: Callable[[], Prefix]) -> Prefix:
        """The prefix of this key, from the shelf or, where it is not there, from ``restore``."""
        prefix = self._kept.pop(key, None)
        if prefix is None:
            prefix = restore()
        self._kept[key] = prefix
        while self.bytes > self._budget_bytes and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return prefix
