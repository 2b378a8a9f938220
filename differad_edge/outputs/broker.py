"""One connection to an MQTT 5 broker, and what the broker has confirmed: what all outputs over MQTT share."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from differad_edge.errors import ConfigError, MissingExtraError, OutputError
from differad_edge.outputs.broker_settings import BrokerSettings
from differad_edge.outputs.secrets import from_environment

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
    from paho.mqtt.subscribeoptions import SubscribeOptions
except ImportError as error:
    raise MissingExtraError("plc", "paho-mqtt") from error

__all__ = ["BrokerLink", "Message", "Received"]

_POLL_S = 0.1
_FAREWELL_S = 1.0


class Message(NamedTuple):
    """What is published at the end of a connection, by the line or, where it cannot, by the broker (last will)."""

    topic: str
    body: bytes
    retain: bool


class Received(NamedTuple):
    """``kept``: the broker had it from before the subscription (retained)."""

    topic: str
    body: bytes
    kept: bool


class BrokerLink:
    """Opened and used by the one thread of an outbox; `tell` may come from others.

    ``on_message`` is called by the client's thread, with ``changed`` held. Raises ConfigError for a password that is
    not set, and for certificates that cannot be read.
    """

    def __init__(
        self, settings: BrokerSettings, *, on_message: Callable[[Received], None] = lambda received: None
    ) -> None:
        self._settings = settings
        self._on_received = on_message
        self._user = from_environment(settings.user_env, setting="user_env")
        self._password = from_environment(settings.password_env, setting="password_env")
        self._tls = _tls(settings) if settings.tls else None
        self.where = f"{settings.type} {settings.host}:{settings.broker_port}"
        self.changed = threading.Condition()
        """Notified when the connection or a confirmation has changed, and after each message."""
        self._client: paho.Client | None = None
        self._connected: bool | None = None
        self._why = "it does not answer"
        self._unconfirmed: set[int] = set()
        self._early: dict[int, str | None] = {}
        self._refused: str | None = None

    @property
    def connected(self) -> bool:
        """Now."""
        return bool(self._connected)

    def open(self, will: Message, *, client_id: str | None = None) -> None:
        """Connect with a clean session, which ends with the connection. Raises OutputError."""
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or client_id or "",
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,  # the outbox opens it again, so that there is one rule for when
        )
        client.connect_timeout = settings.timeout_ms / 1000.0
        client.max_queued_messages_set(0)
        if self._user is not None:
            client.username_pw_set(self._user, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.will_set(will.topic, will.body, qos=1, retain=will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        with self.changed:
            self._connected, self._why, self._refused = None, "it does not answer", None
            self._unconfirmed.clear()
            self._early.clear()
        self._client = client
        try:
            client.connect(settings.host, settings.broker_port, keepalive=settings.keepalive_s, clean_start=True)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: a name that is no host
            raise OutputError(f"{self.where}: cannot be reached: {_why(error)}") from error
        client.loop_start()
        with self.changed:
            self.changed.wait_for(lambda: self._connected is not None, settings.timeout_ms / 1000.0)
            if not self._connected:
                raise OutputError(f"{self.where}: {self._why}")

    def publish(self, topic: str, body: bytes, *, qos: int, what: str, content_type: str | None = None) -> None:
        """Not retained; with ``qos`` 1 `wait_until_confirmed` waits for it. ``what``: for messages.

        Raises OutputError.
        """
        client = self._client
        if client is None:
            raise OutputError(f"{self.where}: it is not open")
        properties = None
        if content_type is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = content_type
            properties.PayloadFormatIndicator = 1
        try:
            info = client.publish(topic, body, qos=qos, properties=properties)
        except ValueError as error:  # too large for the protocol
            raise OutputError(f"{self.where}: {what}: {error}") from error
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise OutputError(f"{self.where}: {paho.error_string(info.rc)}")
        if qos > 0:
            self._wait_for(info.mid)

    def subscribe(self, topics: Sequence[str], *, kept: bool = True) -> None:
        """`wait_until_confirmed` waits for it. ``kept``: retained messages come as well. Raises OutputError."""
        client = self._client
        if client is None:
            raise OutputError(f"{self.where}: it is not open")
        options = SubscribeOptions(qos=1, retainHandling=0 if kept else 2)
        code, mid = client.subscribe([(topic, options) for topic in topics])
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            raise OutputError(f"{self.where}: {paho.error_string(code)}")
        self._wait_for(mid)

    def tell(self, message: Message) -> None:
        """Publish with QoS 1 where there is a connection; nobody waits for its confirmation."""
        client = self._client
        if client is not None and self._connected:
            client.publish(message.topic, message.body, qos=1, retain=message.retain)

    def check(self) -> None:
        """Raises OutputError when the connection has ended."""
        with self.changed:
            self._early.clear()  # of `tell`: nobody waits for their confirmation
            if not self._connected:
                raise OutputError(f"{self.where}: {self._why}")

    def wait_until_confirmed(self, stop: threading.Event, *, what: str = "results") -> None:
        """Until the broker has confirmed all that was published and subscribed to, or ``stop``. Raises OutputError."""
        give_up_s = time.monotonic() + self._settings.timeout_ms / 1000.0
        with self.changed:
            while self._unconfirmed and self._connected and not stop.is_set():
                if time.monotonic() >= give_up_s:
                    raise OutputError(
                        f"{self.where}: {len(self._unconfirmed)} {what} are not confirmed within "
                        f"{self._settings.timeout_ms:g} ms"
                    )
                self.changed.wait(_POLL_S)
            self._early.clear()  # of `tell`: who waits for their confirmation
            if self._refused is not None:
                raise OutputError(f"{self.where}: {self._refused}")
            if self._unconfirmed and not stop.is_set():
                raise OutputError(f"{self.where}: {self._why}")

    def close(self, farewell: Message | None) -> None:
        """Publish ``farewell`` and disconnect. It does not raise."""
        client, self._client = self._client, None
        if client is None:
            return
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if self._connected and farewell is not None:
                client.publish(farewell.topic, farewell.body, qos=1, retain=farewell.retain).wait_for_publish(
                    _FAREWELL_S
                )
            client.disconnect()
        client.loop_stop()
        with self.changed:
            self._connected = False

    # -- the client's thread ------------------------------------------------------------------------------------------

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self.changed:
            self._connected = not reason.is_failure
            if reason.is_failure:
                self._why = f"it refuses the connection: {reason}"
            self.changed.notify_all()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self.changed:
            if client is self._client:
                if self._connected is not False:
                    self._why = f"the connection has ended: {reason}"
                self._connected = False
                self.changed.notify_all()

    def _on_publish(self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Any) -> None:
        self._confirmed(mid, f"it does not take a result: {reason}" if reason.is_failure else None)

    def _on_subscribe(self, client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        failed = [str(reason) for reason in reasons if reason.is_failure]
        self._confirmed(mid, f"it refuses a subscription: {failed[0]}" if failed else None)

    def _on_message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        with self.changed:
            if client is self._client:
                self._on_received(Received(message.topic, bytes(message.payload), message.retain))
                self.changed.notify_all()

    def _confirmed(self, mid: int, failure: str | None) -> None:
        with self.changed:
            if mid in self._unconfirmed:
                self._unconfirmed.discard(mid)
                self._refused = self._refused or failure
            else:  # confirmed before publish() has returned, or of `tell`, or with QoS 0
                self._early[mid] = failure
            self.changed.notify_all()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _wait_for(self, mid: int) -> None:
        with self.changed:
            if mid in self._early:
                self._refused = self._refused or self._early.pop(mid)
            else:
                self._unconfirmed.add(mid)


def _tls(settings: BrokerSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        if settings.cert_file is not None:
            context.load_cert_chain(str(settings.cert_file), str(settings.key_file) if settings.key_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file, cert_file, key_file: cannot be read: {_why(error)}") from error
    return context


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
