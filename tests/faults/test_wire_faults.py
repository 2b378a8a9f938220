"""Clients that are slow, dead, broken or hostile: the line and the other clients do not notice."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_fakes import IMAGE, LIMIT_S, FakeLine, Served, ask, make_keys, raw_socket, until

from differad_edge.client import InspectionClient
from differad_edge.errors import NoAnswerError, RefusedError
from differad_edge.runtime.keys import ClientKeys, add_client, create_server_keys, revoke_client

pytestmark = pytest.mark.usefixtures("closed_sockets")

ROOT = Path(__file__).resolve().parent.parent.parent


def head(**fields: object) -> bytes:
    return json.dumps({"schema_version": 1, "request_id": "r1", **fields}).encode()


INSPECT = head(op="inspect", image={"encoding": "raw", "shape": [48, 64, 3], "dtype": "uint8"})


def serves(served: Served) -> None:
    """The server still answers, and the thread that does is the first one."""
    assert served.control.alive
    assert served.client().inspect(IMAGE).is_ok


@contextmanager
def tcp(served: Served) -> Iterator[socket.socket]:
    host, _, port = served.control.endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        yield connection


# -- subscribers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients take in only a few messages beyond those that they have read."""
    monkeypatch.setattr("differad_edge.client.core._WAITING_RESULTS", 5)


@pytest.mark.usefixtures("slow_clients")
def test_a_slow_subscriber_blocks_nobody_and_does_not_fill_the_memory() -> None:
    with Served(high_water_mark=50) as served:
        served.following_client()
        before = psutil.Process().memory_info().rss
        message = json.dumps({"type": "event", "schema_version": 1, "detail": "x" * 20_000}).encode()
        took_s = []
        for _ in range(10_000):  # 200 MB, far more than the buffers of the system take
            started = time.perf_counter()
            served.publisher.send(message)
            took_s.append(time.perf_counter() - started)
        assert sorted(took_s)[len(took_s) // 2] < 50e-6
        assert max(took_s) < 0.5  # nobody waited; a busy machine may take a moment
        assert psutil.Process().memory_info().rss - before < 100e6


@pytest.mark.usefixtures("slow_clients")
def test_a_slow_subscriber_sees_what_it_missed_and_fetches_it() -> None:
    with Served(high_water_mark=10) as served:
        client = served.following_client()
        padding = "x" * 200_000
        for _ in range(200):
            served.line.finish(part_id=padding)
        found: list[int] = []

        def all_there() -> bool:
            served.line.beat()
            while (record := client.next_result(timeout_ms=20)) is not None:
                found.append(record.sequence)
            return len(found) == 200

        until(all_there)
        assert found == list(range(1, 201))
        assert client.missed == 0
        assert served.line.calls_of("results")  # without a loss this test would show nothing


def test_a_dead_subscriber_is_no_burden(served: Served) -> None:
    code = f"""
import zmq, time
socket = zmq.Context().socket(zmq.SUB); socket.subscribe(b''); socket.connect({served.publisher.endpoint!r})
socket.recv(); print('on', flush=True); time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        watcher = threading.Thread(target=lambda: process.stdout and process.stdout.readline())
        watcher.start()
        until(lambda: served.line.beat() or not watcher.is_alive())
        os.kill(process.pid, signal.SIGSTOP)
        client = served.following_client()
        for _ in range(300):
            served.line.finish()
        os.kill(process.pid, signal.SIGKILL)
        for sequence in range(1, 301):
            record = client.next_result(timeout_ms=1000 * LIMIT_S)
            assert record is not None
            assert record.sequence == sequence
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# -- clients that leave -----------------------------------------------------------------------------------------------


def test_a_client_that_leaves_before_its_answer_harms_nobody(served: Served) -> None:
    served.line.hold_results()
    with raw_socket(zmq.DEALER, served.control.endpoint) as client:
        client.send(head(op="trigger"))
        until(lambda: served.line.held)
    served.line.release()
    until(lambda: served.control.counters.get("undeliverable", 0) == 1)
    serves(served)


GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + b"\0" * 31
READY = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"


def short(frame: bytes, *, more: bool = False) -> bytes:
    """A frame as ZMTP puts it on the wire."""
    return bytes([int(more), len(frame)]) + frame


@contextmanager
def peer(served: Served) -> Iterator[socket.socket]:
    """A connection after its handshake: what is sent now is messages."""
    with tcp(served) as connection:
        connection.settimeout(LIMIT_S)
        connection.sendall(GREETING + READY)
        received = b""
        while len(received) < len(GREETING) + len(READY):  # the server's have the same lengths
            data = connection.recv(4096)
            assert data, received
            received += data
        yield connection


def test_the_bytes_below_are_a_connection_that_the_server_takes(served: Served) -> None:
    with peer(served) as connection:
        connection.sendall(short(head(op="status")))
        received = b""
        while b'"state":"Ready"' not in received:
            data = connection.recv(4096)
            assert data, received
            received += data


def test_a_client_that_dies_in_the_middle_of_a_message(served: Served) -> None:
    size = 60_000_000
    for _ in range(3):
        with peer(served) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no farewell
            connection.sendall(short(INSPECT, more=True) + b"\x02" + size.to_bytes(8, "big") + bytes(size // 2))
    serves(served)
    assert len(served.line.calls) == 1


@pytest.mark.parametrize(
    "data",
    [b"", GREETING[:5], GREETING, GREETING + READY[:10], GREETING + READY, b"GET / HTTP/1.1\r\nHost: line\r\n\r\n"],
)
def test_half_handshakes_and_other_protocols(served: Served, data: bytes) -> None:
    with tcp(served) as connection:
        connection.sendall(data)
        serves(served)
    serves(served)


@pytest.mark.parametrize(
    "data",
    [
        short(INSPECT)[:-50],
        short(INSPECT, more=True),  # more follows, and never does
        b"\x02" + (1 << 62).to_bytes(8, "big") + b"x",  # a frame of 4 EiB is announced
        b"\x02" + (1 << 63).to_bytes(8, "big") + b"x",  # and one that no machine can count
        b"\xff" * 20,  # flags that do not exist
        b"\x04\x05\x04PING",  # a command, cut off
    ],
)
def test_half_frames(served: Served, data: bytes) -> None:
    with peer(served) as connection:
        connection.sendall(data)
        serves(served)
    serves(served)
    assert len(served.line.calls) == 2


def test_random_bytes_into_the_port(served: Served) -> None:
    noise = random.Random(7)
    for index in range(30):
        with (peer if index % 2 else tcp)(served) as connection, suppress(OSError):  # thrown out, as it ought to be
            connection.sendall(noise.randbytes(2000))
    serves(served)
    assert len(served.line.calls) == 1


def test_a_client_that_never_reads_its_answers(served: Served) -> None:
    served.line.status = lambda: {"text": "x" * 100_000}  # type: ignore[method-assign]
    with raw_socket(zmq.DEALER, served.control.endpoint, rcvhwm=1, sndtimeo=50) as deaf:
        with suppress(zmq.Again):
            for index in range(3000):
                deaf.send(head(op="status", request_id=f"r{index}"))
        serves(served)
    serves(served)


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Served]:
    with Served() as served:
        yield served


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.just(b""),
            st.just(INSPECT),
            st.just(INSPECT[:-9]),
            st.dictionaries(st.sampled_from(["op", "request_id", "image", "product"]), st.text(max_size=5)).map(
                lambda fields: head(**fields)
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_message_is_answered_whatever_it_holds(fuzzed: Served, frames: list[bytes]) -> None:
    with raw_socket(zmq.DEALER, fuzzed.control.endpoint) as client:
        (reply,) = ask(client, *frames)[-1:]
        found = json.loads(reply)
        assert found["schema_version"] == 1
        assert found["ok"] is False
        assert found["error"]["code"] in ("invalid-message", "image-size")
        assert json.loads(ask(client, head(op="status", request_id="after"))[-1])["ok"]


def test_a_message_that_is_too_large_is_refused_by_name() -> None:
    with Served(max_message_bytes=100_000) as served:
        with raw_socket(zmq.DEALER, served.control.endpoint) as client:
            refused = json.loads(ask(client, INSPECT, bytes(120_000))[0])
            assert refused["request_id"] == "r1"
            assert refused["error"]["code"] == "too-large"
            assert "allowed: at most 100000" in refused["error"]["message"]
            assert json.loads(ask(client, INSPECT, *[bytes(40_000)] * 3)[0])["error"]["code"] == "too-large"
        with pytest.raises(RefusedError) as error:
            served.client().inspect(np.zeros((200, 200, 3), np.uint8))
        assert error.value.code == "too-large"
        serves(served)


def test_a_frame_beyond_all_measure_breaks_the_connection_and_nothing_else() -> None:
    with Served(max_message_bytes=100_000) as served:
        with raw_socket(zmq.DEALER, served.control.endpoint) as client:
            client.send_multipart([INSPECT, bytes(10_000_000)])
            assert not client.poll(200)
        with pytest.raises(NoAnswerError, match="the message was far larger than it allows"):
            served.client().inspect(np.zeros((2000, 2000, 3), np.uint8), timeout_ms=300)
        serves(served)
        assert [call["image"].shape for call in served.line.calls_of("inspect")] == [IMAGE.shape]


# -- addresses --------------------------------------------------------------------------------------------------------


def test_a_stale_ipc_socket_after_kill_9_does_not_stop_a_start(tmp_path: Path) -> None:
    control, publish = f"ipc://{tmp_path}/control", f"ipc://{tmp_path}/publish"
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
from wire_fakes import Served
served = Served(control={control!r}, publish={publish!r})
print('up', flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "up"
    process.kill()
    process.wait()
    process.stdout.close()
    assert (tmp_path / "control").exists()
    with Served(control=control, publish=publish) as served:
        serves(served)


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(closed_sockets: None, tmp_path: Path) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path / "keys"
    make_keys(folder, "good")
    with Served(FakeLine(), keys=folder) as served:
        yield served, folder


def gets_nothing(served: Served, keys: Path | None) -> None:
    with InspectionClient(*served.addresses, keys=keys, timeout_ms=250, silence_ms=250) as client:
        with pytest.raises(NoAnswerError, match="are the keys those of this server"):
            client.status()
        served.line.beat()
        served.line.finish()
        with pytest.raises(NoAnswerError):
            client.next_result()
        assert client.last_heartbeat is None


def test_a_listed_client_gets_in(locked: tuple[Served, Path]) -> None:
    served, folder = locked
    client = served.following_client(keys=folder / "bundles" / "good.json")
    assert client.inspect(IMAGE).is_ok
    record = client.next_result(timeout_ms=1000 * LIMIT_S)
    assert record is not None
    assert record.sequence == 1


def test_everybody_else_gets_nothing_while_a_good_client_works(locked: tuple[Served, Path], tmp_path: Path) -> None:
    served, folder = locked
    good = served.following_client(keys=folder / "bundles" / "good.json")
    gets_nothing(served, None)  # no keys
    (foreign,) = make_keys(tmp_path / "other", "good")
    gets_nothing(served, foreign)  # another server's
    unknown = tmp_path / "unknown.json"
    stranger = json.loads(foreign.read_text())
    stranger["server_public"] = ClientKeys.load(folder / "bundles" / "good.json").server_public.decode()
    unknown.write_text(json.dumps(stranger))
    gets_nothing(served, unknown)  # the right server's, and a key that is not listed
    assert good.inspect(IMAGE).is_ok
    assert len(served.line.calls) == 1


def test_a_revoked_client_gets_nothing_and_a_new_one_gets_in_at_once(
    locked: tuple[Served, Path], tmp_path: Path
) -> None:
    served, folder = locked
    bundle = add_client(folder, "robot-1")
    with InspectionClient(served.control.endpoint, None, keys=bundle, timeout_ms=1000 * LIMIT_S) as client:
        assert client.status()["state"] == "Ready"
    kept = tmp_path / "kept.json"
    kept.write_text(bundle.read_text())
    revoke_client(folder, "robot-1")
    gets_nothing(served, kept)
    assert served.client(keys=folder / "bundles" / "good.json").status()["state"] == "Ready"


def test_two_servers_in_one_process_have_their_own_keys(locked: tuple[Served, Path], tmp_path: Path) -> None:
    served, folder = locked
    make_keys(tmp_path / "other", "theirs")
    with Served(FakeLine(), keys=tmp_path / "other") as other, Served() as open_one:
        assert other.client(keys=tmp_path / "other" / "bundles" / "theirs.json").status()["state"] == "Ready"
        assert open_one.client().status()["state"] == "Ready"
        gets_nothing(other, folder / "bundles" / "good.json")
    assert served.client(keys=folder / "bundles" / "good.json").status()["state"] == "Ready"


def test_with_keys_other_addresses_are_allowed(tmp_path: Path) -> None:
    create_server_keys(tmp_path)
    with Served(FakeLine(), control="tcp://0.0.0.0:*", publish="tcp://0.0.0.0:*", keys=tmp_path) as served:
        assert served.control.endpoint.startswith("tcp://0.0.0.0:")
