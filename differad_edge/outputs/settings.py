"""The settings of outputs: what `line.yaml` says under ``outputs``."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from differad_edge.outputs.broker_settings import BrokerSettings
from differad_edge.outputs.opcua.settings import OpcUaClientSettings, OpcUaSettings
from differad_edge.outputs.settings_base import OutputSettings, host_and_port, is_loopback, variable
from differad_edge.outputs.sparkplug.settings import SparkplugSettings

__all__ = [
    "AnyOutputSettings",
    "ModbusSettings",
    "MqttSettings",
    "OpcUaClientSettings",
    "OpcUaSettings",
    "OutputSettings",
    "PluginSettings",
    "SparkplugSettings",
    "WebhookSettings",
]


class WebhookSettings(OutputSettings):
    """Results by HTTP POST, one at a time, signed."""

    type: Literal["webhook"]
    name: str = "webhook"
    url: str = Field(repr=False)
    """https://host/path or http://host/path."""
    secret_env: str | None = None
    """Name of the environment variable that holds the key of the signature; None: no signature."""
    timeout_ms: Annotated[float, Field(ge=10, le=60_000)] = 5000.0
    ca_file: Path | None = None
    """PEM file of who signed the server's certificate; None: those that the machine trusts."""

    _secret = field_validator("secret_env")(variable)

    @field_validator("url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fits = False
        if not fits or not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
            raise ValueError("https://host/path or http://host/path")
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("an address without a user, a password and a fragment; use secret_env")
        return value

    @model_validator(mode="after")
    def _authority_only_for_https(self) -> WebhookSettings:
        if self.ca_file is not None and not self.url.startswith("https:"):
            raise ValueError("ca_file only with an https:// address")
        return self


class MqttSettings(BrokerSettings):
    """Results and the line's state to an MQTT 5 broker."""

    type: Literal["mqtt"]
    name: str = "mqtt"
    topic: str = "differad-edge"
    """What the topics begin with: TOPIC/STATION/result, TOPIC/state."""

    @field_validator("topic")
    @classmethod
    def _no_wildcards(cls, value: str) -> str:
        if not value or len(value) > 200 or value[0] in "/$" or value[-1] == "/" or set(value) & set("+#\0"):
            raise ValueError("a topic such as plant/line-1, without + and #, and without / at its ends")
        return value


class ModbusSettings(OutputSettings):
    """A panel for a PLC, which reads results and may trigger: see docs/OUTPUTS.md for its registers."""

    type: Literal["modbus"]
    name: str = "modbus"
    address: str = "127.0.0.1:5020"
    """"host:port" to listen at; PLCs expect port 502, which may need a privilege."""
    clients: tuple[str, ...] = ()
    """IP addresses or networks that may connect: Modbus knows no passwords. Needed beyond loopback."""
    results: Literal["all", "own"] = "all"
    """own: only those of parts that the PLC has triggered."""
    handshake: bool = True
    """The next result is shown after the PLC has acknowledged this one."""
    hold_ms: Annotated[float, Field(ge=0, le=60_000)] = 20.0
    """How long the bits of a result stand at least; without the handshake, exactly so long."""
    gap_ms: Annotated[float, Field(ge=0, le=60_000)] = 20.0
    """Without the handshake: how long they are off before the next result."""

    _address = field_validator("address")(host_and_port)

    @field_validator("clients")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                ipaddress.ip_network(one)
            except ValueError:
                raise ValueError(f"{one!r} is none of: IP addresses or networks such as 192.168.1.0/24") from None
        return value

    @model_validator(mode="after")
    def _what_goes_together(self) -> ModbusSettings:
        if not self.clients and not is_loopback(self.address.rpartition(":")[0]):
            raise ValueError(f"address {self.address} only with clients, or a loopback address")
        if self.durable and not self.handshake:
            raise ValueError("durable only with the handshake: nothing else confirms a result")
        if not self.handshake and self.hold_ms == 0:
            raise ValueError("without the handshake a hold_ms above 0: nobody would see a result")
        return self


class PluginSettings(OutputSettings):
    """An output of another package, by its entry point of the group ``differad_edge.outputs``."""

    type: Literal["plugin"]
    name: str = "plugin"
    plugin: Annotated[str, Field(min_length=1)]
    """Name of the entry point."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """What the plugin is called with."""


def _type_of(value: object) -> str | None:
    found = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    return found if isinstance(found, str) else None


AnyOutputSettings = Annotated[
    Annotated[MqttSettings, Tag("mqtt")]
    | Annotated[ModbusSettings, Tag("modbus")]
    | Annotated[OpcUaSettings, Tag("opcua")]
    | Annotated[OpcUaClientSettings, Tag("opcua-client")]
    | Annotated[WebhookSettings, Tag("webhook")]
    | Annotated[SparkplugSettings, Tag("sparkplug")]
    | Annotated[PluginSettings, Tag("plugin")],
    Discriminator(
        _type_of,
        custom_error_type="output_type",
        custom_error_message="settings of an output with a type: "
        "mqtt, modbus, opcua, opcua-client, sparkplug, webhook or plugin",
    ),
]
