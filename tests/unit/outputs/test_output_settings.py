"""``outputs`` of line.yaml: what is allowed, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from differad_edge.config import parse_config
from differad_edge.errors import ConfigError
from differad_edge.runtime.settings import LineSettings

JOURNAL = {"journal": {"path": "j.sqlite"}}
NODE = {"type": "sparkplug", "host": "broker", "group_id": "plant", "edge_node_id": "line-1"}
HOOK = {"type": "webhook", "url": "https://mes.local/results"}

LOCAL = "opc.tcp://127.0.0.1:4840"
PLC = "opc.tcp://plc.local:4840"
CLIENT = {"type": "opcua-client", "url": LOCAL, "nodes": {"result_id": "ns=4;i=1001"}}
FILES = {"certificate": "c.der", "private_key": "k.pem", "server_certificate": "plc.der"}
ACKNOWLEDGED = {name: f"ns=4;s=Vision.{name}" for name in ("result_id", "result_ready", "acknowledge")}


def parsed(*outputs: dict[str, Any], stations: int = 1, **line: Any) -> LineSettings:
    names = ["a", "b"][:stations]
    given = [{"name": name, "camera": {"source": "sim:gasket"}, "product": "p"} for name in names]
    return parse_config({"stations": given, "outputs": list(outputs), **line}, LineSettings, where="line.yaml")


def test_every_kind_with_what_it_needs() -> None:
    found = parsed(
        {"type": "mqtt", "host": "broker", "tls": True},
        {"type": "modbus"},
        {"type": "opcua"},
        CLIENT,
        HOOK,
        NODE,
        {"type": "plugin", "plugin": "lamp"},
    ).outputs
    assert [output.name for output in found] == [
        "mqtt",
        "modbus",
        "opcua",
        "opcua-client",
        "webhook",
        "sparkplug",
        "plugin",
    ]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"type": "pigeon"}, "outputs.0: got these settings, allowed: settings of an output with a type: mqtt, "),
        ({}, "allowed: settings of an output with a type: mqtt, "),
        ({**HOOK, "urll": 1}, "outputs.0.webhook.urll: unknown setting, allowed here: ca_file, capacity, durable"),
        ({"type": "mqtt"}, "outputs.0.mqtt.host: missing"),
        ({"type": "modbus", "handshak": True}, "allowed here: address, capacity, clients, durable, gap_ms, handshake"),
        ({**HOOK, "name": "../x"}, "allowed: letters, digits"),
        ({**HOOK, "capacity": 0}, "outputs.0.webhook.capacity: got 0"),
        ({**HOOK, "station": "c"}, "station 'c': one of a"),
        ({**HOOK, "durable": True}, "durable only with a journal.path"),
        ({**HOOK, "url": "ftp://x/y"}, "allowed: https://host/path"),
        ({**HOOK, "url": "https://u:hunter2@x/y"}, "without a user"),
        ({**HOOK, "secret_env": "a secret"}, "the name of an environment variable"),
        ({**HOOK, "url": "http://x/y", "ca_file": "c.pem"}, "ca_file only with"),
        ({"type": "mqtt", "host": "b", "topic": "a/#"}, "without + and #"),
        ({"type": "mqtt", "host": "b", "user_env": "U", "password_env": "P"}, "a password to b only with tls"),
        ({"type": "mqtt", "host": "b", "ca_file": "c.pem"}, "only with tls: true"),
        (
            {**NODE, "group_id": "a/b"},
            "outputs.0.sparkplug.group_id: got 'a/b', allowed: a part of a topic, without '/'",
        ),
        ({**NODE, "edge_node_id": "line+1"}, "a part of a topic"),
        ({**NODE, "host_id": "#"}, "a part of a topic"),
        ({**NODE, "edge_node_id": " "}, "1 to 100 printable characters"),
        ({**NODE, "group_id": "a\0b"}, "1 to 100 printable characters"),
        ({**NODE, "durable": True}, "durable only with a host_id"),
        ({**NODE, "user_env": "U", "password_env": "P"}, "a password to broker only with tls"),
        ({**NODE, "topic": "t"}, "outputs.0.sparkplug.topic: unknown setting"),
        ({"type": "modbus", "address": "0.0.0.0:502"}, "only with clients, or a loopback address"),
        ({"type": "modbus", "clients": ["plc"]}, "IP addresses or networks"),
        ({"type": "modbus", "handshake": False, "durable": True}, "durable only with the handshake"),
        ({"type": "modbus", "handshake": False, "hold_ms": 0}, "a hold_ms above 0"),
        ({"type": "modbus", "address": "here"}, "HOST:PORT"),
        ({"type": "opcua", "address": "0.0.0.0:4840"}, "only with certificates, or a loopback address"),
        ({"type": "opcua", "certificate": "c.der"}, "certificate, private_key and trusted together"),
        ({"type": "opcua", "durable": True}, "durable only with the handshake"),
        ({"type": "opcua-client", "url": LOCAL}, "opcua-client.nodes: missing"),
        ({**CLIENT, "url": "http://plc:4840"}, "opc.tcp://host:port"),
        ({**CLIENT, "url": "opc.tcp://plc"}, "opc.tcp://host:port"),
        ({**CLIENT, "url": "opc.tcp://u:hunter2@127.0.0.1:4840"}, "without a user, a password"),
        ({**CLIENT, "url": PLC}, "plc.local only with certificates, or with plaintext: true"),
        ({**CLIENT, "url": PLC, "plaintext": True, **FILES}, "plaintext: true only without certificates"),
        ({**CLIENT, "certificate": "c.der"}, "certificate, private_key and server_certificate together"),
        ({**CLIENT, "password_env": "P"}, "password_env only with a user_env"),
        (
            {**CLIENT, "url": PLC, "plaintext": True, "user_env": "U", "password_env": "P"},
            "a password to plc.local only with certificates",
        ),
        ({**CLIENT, "user_env": "a name"}, "the name of an environment variable"),
        ({**CLIENT, "nodes": {"pased": "ns=4;s=x"}}, "'pased' is none of: acknowledge, box_x1_px"),
        ({**CLIENT, "nodes": {"passed": "Vision.Passed"}}, "passed: 'Vision.Passed' is no node id such as"),
        ({**CLIENT, "nodes": {"passed": "ns=70000;i=1"}}, "ns is 65535 at the most"),
        ({**CLIENT, "nodes": {"passed": "i=4294967296"}}, "i is 4294967295"),
        ({**CLIENT, "nodes": {"passed": "i=1", "failed": "i=1"}}, "passed and failed: a node each, got 'i=1'"),
        ({**CLIENT, "nodes": {"passed": "i=1"}}, "nodes with result_ready or result_id"),
        ({**CLIENT, "nodes": {"result_id": "i=1", "acknowledge": "i=2"}}, "acknowledge only with result_id and"),
        ({**CLIENT, "durable": True}, "durable only with acknowledge"),
    ],
)
def test_what_is_refused(output: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(output)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_names_once_and_a_panel_shows_one_station() -> None:
    with pytest.raises(ConfigError, match="each name once, got webhook, webhook"):
        parsed(HOOK, HOOK)
    with pytest.raises(ConfigError, match="modbus: a station, where there are several: a, b"):
        parsed({"type": "modbus"}, stations=2)
    assert parsed({"type": "modbus", "station": "b"}, {**HOOK, "durable": True}, stations=2, **JOURNAL).outputs


def test_a_plc_beyond_this_machine_that_confirms() -> None:
    given = {**CLIENT, "url": PLC, "nodes": ACKNOWLEDGED, "durable": True, "user_env": "U", "password_env": "P"}
    assert parsed({**given, **FILES}, **JOURNAL).outputs[0].durable
    quoted = {"result_id": 'ns=3;s="Vision DB"."Result"."Id"'}
    assert parsed({**CLIENT, "url": PLC, "plaintext": True, "nodes": quoted}).outputs[0].type == "opcua-client"
    with pytest.raises(ConfigError, match="opcua-client: a station, where there are several"):
        parsed(CLIENT, stations=2)
