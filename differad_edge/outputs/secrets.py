"""Secrets out of the environment: settings name the variable, and no message ever shows what it holds."""

from __future__ import annotations

import os

from differad_edge.errors import ConfigError

__all__ = ["from_environment"]


def from_environment(name: str | None, *, setting: str, at_least: int = 1) -> str | None:
    """The value of the variable ``name``, None without a name.

    ``at_least``: characters. Raises ConfigError when the variable is not set or too short.
    """
    if name is None:
        return None
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(f"{setting}: the environment variable {name} is not set, allowed: one that holds the secret")
    if len(value) < at_least:
        raise ConfigError(
            f"{setting}: the environment variable {name} is too short, allowed: at least {at_least} characters"
        )
    return value
