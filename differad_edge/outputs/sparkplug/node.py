"""The edge node: births, data, death, rebirths, and the wait for the primary host, as Sparkplug 3.0 has them.

spBv1.0/GROUP/NBIRTH|NDATA|NDEATH|NCMD/NODE    the line
spBv1.0/GROUP/DBIRTH|DDATA/NODE/STATION        each station, and its results
spBv1.0/STATE/HOST                             the primary host, which says here whether it is online

The specification publishes data with QoS 0, which no broker confirms. What confirms results here is that the broker has
answered a request (a subscription that stands already) which came after them on the same connection.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from differad_edge.errors import OutputError
from differad_edge.outputs.base import Record
from differad_edge.outputs.broker import BrokerLink, Message, Received
from differad_edge.outputs.settings import SparkplugSettings
from differad_edge.outputs.sparkplug.births import BirthCount
from differad_edge.outputs.sparkplug.metrics import REBIRTH, Device, captured_ms, node_metrics
from differad_edge.outputs.sparkplug.payload import DataType, Metric, decoded, encoded, now_ms

__all__ = ["SparkplugOutput"]

_log = logging.getLogger(__name__)

_NAMESPACE = "spBv1.0"
_NEVER = threading.Event()


class SparkplugOutput:
    """Everything is published by the thread of the outbox, so that ``seq`` counts in the order of the messages; `show`
    and commands only leave a note for it. ``births_file``: where bdSeq survives a restart.

    Raises ConfigError for a password that is not set, and for certificates that cannot be read.
    """

    most_at_once = 50

    def __init__(self, settings: SparkplugSettings, births_file: Path | None = None) -> None:
        self._settings = settings
        self._link = BrokerLink(settings, on_message=self._hear)
        self._births = BirthCount(births_file)
        self._state_topic = f"{_NAMESPACE}/STATE/{settings.host_id}"
        self._death: Message | None = None
        self._number = 0
        self._seq = 0
        self._is_born = False
        self._online_since_ms = 0
        self._pulse: Mapping[str, Any] = {}
        self._told: dict[str, Metric] = {}
        self._devices: dict[str, Device] = {}
        self._born_devices: set[str] = set()
        # Left by the client's thread, under the lock of the connection:
        self._rebirth = False
        self._host_online: bool | None = None
        self._host_kept = False
        self._host_stamp = 0

    def open(self) -> None:
        """Connect, wait for the primary host, and publish the births. Raises OutputError."""
        settings = self._settings
        self._number = self._births.next()
        self._death = Message(self._topic("NDEATH"), encoded([self._session_metric(now_ms())]), retain=False)
        self._is_born = False
        with self._link.changed:
            self._rebirth = False
            self._host_online, self._host_kept, self._host_stamp = None, False, 0
        # A client id that is the node's own: the broker ends a connection that was left open when this one comes.
        self._link.open(self._death, client_id=f"{settings.group_id}-{settings.edge_node_id}")
        topics = [self._topic("NCMD")] if settings.host_id is None else [self._topic("NCMD"), self._state_topic]
        self._link.subscribe(topics)
        self._link.wait_until_confirmed(_NEVER, what="subscriptions")
        self._wait_for_host()
        self._online_since_ms = now_ms()
        self._give_birth()

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """Publish all of them; returns when the broker has them, and the primary host was online all the time."""
        self._say_what_is_new()
        for record in records:
            station = str(record["station"])
            if station not in self._born_devices:
                self._give_birth_to(station)
            seen_ms = captured_ms(record)
            metrics = self._devices[station].told(record, now_ms(), historical=seen_ms < self._online_since_ms)
            self._publish("DDATA", metrics, device=station, what=f"result {record['sequence']}")
        self._link.subscribe([self._topic("NCMD")], kept=False)
        self._link.wait_until_confirmed(stop)
        self._check_host()

    def check(self) -> None:
        """Publish what is new. Raises OutputError when the connection has ended, or the primary host is offline."""
        self._link.check()
        self._say_what_is_new()

    def show(self, pulse: Mapping[str, Any]) -> None:
        """What is new about it is published when the outbox looks, twice a second."""
        self._pulse = pulse

    def close(self) -> None:
        """Publish the node's death, which is that of its devices too, and disconnect."""
        self._link.close(self._death if self._is_born else None)
        self._is_born = False

    # -- the client's thread, with the lock of the connection held ----------------------------------------------------

    def _hear(self, received: Received) -> None:
        if received.topic == self._state_topic:
            self._hear_host(received)
        elif received.topic == self._topic("NCMD"):
            try:
                self._rebirth = self._rebirth or decoded(received.body).get(REBIRTH) is True
            except OutputError as error:
                _log.warning("output %s: %s: %s", self._settings.name, received.topic, error)

    def _hear_host(self, received: Received) -> None:
        try:
            found = json.loads(received.body)
            online, stamp = found["online"], found["timestamp"]
            if not isinstance(online, bool) or not isinstance(stamp, int):
                raise ValueError("online is true or false, timestamp a number of milliseconds")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("output %s: %s: no state of a host: %s", self._settings.name, received.topic, error)
            return
        if stamp >= self._host_stamp:  # an older one is the late death of an earlier session
            self._host_online, self._host_kept, self._host_stamp = online, received.kept, stamp

    # -- the outbox's thread ------------------------------------------------------------------------------------------

    def _wait_for_host(self) -> None:
        if self._settings.host_id is None:
            return
        now_s = time.monotonic()
        give_up_s = now_s + self._settings.timeout_ms / 1000.0
        settled_s = now_s + self._settings.host_settle_ms / 1000.0
        with self._link.changed:
            while self._link.connected:
                now_s = time.monotonic()
                if self._host_online and (not self._host_kept or now_s >= settled_s):
                    return
                if not self._host_online and now_s >= give_up_s:
                    break
                self._link.changed.wait((settled_s if self._host_online else give_up_s) - now_s)
        self._link.check()
        self._check_host()

    def _check_host(self) -> None:
        if self._settings.host_id is not None and not self._host_online:
            raise OutputError(f"{self._link.where}: the primary host {self._settings.host_id} is not online")

    def _say_what_is_new(self) -> None:
        self._check_host()
        with self._link.changed:
            rebirth, self._rebirth = self._rebirth, False
        if rebirth:
            self._give_birth()
        stamp_ms = now_ms()
        new = [one for one in node_metrics(self._pulse, stamp_ms) if self._told[one.name].value != one.value]
        if new:
            self._told.update({one.name: one for one in new})
            self._publish("NDATA", new)
        for station, state in self._stations().items():
            if station not in self._born_devices:
                self._give_birth_to(station)
                continue
            changed = self._devices[station].changed(state, stamp_ms)
            if changed:
                self._publish("DDATA", changed, device=station)

    def _give_birth(self) -> None:
        stamp_ms = now_ms()
        self._seq = 0
        self._born_devices.clear()
        told = node_metrics(self._pulse, stamp_ms)
        self._told = {one.name: one for one in told}
        rebirth = Metric(REBIRTH, DataType.BOOLEAN, False, stamp_ms)
        self._is_born = True
        self._publish("NBIRTH", [self._session_metric(stamp_ms), rebirth, *told])
        for station in {**self._devices, **self._stations()}:
            self._give_birth_to(station)

    def _give_birth_to(self, station: str) -> None:
        stamp_ms = now_ms()
        device = self._devices.setdefault(station, Device())
        state = self._stations().get(station)
        if state is not None:
            device.changed(state, stamp_ms)
        self._born_devices.add(station)
        self._publish("DBIRTH", device.birth(stamp_ms), device=station)

    def _publish(self, kind: str, metrics: Sequence[Metric], *, device: str | None = None, what: str = "") -> None:
        body = encoded(metrics, stamp_ms=now_ms(), seq=self._seq)
        self._seq = (self._seq + 1) % 256
        self._link.publish(self._topic(kind, device), body, qos=0, what=what or kind)

    def _stations(self) -> dict[str, str]:
        """The states of those that are shown here."""
        only = self._settings.station
        found = {str(one["name"]): str(one["state"]) for one in self._pulse.get("stations", ())}
        return {name: state for name, state in found.items() if only in (None, name)}

    def _session_metric(self, stamp_ms: int) -> Metric:
        return Metric("bdSeq", DataType.INT64, self._number, stamp_ms)

    def _topic(self, kind: str, device: str | None = None) -> str:
        parts = (_NAMESPACE, self._settings.group_id, kind, self._settings.edge_node_id, device)
        return "/".join(part for part in parts if part is not None)
