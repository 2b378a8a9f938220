"""Results into a PLC's OPC UA server: the real client against an independent server on loopback."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from commands import run
from journals import record
from line_fakes import until
from opcua_plc import NODES, TAGS, Plc, Users, nodes
from output_fakes import a_line, free_port, give, started

from differad_edge.errors import ConfigError, OutputError, OutputRefusedError
from differad_edge.outputs.opcua.client import OpcUaClientOutput
from differad_edge.outputs.settings import OpcUaClientSettings
from differad_edge.results import Verdict
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.server import LineServer

NO = threading.Event()
PLC = Path(__file__).parents[1] / "opcua_plc.py"
VERDICTS = ("passed", "failed", "undecided")


@pytest.fixture(scope="module")
def shared() -> Iterator[Plc]:
    found = Plc(free_port()).start()
    yield found
    found.close()


@pytest.fixture
def plc(shared: Plc) -> Plc:
    shared.refuse.clear()
    shared.acknowledges = False
    shared.seen.clear()
    for name, kind in TAGS.items():
        shared.set(name, ua.get_default_value(kind))
    shared.writes.clear()
    return shared


def output(url: str, mapped: dict[str, str], **settings: Any) -> OpcUaClientOutput:
    given = {"type": "opcua-client", "url": url, "nodes": mapped, "hold_ms": 0, **settings}
    return OpcUaClientOutput(OpcUaClientSettings.model_validate(given))


def sent(plc: Plc, mapped: dict[str, str], *records: Any, **settings: Any) -> None:
    """Opens, sends and closes."""
    out = output(plc.url, mapped, **settings)
    try:
        out.open()
        plc.writes.clear()
        for one in records:
            out.send([one if isinstance(one, dict) else one.to_dict()], NO)
    finally:
        out.close()


def refused(plc: Plc, mapped: dict[str, str], **settings: Any) -> str:
    """Why it does not open."""
    out = output(plc.url, mapped, **settings)
    try:
        with pytest.raises(OutputError) as caught:
            out.open()
        return str(caught.value)
    finally:
        out.close()


ALL = {name: node for name, node in NODES.items() if name != "acknowledge"}


def test_every_field_in_the_type_that_its_node_has(plc: Plc) -> None:
    sent(plc, dict(ALL), record(7, "NG", part_id="part-7", job_id="j", is_simulated=True))
    found = {name: plc.read(name) for name in TAGS}
    assert found["captured"].replace(tzinfo=timezone.utc) == datetime(2026, 5, 4, 10, 0, 7, tzinfo=timezone.utc)
    assert '"sequence":7' in found["record"]
    assert found["score"] == pytest.approx(0.91)
    expected = {
        "passed": False,
        "failed": True,
        "undecided": False,
        "verdict": "NG",
        "verdict_code": 2,
        "reason": "",
        "reason_code": 0,
        "score_per_mille": 910,
        "findings": 5,
        "duration_ms": 46,
        "box_x1_px": 10,
        "box_y1_px": 20,
        "box_x2_px": 30.125,
        "box_y2_px": 40,
        "result_id": 7,
        "part_id": "part-7",
        "job_id": "j",
        "recipe_id": "gasket-a",
        "trigger_id": "t-7",
        "is_simulated": True,
        "ready": False,
        "result_ready": True,
    }
    assert {name: found[name] for name in expected} == expected


def test_first_nothing_then_all_values_then_that_they_are_complete(plc: Plc) -> None:
    mapped = nodes(*VERDICTS, "result_id", "part_id", "result_ready")
    sent(plc, mapped, record(1, "OK", part_id="a"), record(2, "UNDECIDED", part_id="b"))
    nothing = dict.fromkeys(("result_ready", *VERDICTS), False)
    first = {"passed": True, "failed": False, "undecided": False, "result_id": 1, "part_id": "a"}
    second = {"passed": False, "failed": False, "undecided": True, "result_id": 2, "part_id": "b"}
    complete = {"result_ready": True}
    assert plc.writes == [nothing, first, complete, nothing, second, complete]


def test_without_result_ready_the_number_comes_last(plc: Plc) -> None:
    sent(plc, nodes("passed", "result_id"), record(5, "OK"))
    assert plc.writes == [{"passed": False}, {"passed": True}, {"result_id": 5}]


def test_what_an_earlier_run_has_left_is_taken_away_when_it_connects(plc: Plc) -> None:
    plc.set("passed", True)
    plc.set("result_ready", True)
    sent(plc, nodes("passed", "result_ready"))
    assert (plc.read("passed"), plc.read("result_ready")) == (False, False)


def test_the_next_result_comes_after_the_plc_has_acknowledged_this_one(plc: Plc) -> None:
    mapped = nodes("passed", "failed", "result_id", "result_ready", "acknowledge", "part_id")
    out = output(plc.url, mapped)
    plc.set("acknowledge", 1)  # of another journal, long ago
    out.open()
    done: list[int] = []

    def send() -> None:
        for one in (record(1, "OK"), record(2, "NG")):
            out.send([one.to_dict()], NO)
            done.append(one.sequence)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        until(lambda: plc.read("result_ready"))
        time.sleep(0.3)
        assert (plc.read("result_id"), plc.read("passed"), done) == (1, True, [])
        plc.set("acknowledge", 77)  # not this one
        time.sleep(0.2)
        assert done == []
        plc.set("acknowledge", 1)
        until(lambda: plc.read("result_id") == 2 and plc.read("result_ready"))
        assert (plc.read("passed"), plc.read("failed"), done) == (False, True, [1])
        plc.set("acknowledge", 2)
        until(lambda: done == [1, 2])
        assert [plc.read(name) for name in ("result_ready", "passed", "failed")] == [False] * 3
    finally:
        thread.join(10)
        out.close()


def test_waiting_for_the_acknowledgement_ends_when_it_is_told_to_stop(plc: Plc) -> None:
    out = output(plc.url, nodes("result_id", "result_ready", "acknowledge"))
    out.open()
    stop = threading.Event()
    thread = threading.Thread(target=out.send, args=([record(1).to_dict()], stop))
    thread.start()
    until(lambda: plc.read("result_ready"))
    stop.set()
    thread.join(2)
    assert not thread.is_alive()
    out.close()


def test_without_acknowledge_a_result_stands_for_a_while(plc: Plc) -> None:
    started_s = time.monotonic()
    sent(plc, nodes("passed", "result_id"), record(1), record(2), record(3), hold_ms=150)
    assert time.monotonic() - started_s > 0.3


def test_values_that_do_not_fit(plc: Plc) -> None:
    mapped = nodes("findings", "duration_ms", "result_ready", "recipe_id") | {"part_id": "ns=2;s=Vision.own"}
    one = record(1, part_id="x" * 30, product="p" * 10).to_dict()
    one["findings"] = one["findings"] * 60
    sent(plc, mapped, one, text_limit=10)
    assert plc.read("findings") == 127  # the most that an SByte holds
    assert plc.read("own") == "x" * 9 + "~"
    assert plc.read("recipe_id") == "p" * 10


@pytest.mark.parametrize(
    ("field", "node", "why"),
    [
        ("passed", "ns=2;s=Vision.Pased", "passed (ns=2;s=Vision.Pased): there is no such node"),
        ("passed", "ns=2;s=Vision.fixed", "passed (ns=2;s=Vision.fixed): it may not be written"),
        ("passed", "ns=2;s=Vision.array", "it is an array"),
        ("passed", "ns=2;s=Vision.folder", "it cannot be read"),
        ("passed", NODES["verdict"], "it is String, allowed for this field: Boolean, SByte, Byte"),
        ("score", NODES["findings"], "it is SByte, allowed for this field: Float, Double"),
        ("result_id", NODES["score_per_mille"], "it is Int16, allowed for this field: Int32, UInt32"),
        ("part_id", NODES["passed"], "it is Boolean, allowed for this field: String"),
    ],
)
def test_a_node_that_cannot_hold_its_field_is_named(plc: Plc, field: str, node: str, why: str) -> None:
    mapped = {"result_ready": NODES["result_ready"], field: node}
    assert why in refused(plc, mapped)
    assert plc.writes == []


def test_acknowledge_is_of_the_type_of_result_id(plc: Plc) -> None:
    mapped = nodes("result_id", "result_ready") | {"acknowledge": NODES["box_y2_px"]}
    assert "it is Int32, allowed: UInt32, as result_id" in refused(plc, mapped)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (ua.StatusCodes.BadOutOfRange, OutputRefusedError),
        (ua.StatusCodes.BadNotWritable, OutputError),
        (ua.StatusCodes.GoodClamped, OutputError),
    ],
)
def test_every_answer_but_good_takes_the_verdict_away(plc: Plc, status: int, error: type[Exception]) -> None:
    plc.refuse["part_id"] = status
    with pytest.raises(OutputError, match=r"part_id \(ns=2;s=Vision.part_id\)") as caught:
        sent(plc, nodes("passed", "part_id", "result_ready"), record(1, "OK"))
    assert type(caught.value) is error
    assert {"result_ready": True} not in plc.writes
    assert (plc.read("passed"), plc.read("result_ready")) == (False, False)


def test_the_state_and_a_heartbeat(plc: Plc) -> None:
    out = output(plc.url, nodes("ready", "state", "state_code", "heartbeat", "result_id"))
    out.open()
    for beat in range(1, 4):
        out.show({"state": "Ready", "stations": []})
        until(lambda beat=beat: plc.read("heartbeat") == beat)
    assert [plc.read(name) for name in ("ready", "state", "state_code")] == [True, "Ready", 4]
    plc.refuse["heartbeat"] = ua.StatusCodes.BadUserAccessDenied
    out.show({"state": "Error", "stations": []})

    def noticed() -> bool:
        try:
            out.check()
        except OutputError as error:
            return "heartbeat (ns=2;s=Vision.heartbeat): BadUserAccessDenied" in str(error)
        return False

    until(noticed)
    plc.refuse.clear()
    out.close()
    assert plc.read("ready") is False  # the line has gone
    out.show({"state": "Ready", "stations": []})  # and says no more
    out.close()


def test_a_server_that_is_not_there_or_says_nothing(tmp_path: Path) -> None:
    import socket

    out = output(f"opc.tcp://127.0.0.1:{free_port()}", nodes("result_id"), timeout_ms=500)
    with pytest.raises(OutputError, match=r"opcua-client opc.tcp://127"):
        out.open()
    out.close()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        out = output(f"opc.tcp://127.0.0.1:{silent.getsockname()[1]}", nodes("result_id"), timeout_ms=300)
        started_s = time.monotonic()
        with pytest.raises(OutputError):
            out.open()
        out.close()
        assert time.monotonic() - started_s < 5


def certificates(folder: Path, name: str) -> Path:
    assert run("certificate", folder / name, "--host", "localhost").code == 0
    return folder / name


def test_an_encrypted_channel_to_that_plc_alone_and_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLC_USER", "vision")
    monkeypatch.setenv("PLC_PASSWORD", "correct-horse")
    monkeypatch.setenv("PLC_WRONG", "wrong-horse")
    theirs, own, other = (certificates(tmp_path, name) for name in ("plc", "line", "other"))
    files = {"certificate": own / "certificate.der", "private_key": own / "private_key.pem", "timeout_ms": 3000}
    user = {"user_env": "PLC_USER", "password_env": "PLC_PASSWORD"}
    pinned = {"server_certificate": theirs / "certificate.der"}
    plc = Plc(free_port(), certificates=theirs, users=Users("vision", "correct-horse")).start()
    mapped = nodes("passed", "result_ready")
    try:
        sent(plc, mapped, record(1, "OK"), **files, **user, **pinned)
        assert (plc.read("passed"), plc.read("result_ready")) == (True, True)
        plc.writes.clear()
        wrong = refused(plc, mapped, **files, **pinned, user_env="PLC_USER", password_env="PLC_WRONG")
        assert "BadUserAccessDenied" in wrong
        assert "wrong-horse" not in wrong
        assert "BadIdentityTokenRejected" in refused(plc, mapped, **files, **pinned)  # nobody in particular
        assert "no answer" in refused(plc, mapped, **files, **user, server_certificate=other / "certificate.der")
        assert "No matching endpoints" in refused(plc, mapped, timeout_ms=3000, **user)  # a channel in the clear
        assert plc.writes == []
    finally:
        plc.close()
    shutil.copy(own / "private_key.pem", tmp_path / "no.der")
    with pytest.raises(ConfigError, match="server_certificate"):
        output(plc.url, mapped, **files, server_certificate=tmp_path / "no.der")
    with pytest.raises(ConfigError, match="PLC_NONE"):
        output(plc.url, mapped, user_env="PLC_NONE")


def test_a_whole_line_and_a_plc_that_acknowledges(plc: Plc, tmp_path: Path) -> None:
    plc.acknowledges = True
    mapped = nodes("passed", "failed", "result_id", "part_id", "result_ready", "acknowledge", "ready", "heartbeat")
    given = {"type": "opcua-client", "url": plc.url, "nodes": mapped, "durable": True, "poll_ms": 5}
    verdicts = iter([Verdict.OK, Verdict.NG, Verdict.UNDECIDED, Verdict.OK])
    server = started(a_line(tmp_path, [given], script=lambda image, product: next(verdicts)))
    try:
        until(lambda: server.line.status()["outputs"][0]["open"], 30)
        give(server, 4)
        until(lambda: server.line.status()["outputs"][0]["sent"] == 4, 30)
        until(lambda: plc.read("ready"), 10)
    finally:
        server.close()
    assert [row[:3] for row in plc.seen] == [
        (1, True, False),
        (2, False, True),
        (3, False, False),
        (4, True, False),
    ]
    assert plc.read("ready") is False


class PlcProcess:
    """One of its own that can be killed; ``seen``: what it has taken, over all its lives."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._file = folder / "seen.tsv"
        self.start()

    @property
    def seen(self) -> list[list[str]]:
        return [row.split("\t") for row in self._file.read_text().splitlines()] if self._file.exists() else []

    def start(self) -> None:
        command = [sys.executable, str(PLC), str(self.port), str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def line(self, folder: Path) -> LineServer:
        """A line that writes into it, durably, with a verdict that depends on the part."""
        mapped = nodes("passed", "failed", "result_id", "part_id", "result_ready", "acknowledge")
        given = {"type": "opcua-client", "url": f"opc.tcp://127.0.0.1:{self.port}", "nodes": mapped, "durable": True}
        return started(
            a_line(
                folder,
                [{**given, "capacity": 20, "poll_ms": 2, "timeout_ms": 1000}],
                script=lambda image, product: Verdict.NG if image[0, 0, 0] % 2 else Verdict.OK,
            )
        )

    def assert_has_all(self, records: list[ResultRecord]) -> None:
        said = {str(one.sequence): [str(one.verdict is Verdict.OK), str(one.verdict is Verdict.NG)] for one in records}
        assert list(said) == [str(number) for number in range(1, len(records) + 1)]
        assert list(dict.fromkeys(row[0] for row in self.seen)) == list(said)
        assert all(said[row[0]] == row[1:3] for row in self.seen)
        assert {row[1] for row in self.seen} == {"True", "False"}


@pytest.mark.slow
def test_a_plc_that_is_killed_in_the_middle_gets_every_result(tmp_path: Path) -> None:
    plc = PlcProcess(tmp_path)
    server = plc.line(tmp_path)
    records = []
    try:
        for _ in range(3):
            until(lambda: server.line.status()["outputs"][0]["open"], 60)
            before = len(plc.seen)
            records += give(server, 60, seed=len(records))
            until(lambda before=before: len(plc.seen) > before + 10, 60)
            plc.kill()
            records += give(server, 10, seed=len(records))  # the line does not wait for it
            plc.start()
        until(lambda: server.line.status()["outputs"][0]["waiting"] == 0, 120)
        assert server.line.status()["outputs"][0]["dropped"] == {}
    finally:
        server.close()
        plc.kill()
    plc.assert_has_all(records)


@pytest.mark.slow
def test_a_plc_that_hangs_costs_the_line_no_time_and_nothing_is_lost_when_the_line_starts_anew(tmp_path: Path) -> None:
    plc = PlcProcess(tmp_path)
    server = plc.line(tmp_path)
    try:
        until(lambda: server.line.status()["outputs"][0]["open"], 60)
        records = give(server, 20)
        plc.signal(signal.SIGSTOP)
        records += give(server, 1, seed=20)
        until(lambda: server.line.status()["outputs"][0]["fault"] is not None, 30)
        started_s = time.monotonic()
        records += give(server, 20, seed=21)
        assert time.monotonic() - started_s < 5
        started_s = time.monotonic()
        server.close()
        assert time.monotonic() - started_s < 20
        plc.signal(signal.SIGCONT)
        server = plc.line(tmp_path)
        until(lambda: server.line.status()["outputs"][0]["waiting"] == 0, 120)
    finally:
        server.close()
        plc.kill()
    plc.assert_has_all(records)
