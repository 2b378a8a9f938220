"""A Sparkplug host that reads payloads with nothing but the protobuf wire format, and what it holds every node to."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

REBIRTH = "Node Control/Rebirth"
_DATATYPES = {4: 11, 10: 13, 11: 14, 12: 15, 13: 11}  # Int64, Double, Boolean, String, DateTime -> field of the value


@dataclass
class Seen:
    """One metric."""

    name: str
    datatype: int
    timestamp: int | None
    value: Any
    historical: bool


@dataclass
class Heard:
    """One message, decoded."""

    topic: str
    qos: int
    retain: bool
    timestamp: int | None
    seq: int | None
    metrics: dict[str, Seen] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.topic.split("/")[2]

    @property
    def device(self) -> str:
        return "/".join(self.topic.split("/")[4:])

    def __getitem__(self, name: str) -> Any:
        return self.metrics[name].value


def fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and raw value of each field of a protobuf message."""
    at = 0

    def varint() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = body[at]
            at += 1
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found

    while at < len(body):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        length = {1: 8, 5: 4}.get(kind) or varint()
        assert at + length <= len(body)
        yield key >> 3, body[at : at + length]
        at += length


def read(topic: str, body: bytes, qos: int = 0, retain: bool = False) -> Heard:
    """A payload as sparkplug_b.proto numbers it."""
    heard = Heard(topic, qos, retain, None, None)
    for number, value in fields(body):
        if number == 1:
            heard.timestamp = int(value)
        elif number == 3:
            heard.seq = int(value)
        else:
            assert number == 2
            assert isinstance(value, bytes)
            metric = _metric(dict(fields(value)))
            assert metric.name not in heard.metrics
            heard.metrics[metric.name] = metric
    return heard


def _metric(found: dict[int, Any]) -> Seen:
    name, datatype = found[1].decode("utf-8"), found[4]
    is_null = bool(found.get(7))
    assert [number for number in found if number >= 10] == ([] if is_null else [_DATATYPES[datatype]]), name
    value: Any = None
    if not is_null:
        raw = found[_DATATYPES[datatype]]
        if datatype == 4:
            value = raw - (1 << 64) if raw >> 63 else raw
        elif datatype == 10:
            [value] = struct.unpack("<d", raw)
        else:
            value = {11: bool, 12: lambda text: text.decode("utf-8"), 13: int}[datatype](raw)
    return Seen(name, datatype, found.get(3), value, bool(found.get(5)))


def keeps_the_rules(messages: list[Heard]) -> None:
    """Of one node, in the order in which they came; they may begin anywhere, and stop for a while before a birth."""
    births: dict[str, Heard] = {}
    seq, session = None, None
    for message in messages:
        where = f"{message.topic} {message.seq}"
        assert not message.retain, where
        if message.kind == "NDEATH":
            assert (message.qos, message.seq, list(message.metrics)) == (1, None, ["bdSeq"]), where
            assert session in (None, message["bdSeq"]), where
            births, seq = {}, None
            continue
        assert message.qos == 0, where
        assert message.timestamp is not None, where
        if message.kind == "NBIRTH":
            assert (message.seq, message[REBIRTH]) == (0, False), where
            assert (message.metrics["bdSeq"].datatype, message.metrics[REBIRTH].datatype) == (4, 11)
            assert 0 <= message["bdSeq"] <= 255
            births, seq, session = {"": message}, 0, message["bdSeq"]
        else:
            assert seq is not None, f"{where}: before the birth of the node"
            seq = (seq + 1) % 256
            assert message.seq == seq, where
            if message.kind == "DBIRTH":
                births[message.device] = message
        birth = births.get(message.device)
        assert birth is not None, f"{where}: before the birth of the device"
        for name, metric in message.metrics.items():
            assert metric.timestamp is not None, f"{where}: {name}"
            assert birth.metrics[name].datatype == metric.datatype, f"{where}: {name}"


class Host:
    """A host application as the specification has it: a clean session, and a STATE with a last will."""

    def __init__(self, port: int, host_id: str = "scada", group: str = "plant") -> None:
        self.messages: list[Heard] = []
        self.state_topic = f"spBv1.0/STATE/{host_id}"
        self._group = group
        self._ready = threading.Event()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id=host_id, protocol=paho.MQTTv5)
        client.reconnect_delay_set(1, 1)
        client.on_pre_connect = lambda *_: self._new_will()
        client.on_connect = self._subscribe
        client.on_subscribe = self._say_online
        client.on_message = self._hear
        client.on_publish = lambda *_: self._ready.set()  # the broker has taken the state
        self._new_will()
        client.connect("127.0.0.1", port, clean_start=True)
        client.loop_start()
        assert self._ready.wait(10)

    def data(self) -> list[Heard]:
        """DDATA with a result."""
        return [one for one in list(self.messages) if one.kind == "DDATA" and "Result/Sequence" in one.metrics]

    def sequences(self) -> list[int]:
        return [one["Result/Sequence"] for one in self.data()]

    def of(self, kind: str) -> list[Heard]:
        return [one for one in list(self.messages) if one.kind == kind]

    def command(self, topic: str, body: bytes) -> None:
        self._client.publish(topic, body, qos=0)

    def close(self) -> None:
        """As the specification has it: say that it goes."""
        if self._client.is_connected():
            self._client.publish(self.state_topic, self._state(False), qos=1, retain=True).wait_for_publish(5)
        self._client.disconnect()
        self._client.loop_stop()

    def vanish(self) -> None:
        """Without a goodbye, and its last will never told: as when the broker dies with it."""
        self._client.disconnect()
        self._client.loop_stop()

    def _state(self, online: bool) -> bytes:
        return json.dumps({"online": online, "timestamp": self._stamp_ms}).encode()

    def _new_will(self) -> None:
        self._stamp_ms = time.time_ns() // 1_000_000
        self._client.will_set(self.state_topic, self._state(False), qos=1, retain=True)

    def _subscribe(self, client: Any, *_: Any) -> None:
        client.subscribe([(f"spBv1.0/{self._group}/#", 1), (self.state_topic, 1)])

    def _say_online(self, client: Any, *_: Any) -> None:
        client.publish(self.state_topic, self._state(True), qos=1, retain=True)

    def _hear(self, client: Any, data: Any, message: Any) -> None:
        if message.topic == self.state_topic:
            if not json.loads(message.payload)["online"] and json.loads(message.payload)["timestamp"] < self._stamp_ms:
                self._say_online(client)
        elif message.topic.split("/")[2] != "NCMD":
            self.messages.append(read(message.topic, message.payload, message.qos, message.retain))
