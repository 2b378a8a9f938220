"""What the settings of all outputs have in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, PositiveFloat, field_validator

from differad_edge.config import ConfigModel

__all__ = ["OutputSettings", "host_and_port", "is_loopback", "variable"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[?::1\]?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def _plain_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("letters, digits, '.', '_' and '-', at most 64, the first a letter or digit")
    return value


def variable(value: str | None) -> str | None:
    """Refuses what is no name of an environment variable."""
    if value is not None and not _VARIABLE.fullmatch(value):
        raise ValueError("the name of an environment variable, which holds the secret")
    return value


def is_loopback(host: str) -> bool:
    """Whether it is this machine, whatever its network does."""
    return _LOOPBACK.fullmatch(host) is not None


def host_and_port(value: str) -> str:
    """Refuses what is no address to listen at."""
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("HOST:PORT such as 127.0.0.1:5020")
    return value


class OutputSettings(ConfigModel):
    """What every output has."""

    type: str
    name: str
    """Each once; in metrics, alarms and the status."""
    station: str | None = None
    """Only its results; None: those of all stations."""
    durable: bool = False
    """Results come again from the journal after a broken connection or a restart, until each is confirmed once."""
    capacity: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Results that wait in memory; then the oldest is dropped or, where it is durable, read from the journal later."""
    most_behind: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    """Of a durable output: more results than these are not made up for; the oldest are dropped."""
    retry_min_ms: PositiveFloat = 250.0
    """Pause before the next attempt; it doubles, less up to a half at random, ..."""
    retry_max_ms: PositiveFloat = 30_000.0
    """... up to this."""

    _name = field_validator("name")(_plain_name)
