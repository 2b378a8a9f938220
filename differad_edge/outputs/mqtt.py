"""Results to an MQTT 5 broker, each confirmed by it (QoS 1).

TOPIC/STATION/result    the wire's record as JSON; not retained
TOPIC/state             {"online": true, "state": …, "ready": …, "stations": […], "alarms": […]} as JSON, retained;
                        {"online": false} when the line has gone, said by the broker where the line cannot (last will)
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from differad_edge.outputs.base import Record
from differad_edge.outputs.broker import BrokerLink, Message
from differad_edge.outputs.settings import MqttSettings

__all__ = ["MqttOutput"]

_OFFLINE = b'{"online":false}'
_PULSE = ("state", "ready", "stations", "alarms")


class MqttOutput:
    """Raises ConfigError for a password that is not set, and for certificates that cannot be read."""

    most_at_once = 50

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._link = BrokerLink(settings)
        self._farewell = Message(self._topic("state"), _OFFLINE, retain=True)
        self._state: bytes | None = None

    def open(self) -> None:
        """Connect. Raises OutputError."""
        self._link.open(self._farewell)
        self._publish_state()

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """Publish all of them, then wait until the broker has confirmed each."""
        for record in records:
            body = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            self._link.publish(
                self._topic(f"{record['station']}/result"),
                body.encode("utf-8", "backslashreplace"),
                qos=1,
                what=f"result {record['sequence']}",
                content_type="application/json",
            )
        self._link.wait_until_confirmed(stop)

    def check(self) -> None:
        """Raises OutputError when the connection has ended."""
        self._link.check()

    def show(self, pulse: Mapping[str, Any]) -> None:
        """Publish it where it has changed."""
        body = json.dumps(
            {"online": True, **{name: pulse[name] for name in _PULSE if name in pulse}}, separators=(",", ":")
        ).encode("utf-8", "backslashreplace")
        if body != self._state:
            self._state = body
            self._publish_state()

    def close(self) -> None:
        """Say that the line has gone, and disconnect."""
        self._link.close(self._farewell)

    def _publish_state(self) -> None:
        if self._state is not None:
            self._link.tell(Message(self._topic("state"), self._state, retain=True))

    def _topic(self, name: str) -> str:
        return f"{self._settings.topic}/{name}"
