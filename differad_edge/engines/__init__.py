"""Engines: each compares a part with prepared references and returns Evidence.

Other packages add engines by an entry point of the group ``differad_edge.engines``: a callable that takes ``threads``
(int or None) and returns an :class:`differad_edge.engines.base.Engine`.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from differad_edge.config import CascadeConfig, LearningConfig, ModelConfig
from differad_edge.engines.base import Engine
from differad_edge.errors import ConfigError, EngineError, UnknownEngineError

__all__ = ["ENTRY_POINT_GROUP", "create_engine", "engine_names"]

ENTRY_POINT_GROUP = "differad_edge.engines"
_BUILT_IN = ("lite", "vlm", "remote", "cascade")


def engine_names() -> tuple[str, ...]:
    """Names that `create_engine` takes: the built-in ones, then those of installed plugins."""
    plugins = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_BUILT_IN, *sorted(plugins - set(_BUILT_IN)))


def create_engine(
    name: str,
    *,
    threads: int | None = None,
    learning: LearningConfig | None = None,
    model: ModelConfig | None = None,
    cascade: CascadeConfig | None = None,
) -> Engine:
    """Build an engine; ``learning`` is for the embedded one, ``model`` for those that ask a language model.

    Raises UnknownEngineError, ConfigError for a ``model`` that the engine cannot use, MissingExtraError, and
    EngineError when a plugin fails or gives something else, a checkpoint cannot be loaded or a server does not answer.
    """
    wanted = model if model is not None else ModelConfig()
    _check_model(name, wanted)
    if name == "lite":
        from differad_edge.engines.lite import LiteEngine

        return LiteEngine(threads=threads, learning=learning)
    if name == "vlm":
        from differad_edge.engines.vlm.load import vlm_engine

        return vlm_engine(wanted, threads=threads)
    if name == "remote":
        from differad_edge.engines.remote import RemoteEngine

        return RemoteEngine(wanted)
    if name == "cascade":
        return _cascade(wanted, cascade or CascadeConfig(), threads, learning)
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            engine = point.load()(threads=threads)
        except Exception as error:  # a plugin's code
            raise EngineError(f"engine {name!r}: its plugin failed: {type(error).__name__}: {error}") from error
        if not isinstance(engine, Engine):
            raise EngineError(f"engine {name!r}: its plugin gave {type(engine).__name__}, allowed: an Engine")
        return engine
    raise UnknownEngineError(f"engine: got {name!r}, allowed: {', '.join(engine_names())}")


def _cascade(model: ModelConfig, limits: CascadeConfig, threads: int | None, learning: LearningConfig | None) -> Engine:
    from differad_edge.engines.cascade import CascadeEngine
    from differad_edge.engines.lite import LiteEngine
    from differad_edge.engines.remote import RemoteEngine
    from differad_edge.engines.vlm.load import vlm_engine

    thorough = vlm_engine(model, threads=threads) if model.server is None else RemoteEngine(model)
    quick = LiteEngine(threads=threads, learning=learning)
    return CascadeEngine(quick, thorough, limits, describes=model.describe)


def _check_model(name: str, model: ModelConfig) -> None:
    """Raise ConfigError where settings of a language model are missing, or given to an engine that asks none."""
    needs = {"vlm": ("path",), "remote": ("path", "server"), "cascade": ("path",)}.get(name, ())
    takes = ("path", "server") if name == "cascade" else needs
    for field in ("path", "server"):
        value = getattr(model, field)
        if field in needs and value is None:
            option = "--model" if field == "path" else "--server"
            raise ConfigError(f"model.{field}: missing, and the engine {name!r} needs it ({option})")
        if field not in takes and value is not None:
            raise ConfigError(f"model.{field}: got {value!r}, allowed for the engine {name!r}: nothing")
