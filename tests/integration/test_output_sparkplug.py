"""Sparkplug B against a real mosquitto and a host that decodes by itself: births, deaths, rebirths, a primary host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from line_fakes import picture, until
from output_fakes import Broker, a_line, give, started
from sparkplug_fakes import REBIRTH, Host, keeps_the_rules

from differad_edge.references.store import ReferenceStore
from differad_edge.results import Verdict
from differad_edge.runtime.record import ResultRecord

TESTS = Path(__file__).resolve().parents[1]
REBIRTH_COMMAND = bytes([0x12, 2 + len(REBIRTH) + 4, 0x0A, len(REBIRTH)]) + REBIRTH.encode() + b"\x20\x0b\x70\x01"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    found = Broker(tmp_path / "broker")
    found.start()
    yield found
    found.kill()


def node(broker: Broker, **more: Any) -> dict[str, Any]:
    given = {"type": "sparkplug", "host": "127.0.0.1", "port": broker.port, "timeout_ms": 1000}
    return {**given, "group_id": "plant", "edge_node_id": "line-1", **more}


def verdicts(image: Any, product: str) -> Verdict:
    if image[0, 0, 0] % 3 == 2:
        raise RuntimeError("scripted")  # a part without a verdict
    return [Verdict.OK, Verdict.NG][image[0, 0, 0] % 3]


def born(host: Host) -> bool:
    return bool(host.of("DBIRTH"))


def test_births_results_and_the_death_in_order_over_a_restart(tmp_path: Path, broker: Broker) -> None:
    host = Host(broker.port)
    server = started(a_line(tmp_path, [node(broker)], script=verdicts))
    try:
        until(lambda: born(host), 30)
        given = give(server, 300)  # more than seq counts to
        until(lambda: len(host.data()) == 300, 20)
        until(lambda: [one["Ready"] for one in host.messages if "Ready" in one.metrics][-1], 10)
    finally:
        server.close()
    until(lambda: host.of("NDEATH"))
    assert host.messages[0].topic == "spBv1.0/plant/NBIRTH/line-1"
    assert {one.topic for one in host.messages} == {
        *(f"spBv1.0/plant/{kind}/line-1" for kind in ("NBIRTH", "NDATA", "NDEATH")),
        *(f"spBv1.0/plant/{kind}/line-1/main" for kind in ("DBIRTH", "DDATA")),
    }
    keeps_the_rules(host.messages)
    assert host.of("DBIRTH")[0]["Result/Verdict"] is None  # no result yet
    for record, one in zip(given, host.data(), strict=True):
        assert ResultRecord.from_json(one["Result/Record"]) == record
        assert (one["Result/Sequence"], one["Result/Verdict"]) == (record.sequence, record.verdict.value)
        assert (one["Result/Passed"], one["Result/Failed"]) == (record.verdict == "OK", record.verdict == "NG")
        assert one["Result/Score"] == record.result.score
        assert one["Result/Capture Time"] == one.metrics["Result/Verdict"].timestamp
        assert not one.metrics["Result/Verdict"].historical
    assert {record.verdict for record in given} == {Verdict.OK, Verdict.NG, Verdict.ERROR}
    last = host.data()[-1]
    assert last["Counters/Results"] == 300
    assert last["Counters/Passed"] + last["Counters/Failed"] + last["Counters/Undecided"] == 300
    server = started(a_line(tmp_path, [node(broker)]))
    try:
        until(lambda: len(host.of("NBIRTH")) == 2)
    finally:
        server.close()
    until(lambda: len(host.of("NDEATH")) == 2)
    keeps_the_rules(host.messages)
    assert [one["bdSeq"] for one in host.messages if "bdSeq" in one.metrics] == [0, 0, 1, 1]
    host.close()
    late = Host(broker.port, "late")
    time.sleep(0.5)
    assert late.messages == []  # nothing is retained
    late.close()


def test_a_host_that_asks_for_it_hears_the_births_again(tmp_path: Path, broker: Broker) -> None:
    server = started(a_line(tmp_path, [node(broker)]))
    try:
        give(server, 3)
        until(lambda: server.line.status()["outputs"][0]["sent"] == 3)
        time.sleep(1.0)  # and all else is told
        host = Host(broker.port)  # comes later, and knows nothing of the node
        host.command("spBv1.0/plant/NCMD/line-1", b"\xff\xff no payload")
        host.command("spBv1.0/plant/NCMD/line-1", REBIRTH_COMMAND[:-1] + b"\x00")  # Rebirth: false
        time.sleep(1.5)
        assert host.messages == []
        host.command("spBv1.0/plant/NCMD/line-1", REBIRTH_COMMAND)
        until(lambda: born(host), 30)
        [birth], [device] = host.of("NBIRTH"), host.of("DBIRTH")
        assert (birth["bdSeq"], birth.seq, device.seq) == (0, 0, 1)  # the session is the same
        assert device["Result/Sequence"] == 3
        assert birth["Ready"] is True
        give(server, 2)
        until(lambda: host.sequences() == [4, 5])
        assert not host.data()[0].metrics["Result/Verdict"].historical
        keeps_the_rules(host.messages)
        host.close()
    finally:
        server.close()


def test_a_connection_that_breaks_is_a_death_and_a_birth_with_the_next_number(tmp_path: Path, broker: Broker) -> None:
    host = Host(broker.port)
    server = started(a_line(tmp_path, [node(broker)]))
    try:
        until(lambda: born(host), 30)
        client = server.outputs.output("sparkplug")._link._client  # type: ignore[attr-defined]
        client.socket().shutdown(2)  # as a pulled cable, without a goodbye
        until(lambda: len(host.of("NBIRTH")) == 2, 20)
        assert [one["bdSeq"] for one in host.messages if "bdSeq" in one.metrics] == [0, 0, 1]
        keeps_the_rules(host.messages)
    finally:
        server.close()
        host.close()


def test_a_line_that_is_killed_is_declared_dead_by_the_broker(tmp_path: Path, broker: Broker) -> None:
    ReferenceStore(tmp_path / "store").register("p", [picture(7)])
    host = Host(broker.port)
    command = [sys.executable, str(TESTS / "faults" / "line_process.py"), str(tmp_path), "--rate-hz", "50"]
    command += ["--settings", json.dumps({"outputs": [node(broker)]})]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    for number in range(2):
        before = len(host.data())
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            until(lambda before=before: len(host.data()) > before + 20, 30)
            assert len(host.of("NDEATH")) == number
        finally:
            process.kill()
            process.wait()
        until(lambda number=number: len(host.of("NDEATH")) == number + 1, 30)
    assert [one["bdSeq"] for one in host.messages if "bdSeq" in one.metrics] == [0, 0, 1, 1]
    keeps_the_rules(host.messages)
    host.close()


def test_results_wait_while_the_primary_host_is_offline_and_come_as_history(tmp_path: Path, broker: Broker) -> None:
    witness = Host(broker.port, "witness")  # another host, which is not the primary one
    output = node(broker, host_id="scada", timeout_ms=300, host_settle_ms=500)
    server = started(a_line(tmp_path, [output]))
    try:
        give(server, 5)
        until(lambda: [a["message"] for a in server.line.status()["alarms"]])
        assert "the primary host scada is not online" in server.line.status()["alarms"][0]["message"]
        assert server.line.status()["outputs"][0]["waiting"] == 5
        time.sleep(1.0)
        assert witness.messages == []  # neither a birth nor a death
        host = Host(broker.port)
        until(lambda: host.sequences() == [1, 2, 3, 4, 5], 10)
        assert all(one.metrics["Result/Verdict"].historical for one in host.data())
        assert not any(one.metrics["Counters/Results"].historical for one in host.data())
        give(server, 1)
        until(lambda: host.sequences() == [1, 2, 3, 4, 5, 6])
        assert not host.data()[-1].metrics["Result/Verdict"].historical
        until(lambda: server.line.status()["outputs"][0]["sent"] == 6)  # or it would come once more
        host.close()
        until(lambda: witness.of("NDEATH"))  # the node goes when its host does
        give(server, 4)
        time.sleep(0.5)
        assert len(witness.of("NBIRTH")) == 1
        host = Host(broker.port)
        until(lambda: host.sequences() == [7, 8, 9, 10], 10)
        until(lambda: server.line.status()["alarms"] == [])
        assert server.line.status()["outputs"][0]["dropped"] == {}
        keeps_the_rules(host.messages)
        keeps_the_rules(witness.messages)
        host.close()
    finally:
        server.close()
        witness.close()


@pytest.mark.parametrize(("settle_ms", "waits"), [(60_000, True), (0, False)])
def test_a_state_that_outlived_its_host_is_doubted(
    tmp_path: Path, broker: Broker, settle_ms: float, waits: bool
) -> None:
    witness = Host(broker.port, "witness")
    Host(broker.port).vanish()  # the broker still says that it is online
    server = started(a_line(tmp_path, [node(broker, host_id="scada", host_settle_ms=settle_ms)]))
    try:
        give(server, 3)
        if waits:
            time.sleep(1.5)
            assert witness.messages == []
            host = Host(broker.port)
            until(lambda: host.sequences() == [1, 2, 3], 10)
            host.close()
        else:
            until(lambda: witness.sequences() == [1, 2, 3], 10)
    finally:
        server.close()
        witness.close()


def test_what_the_broker_has_not_answered_for_is_not_sent(tmp_path: Path, broker: Broker) -> None:
    host = Host(broker.port)
    server = started(a_line(tmp_path, [node(broker)]))
    try:
        until(lambda: born(host), 30)
        give(server, 5)
        until(lambda: server.line.status()["outputs"][0]["sent"] == 5)
        broker.freeze()
        give(server, 20)  # the sockets take them
        time.sleep(2.0)
        [status] = server.line.status()["outputs"]
        assert (status["sent"], status["waiting"]) == (5, 20)
        broker.kill()
        broker.start()
        until(lambda: len(host.of("NBIRTH")) == 2 or give(server, 1), 30)
        until(lambda: server.line.status()["outputs"][0]["waiting"] == 0, 10)
    finally:
        server.close()
        host.close()
        broker.kill()


@pytest.mark.slow
def test_a_durable_node_loses_none_of_1000_results_while_broker_line_and_host_go(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    host = Host(broker.port)
    output = node(broker, host_id="scada", durable=True, capacity=50)
    server = started(a_line(tmp_path, [output]))
    until(lambda: born(host), 30)
    given = [record.sequence for record in give(server, 200)]
    broker.kill()
    given += [record.sequence for record in give(server, 300)]  # more than the memory holds
    broker.start()
    given += [record.sequence for record in give(server, 100)]
    until(lambda: len(set(host.sequences())) > 100, 30)
    broker.kill()
    given += [record.sequence for record in give(server, 100)]
    server.close()  # with results that nobody has heard
    server = started(a_line(tmp_path, [output]))
    try:
        given += [record.sequence for record in give(server, 100)]
        broker.start()
        until(lambda: set(given) <= set(host.sequences()), 60)
        host.close()
        heard = host.messages
        given += [record.sequence for record in give(server, 200)]
        host = Host(broker.port)
        until(lambda: set(given[-200:]) <= set(host.sequences()), 60)
        assert given == list(range(1, 1001))
        assert server.line.status()["outputs"][0]["dropped"] == {}
        until(lambda: server.line.status()["outputs"][0]["waiting"] == 0, 30)
        keeps_the_rules(host.messages)
        sequences = [
            one["Result/Sequence"] for one in heard if "Result/Sequence" in one.metrics and one.kind == "DDATA"
        ]
        assert list(dict.fromkeys(sequences)) == given[:800]  # each in its turn; some twice
        numbers = [one["bdSeq"] for one in heard if one.kind == "NBIRTH"]
        assert numbers == sorted(set(numbers))
    finally:
        server.close()
        host.close()
        broker.kill()
