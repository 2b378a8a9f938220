"""Results to an MQTT 5 broker, each confirmed by it (QoS 1).

TOPIC/STATION/result    the wire's record as JSON; not retained
TOPIC/state             {"online": true, "state": …, "ready": …, "stations": […], "alarms": […]} as JSON, retained;
                        {"online": false} when the line has gone, said by the broker where the line cannot (last will)
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from differad_edge.errors import ConfigError, MissingExtraError, OutputError
from differad_edge.outputs.base import Record
from differad_edge.outputs.secrets import from_environment
from differad_edge.outputs.settings import MqttSettings

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
except ImportError as error:
    raise MissingExtraError("plc", "paho-mqtt") from error

__all__ = ["MqttOutput"]

_POLL_S = 0.1
_OFFLINE = b'{"online":false}'
_PULSE = ("state", "ready", "stations", "alarms")


class MqttOutput:
    """Raises ConfigError for a password that is not set, and for certificates that cannot be read."""

    most_at_once = 50

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._user = from_environment(settings.user_env, setting="user_env")
        self._password = from_environment(settings.password_env, setting="password_env")
        self._tls = _tls(settings) if settings.tls else None
        self._where = f"mqtt {settings.host}:{settings.broker_port}"
        self._client: paho.Client | None = None
        self._changed = threading.Condition()
        self._connected: bool | None = None
        self._why = "it does not answer"
        self._unconfirmed: set[int] = set()
        self._early: dict[int, str | None] = {}
        self._refused: str | None = None
        self._state: bytes | None = None

    def open(self) -> None:
        """Connect. Raises OutputError."""
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or "",
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,  # the outbox opens it again, so that there is one rule for when
        )
        client.connect_timeout = settings.timeout_ms / 1000.0
        client.max_queued_messages_set(0)
        if self._user is not None:
            client.username_pw_set(self._user, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.will_set(self._topic("state"), _OFFLINE, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        with self._changed:
            self._connected, self._why, self._refused = None, "it does not answer", None
            self._unconfirmed.clear()
            self._early.clear()
        self._client = client
        try:
            client.connect(settings.host, settings.broker_port, keepalive=settings.keepalive_s, clean_start=True)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: a name that is no host
            raise OutputError(f"{self._where}: cannot be reached: {_why(error)}") from error
        client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected is not None, settings.timeout_ms / 1000.0)
            if not self._connected:
                raise OutputError(f"{self._where}: {self._why}")
        self._publish_state()

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """Publish all of them, then wait until the broker has confirmed each."""
        client = self._client
        if client is None:
            raise OutputError(f"{self._where}: it is not open")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = "application/json"
        properties.PayloadFormatIndicator = 1
        for record in records:
            body = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            topic = self._topic(f"{record['station']}/result")
            try:
                info = client.publish(topic, body.encode("utf-8", "backslashreplace"), qos=1, properties=properties)
            except ValueError as error:  # too large for the protocol
                raise OutputError(f"{self._where}: result {record['sequence']}: {error}") from error
            if info.rc != paho.MQTT_ERR_SUCCESS:
                raise OutputError(f"{self._where}: {paho.error_string(info.rc)}")
            self._wait_for(info.mid)
        self._wait_until_confirmed(stop)

    def check(self) -> None:
        """Raises OutputError when the connection has ended."""
        with self._changed:
            self._early.clear()  # of states: nobody waits for their confirmation
            if not self._connected:
                raise OutputError(f"{self._where}: {self._why}")

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
        client, self._client = self._client, None
        if client is None:
            return
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if self._connected:
                client.publish(self._topic("state"), _OFFLINE, qos=1, retain=True).wait_for_publish(1.0)
            client.disconnect()
        client.loop_stop()
        with self._changed:
            self._connected = False

    # -- the client's thread ------------------------------------------------------------------------------------------

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            self._connected = not reason.is_failure
            if reason.is_failure:
                self._why = f"it refuses the connection: {reason}"
            self._changed.notify_all()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            if client is self._client:
                if self._connected is not False:
                    self._why = f"the connection has ended: {reason}"
                self._connected = False
                self._changed.notify_all()

    def _on_publish(self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            failure = f"it does not take a result: {reason}" if reason.is_failure else None
            if mid in self._unconfirmed:
                self._unconfirmed.discard(mid)
                self._refused = self._refused or failure
            else:  # confirmed before publish() has returned, or a state
                self._early[mid] = failure
            self._changed.notify_all()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _wait_for(self, mid: int) -> None:
        with self._changed:
            if mid in self._early:
                self._refused = self._refused or self._early.pop(mid)
            else:
                self._unconfirmed.add(mid)

    def _wait_until_confirmed(self, stop: threading.Event) -> None:
        give_up_s = time.monotonic() + self._settings.timeout_ms / 1000.0
        with self._changed:
            while self._unconfirmed and self._connected and not stop.is_set():
                if time.monotonic() >= give_up_s:
                    raise OutputError(
                        f"{self._where}: {len(self._unconfirmed)} results are not confirmed within "
                        f"{self._settings.timeout_ms:g} ms"
                    )
                self._changed.wait(_POLL_S)
            self._early.clear()  # of states: who waits for their confirmation
            if self._refused is not None:
                raise OutputError(f"{self._where}: {self._refused}")
            if self._unconfirmed and not stop.is_set():
                raise OutputError(f"{self._where}: {self._why}")

    def _publish_state(self) -> None:
        client, body = self._client, self._state
        if client is not None and body is not None and self._connected:
            client.publish(self._topic("state"), body, qos=1, retain=True)

    def _topic(self, name: str) -> str:
        return f"{self._settings.topic}/{name}"


def _tls(settings: MqttSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        if settings.cert_file is not None:
            context.load_cert_chain(str(settings.cert_file), str(settings.key_file) if settings.key_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file, cert_file, key_file: cannot be read: {_why(error)}") from error
    return context


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
