"""The settings that several kinds of outputs have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, field_validator, model_validator

from differad_edge.config import ConfigModel

__all__ = ["LOOPBACK", "BrokerSettings", "OutputSettings", "variable_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[?::1\]?")
"""Hosts that are this machine."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def _plain_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("letters, digits, '.', '_' and '-', at most 64, the first a letter or digit")
    return value


def variable_name(value: str | None) -> str | None:
    """A validator: the name of an environment variable."""
    if value is not None and not _VARIABLE.fullmatch(value):
        raise ValueError("the name of an environment variable, which holds the secret")
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


class BrokerSettings(OutputSettings):
    """How an MQTT 5 broker is reached."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """None: 8883 with TLS, 1883 without."""
    client_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """None: the broker gives one."""
    user_env: str | None = None
    """Name of the environment variable that holds the user's name, ..."""
    password_env: str | None = None
    """... and of the one that holds the password; without TLS only to this machine."""
    tls: bool = False
    ca_file: Path | None = None
    """PEM file of who signed the broker's certificate; None: those that the machine trusts."""
    cert_file: Path | None = None
    key_file: Path | None = None
    """PEM files of the line's own certificate, for a broker that asks for one."""
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 15
    timeout_ms: Annotated[float, Field(ge=10, le=60_000)] = 5000.0
    """To connect, and for a confirmation."""

    _variables = field_validator("user_env", "password_env")(variable_name)

    @property
    def broker_port(self) -> int:
        """The one that counts."""
        return self.port if self.port is not None else 8883 if self.tls else 1883

    @model_validator(mode="after")
    def _what_goes_together(self) -> BrokerSettings:
        if not self.tls and any((self.ca_file, self.cert_file, self.key_file)):
            raise ValueError("ca_file, cert_file and key_file only with tls: true")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file only with a cert_file")
        if self.password_env is not None and self.user_env is None:
            raise ValueError("password_env only with a user_env")
        if self.password_env is not None and not self.tls and not LOOPBACK.fullmatch(self.host):
            raise ValueError(f"a password to {self.host} only with tls: true")
        return self
