"""MQTT against a real mosquitto: results, state, last will, TLS, passwords, a broker that is killed."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from line_fakes import until
from output_fakes import SECRET, Broker, a_line, free_port, give, mosquitto, started
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from differad_edge.errors import ConfigError
from differad_edge.runtime.record import ResultRecord


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    found = Broker(tmp_path / "broker")
    found.start()
    yield found
    found.kill()


class Listener:
    """An independent subscriber with a session that outlives a broker's restart."""

    def __init__(self, port: int, topic: str = "differad-edge/#", **tls: Any) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self.ready = threading.Event()
        self._topic = topic
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=paho.MQTTv5)
        client.reconnect_delay_set(1, 1)
        if tls:
            client.tls_set(**tls)
            client.username_pw_set("line", SECRET)
        client.on_message = lambda _, __, m: self.messages.append((m.topic, m.payload, m.retain))
        client.on_connect = self._subscribe
        client.on_subscribe = lambda *_: self.ready.set()
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 3600
        client.connect("127.0.0.1", port, clean_start=False, properties=lasting)
        client.loop_start()
        assert self.ready.wait(10)

    def _subscribe(self, client: Any, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)

    def results(self) -> list[ResultRecord]:
        return [ResultRecord.from_json(payload) for topic, payload, _ in list(self.messages) if "/result" in topic]

    def states(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload, _ in list(self.messages) if topic.endswith("/state")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_results_and_the_state_arrive_and_the_end_is_told(tmp_path: Path, broker: Broker) -> None:
    listener = Listener(broker.port)
    server = started(a_line(tmp_path, [{"type": "mqtt", "host": "127.0.0.1", "port": broker.port}]))
    try:
        given = give(server, 20)
        until(lambda: len(listener.results()) >= 20, 10)
        until(lambda: listener.states()[-1].get("ready"), 10)
        until(lambda: server.line.status()["outputs"][0]["sent"] >= 20)  # the subscriber may hear it before we do
        [status] = server.line.status()["outputs"]
        assert (status["open"], status["sent"], status["dropped"]) == (True, 20, {})
        assert b'differad_edge_output_sent_total{output="mqtt"} 20.0' in server.line.metrics()
    finally:
        server.close()
    assert listener.results() == given
    assert {topic for topic, _, _ in listener.messages} == {"differad-edge/main/result", "differad-edge/state"}
    until(lambda: listener.states()[-1] == {"online": False})
    listener.close()


def test_a_line_that_is_cut_off_has_its_last_will_and_the_state_is_retained(tmp_path: Path, broker: Broker) -> None:
    server = started(a_line(tmp_path, [{"type": "mqtt", "host": "127.0.0.1", "port": broker.port}]))
    try:
        until(lambda: server.line.status()["outputs"][0]["open"])
        until(lambda: server.outputs.output("mqtt")._state is not None)  # type: ignore[attr-defined]
        give(server, 1)
        listener = Listener(broker.port)  # comes later, and sees what the line is doing
        until(lambda: listener.states())
        assert (listener.messages[0][2], listener.states()[0]["online"]) == (True, True)
        client = server.outputs.output("mqtt")._link._client  # type: ignore[attr-defined]
        client.socket().shutdown(2)  # as a pulled cable, without a goodbye
        until(lambda: {"online": False} in listener.states(), 30)
        until(lambda: listener.states()[-1]["online"], 30)  # and back
        listener.close()
    finally:
        server.close()


@pytest.mark.slow
def test_a_durable_output_loses_none_of_1000_results_while_broker_and_line_are_killed(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    listener = Listener(broker.port)
    output = {"type": "mqtt", "host": "127.0.0.1", "port": broker.port, "durable": True, "capacity": 50}
    server = started(a_line(tmp_path, [output]))
    given = [record.sequence for record in give(server, 200)]
    broker.kill()
    given += [record.sequence for record in give(server, 300)]  # more than the memory holds
    broker.start()
    given += [record.sequence for record in give(server, 100)]
    broker.kill()
    given += [record.sequence for record in give(server, 100)]
    server.close()  # with results that nobody has heard
    server = started(a_line(tmp_path, [output]))
    try:
        given += [record.sequence for record in give(server, 300)]
        broker.start()
        until(lambda: set(given) <= {record.sequence for record in listener.results()}, 60)
        assert given == list(range(1, 1001))
        assert server.line.status()["outputs"][0]["dropped"] == {}
        until(lambda: server.line.status()["outputs"][0]["waiting"] == 0)
    finally:
        server.close()
        listener.close()
        broker.kill()
    heard = [record.sequence for record in listener.results()]
    assert list(dict.fromkeys(heard)) == given  # each in its turn; some twice


def test_without_durability_what_does_not_fit_is_counted_to_the_last_one(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    listener = Listener(broker.port)
    output = {"type": "mqtt", "host": "127.0.0.1", "port": broker.port, "capacity": 40, "timeout_ms": 500}
    server = started(a_line(tmp_path, [output]))
    try:
        give(server, 50)
        until(lambda: len(listener.results()) == 50)
        broker.kill()
        until(lambda: not server.line.status()["outputs"][0]["open"] or give(server, 1), 10)
        until(lambda: [a["code"] for a in server.line.status()["alarms"]] == ["output-down-mqtt"])
        give(server, 100)
        broker.start()
        until(lambda: server.line.status()["outputs"][0]["waiting"] == 0, 30)
        until(lambda: server.line.status()["alarms"] == [])
        [status] = server.line.status()["outputs"]
        total = server.line.status()["sequence"]
        assert status["dropped"]["full"] >= 60
        assert status["sent"] + sum(status["dropped"].values()) == total
        until(lambda: len({record.sequence for record in listener.results()}) == status["sent"], 20)
        from differad_edge.runtime.journal_reader import JournalReader

        with JournalReader(tmp_path / "journal.sqlite") as reader:
            until(lambda: reader.events(kind="output"))
            told = [event.detail["dropped"]["full"] for event in reader.events(kind="output")]
        assert sum(told) == status["dropped"]["full"]
    finally:
        server.close()
        listener.close()
        broker.kill()


def test_tls_and_a_password_out_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mosquitto()
    folder = tmp_path / "tls"
    folder.mkdir()
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    subprocess.run(["mosquitto_passwd", "-b", "-c", "users", "line", SECRET], cwd=folder, check=True)
    config = f"allow_anonymous false\npassword_file {folder}/users\ncertfile {folder}/c.pem\nkeyfile {folder}/k.pem\n"
    broker = Broker(tmp_path / "broker", config=config)
    broker.start()
    output = {
        "type": "mqtt",
        "host": "localhost",
        "port": broker.port,
        "tls": True,
        "ca_file": folder / "c.pem",
        "user_env": "MQTT_USER",
        "password_env": "MQTT_PASSWORD",
    }
    with pytest.raises(ConfigError, match="output 'mqtt': user_env: the environment variable MQTT_USER is not set"):
        a_line(tmp_path, [output])
    monkeypatch.setenv("MQTT_USER", "line")
    monkeypatch.setenv("MQTT_PASSWORD", "wrong-horse")
    server = started(a_line(tmp_path, [output]))
    try:
        until(lambda: server.line.status()["outputs"][0]["fault"])
        fault = server.line.status()["outputs"][0]["fault"]
        assert "Not authorized" in fault
        assert "wrong-horse" not in fault
    finally:
        server.close()
    monkeypatch.setenv("MQTT_PASSWORD", SECRET)
    listener = Listener(broker.port, ca_certs=str(folder / "c.pem"))
    server = started(a_line(tmp_path, [output]))
    try:
        give(server, 3)
        until(lambda: len(listener.results()) == 3)
    finally:
        server.close()
        listener.close()
        broker.kill()


def test_a_broker_that_never_was_there_costs_the_line_nothing(tmp_path: Path) -> None:
    server = started(a_line(tmp_path, [{"type": "mqtt", "host": "127.0.0.1", "port": free_port(), "capacity": 5}]))
    try:
        assert len(give(server, 30)) == 30
        assert server.line.status()["outputs"][0]["dropped"] == {"full": 25}
    finally:
        server.close()
