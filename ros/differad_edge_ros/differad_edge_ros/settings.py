"""The node's parameters: typed, described, and refused with the reason when they are not allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from differad_edge.errors import ConfigError

__all__ = ["CHANGEABLE", "MODES", "PARAMETERS", "Parameter", "Settings", "check", "settings_from"]

MODES = ("engine", "server", "rehearsal")
TRANSPORTS = ("raw", "compressed")
_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # what can name a folder; the store has the last word
_ADDRESS = re.compile(r"tcp://[^\s/]+:\d{1,5}|ipc://.+")


@dataclass(frozen=True, slots=True)
class Settings:
    """All parameters, checked. An empty text and 0 mean "not set", because ROS has no other word for it."""

    mode: str = "engine"
    product: str = ""
    store: str = ""
    engine: str = "lite"
    model: str = ""
    threads: int = 0
    control: str = "tcp://127.0.0.1:5571"
    keys: str = ""
    station: str = ""
    timeout_ms: float = 5000.0
    deadline_ms: float = 0.0
    max_age_ms: float = 0.0
    image_transport: str = "raw"
    queue_depth: int = 4
    overlay: bool = True
    silence_s: float = 5.0
    autostart: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))


@dataclass(frozen=True, slots=True)
class Parameter:
    """``description`` and ``allowed`` are what ``ros2 param describe`` shows; ``changeable``: also while configured."""

    description: str
    allowed: str
    holds: Callable[[Any], bool]
    changeable: bool = False


def _number_from_0(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _text(value: str) -> bool:
    return "\0" not in value


PARAMETERS: dict[str, Parameter] = {
    "mode": Parameter(
        "Who inspects: the engine in this process, a running `differad-edge serve`, or nobody: a rehearsal takes "
        "images and answers UNDECIDED, to try topics and rates before there is a golden sample.",
        ", ".join(MODES),
        MODES.__contains__,
    ),
    "product": Parameter(
        "What parts are compared with; needed to activate the node.",
        "empty, or a product's id",
        lambda value: not value or _PRODUCT.fullmatch(value) is not None,
        changeable=True,
    ),
    "store": Parameter("Engine: folder of the products.", "empty: the user's data folder, or a path", _text),
    "engine": Parameter("Engine: its name.", "a name such as lite, vlm, cascade", lambda value: bool(value.strip())),
    "model": Parameter("Engine: checkpoint folder, hub id or export.", "empty, or a path or id", _text),
    "threads": Parameter(
        "Engine: threads that it may use.", "0 (as many as it likes) to 1024", lambda value: 0 <= value <= 1024
    ),
    "control": Parameter(
        "Server: address of its control socket.",
        "tcp://host:port or ipc://path",
        lambda value: _ADDRESS.fullmatch(value) is not None,
    ),
    "keys": Parameter("Server: the client's file of keys.", "empty, or a path", _text),
    "station": Parameter("Server: the station that inspects.", "empty (the only one), or its name", _text),
    "timeout_ms": Parameter(
        "Server: how long to wait for an answer where no deadline is set.",
        "a finite number above 0",
        lambda value: math.isfinite(value) and value > 0,
    ),
    "deadline_ms": Parameter(
        "From the image's arrival on; past it the part is UNDECIDED.",
        "0 (no deadline), or a finite number above 0",
        _number_from_0,
        changeable=True,
    ),
    "max_age_ms": Parameter(
        "An image whose stamp is older than this on arrival is UNDECIDED; needs synchronised clocks.",
        "0 (any age), or a finite number above 0",
        _number_from_0,
        changeable=True,
    ),
    "image_transport": Parameter(
        "Whether to subscribe to `image` or to `image/compressed`.", ", ".join(TRANSPORTS), TRANSPORTS.__contains__
    ),
    "queue_depth": Parameter(
        "Images that may wait; of what comes beyond, each is a counted drop.", "1 to 1000", lambda v: 1 <= v <= 1000
    ),
    "overlay": Parameter(
        "Whether to draw results while somebody subscribes to ~/overlay.",
        "true, false",
        lambda value: True,
        changeable=True,
    ),
    "silence_s": Parameter(
        "Diagnostics warn when no image came for so long while active.",
        "0 (never), or a finite number above 0",
        _number_from_0,
        changeable=True,
    ),
    "autostart": Parameter("Configure and activate at the start.", "true, false", lambda value: True),
}
CHANGEABLE = frozenset(name for name, parameter in PARAMETERS.items() if parameter.changeable)
_KINDS = {field.name: type(field.default) for field in fields(Settings)}


def check(name: str, value: Any) -> Any:
    """``value`` as the parameter holds it. Raises ConfigError naming the parameter, the value and what is allowed."""
    parameter = PARAMETERS.get(name)
    if parameter is None:
        raise ConfigError(f"parameter {name!r}: not known, allowed: {', '.join(PARAMETERS)}")
    kind = _KINDS[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or not parameter.holds(value):
        raise ConfigError(f"parameter {name}: got {value!r}, allowed: {parameter.allowed}")
    return value


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Settings out of parameters; what is not given has its default. Raises ConfigError."""
    for name in values:
        check(name, values[name])
    return Settings(**values)
