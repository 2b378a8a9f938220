"""The settings of a Sparkplug edge node."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from differad_edge.outputs.broker_settings import BrokerSettings

__all__ = ["SparkplugSettings"]


def _element(value: str) -> str:
    if not value.strip() or len(value) > 100 or value != value.strip() or not value.isprintable():
        raise ValueError("1 to 100 printable characters, no space at the ends")
    if set(value) & set("/+#"):
        raise ValueError("a part of a topic, without '/', '+' and '#'")
    return value


class SparkplugSettings(BrokerSettings):
    """Results and states to SCADA hosts as Eclipse Sparkplug 3.0 has it: see docs/OUTPUTS.md for the metrics."""

    type: Literal["sparkplug"]
    name: str = "sparkplug"
    group_id: str
    """Of the edge node's topics: spBv1.0/GROUP_ID/…"""
    edge_node_id: str
    """Once in its group. Each station is a device of it."""
    host_id: str | None = None
    """The primary host application, without which nothing is sent: results wait while it is offline."""
    host_settle_ms: Annotated[float, Field(ge=0, le=60_000)] = 5000.0
    """How long a STATE that the broker had kept is doubted: after a crash of both, it still says that the host is
    online until the host is back."""

    @field_validator("group_id", "edge_node_id")
    @classmethod
    def _elements(cls, value: str) -> str:
        return _element(value)

    @field_validator("host_id")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        return None if value is None else _element(value)

    @model_validator(mode="after")
    def _durable_only_with_a_host(self) -> SparkplugSettings:
        if self.durable and self.host_id is None:
            raise ValueError("durable only with a host_id: the broker keeps nothing for a host that is not there")
        return self
