"""Engines: each compares a part with prepared references and returns Evidence.

Other packages add engines by an entry point of the group ``differad_edge.engines``: a callable that takes ``threads``
(int or None) and returns an :class:`differad_edge.engines.base.Engine`.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from differad_edge.config import LearningConfig
from differad_edge.engines.base import Engine
from differad_edge.errors import EngineError, UnknownEngineError

__all__ = ["ENTRY_POINT_GROUP", "create_engine", "engine_names"]

ENTRY_POINT_GROUP = "differad_edge.engines"
_BUILT_IN = ("lite",)


def engine_names() -> tuple[str, ...]:
    """Names that `create_engine` takes: the built-in ones, then those of installed plugins."""
    plugins = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_BUILT_IN, *sorted(plugins - set(_BUILT_IN)))


def create_engine(name: str, *, threads: int | None = None, learning: LearningConfig | None = None) -> Engine:
    """Build an engine; ``learning`` is for the embedded one.

    Raises UnknownEngineError, and EngineError when a plugin fails or gives something else."""
    if name == "lite":
        from differad_edge.engines.lite import LiteEngine

        return LiteEngine(threads=threads, learning=learning)
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            engine = point.load()(threads=threads)
        except Exception as error:  # a plugin's code
            raise EngineError(f"engine {name!r}: its plugin failed: {type(error).__name__}: {error}") from error
        if not isinstance(engine, Engine):
            raise EngineError(f"engine {name!r}: its plugin gave {type(engine).__name__}, allowed: an Engine")
        return engine
    raise UnknownEngineError(f"engine: got {name!r}, allowed: {', '.join(engine_names())}")
