"""The settings of outputs that talk to an MQTT broker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from differad_edge.outputs.settings_base import OutputSettings, is_loopback, variable

__all__ = ["BrokerSettings"]


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

    _variables = field_validator("user_env", "password_env")(variable)

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
        if self.password_env is not None and not self.tls and not is_loopback(self.host):
            raise ValueError(f"a password to {self.host} only with tls: true")
        return self
