"""The control socket as a foreign client sees it: bare ZeroMQ sockets, frames, limits."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import zmq
from wire_fakes import IMAGE, LIMIT_S, FakeLine, Served, ask, raw_socket, until

from differad_edge.errors import AddressInUseError, ConfigError
from differad_edge.runtime.control import ControlServer
from differad_edge.runtime.pending import ControlLimits
from differad_edge.runtime.publisher import Publisher

pytestmark = pytest.mark.usefixtures("closed_sockets")


def head(**fields: Any) -> bytes:
    return json.dumps({"schema_version": 1, "request_id": "r1", **fields}).encode()


INSPECT = head(op="inspect", image={"encoding": "raw", "shape": [48, 64, 3], "dtype": "uint8"})


def answer(frames: list[bytes]) -> dict[str, Any]:
    frame = frames[-1]  # a message that began with an empty frame is answered as that of a REQ socket
    found = json.loads(frame)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_dealer_and_req_are_served_alike(served: Served, kind: int) -> None:
    with raw_socket(kind, served.control.endpoint) as client:
        found = answer(ask(client, INSPECT, IMAGE.tobytes()))
        assert (found["schema_version"], found["request_id"], found["ok"], found["type"]) == (1, "r1", True, "result")
        assert found["result"]["verdict"] == "OK"
        assert answer(ask(client, head(op="status")))["status"]["state"] == "Ready"


def test_a_refusal_is_a_reply(served: Served) -> None:
    with raw_socket(zmq.DEALER, served.control.endpoint) as client:
        found = answer(ask(client, head(op="status", schema_version=3)))
        error = {"code": "invalid-message", "message": "header: schema_version: got 3, allowed: 1"}
        assert found == {"schema_version": 1, "request_id": "r1", "ok": False, "error": error}
        assert answer(ask(client, b"\xff"))["request_id"] is None
        assert answer(ask(client, b""))["error"]["code"] == "invalid-message"
        assert answer(ask(client, b"", b"", b""))["error"]["code"] == "invalid-message"
    assert served.control.counters["malformed"] == 4


def test_wait_false_answers_the_acceptance_at_once(served: Served) -> None:
    served.line.hold_results()
    with raw_socket(zmq.DEALER, served.control.endpoint) as client:
        assert answer(ask(client, head(op="trigger", trigger_id="t", wait=False)))["accepted"] == {
            "trigger_id": "t",
            "station": "main",
        }
        assert served.line.journal == []
        served.line.release()
        assert not client.poll(50)


def test_a_pipelining_client_gets_each_answer_under_its_id(served: Served) -> None:
    with raw_socket(zmq.DEALER, served.control.endpoint) as client:
        for index in range(20):
            client.send(head(op="trigger", request_id=f"r{index}", trigger_id=f"t{index}"))
        found = {}
        for _ in range(20):
            assert client.poll(1000 * LIMIT_S)
            reply = answer(client.recv_multipart())
            found[reply["request_id"]] = reply["result"]["trigger_id"]
        assert found == {f"r{index}": f"t{index}" for index in range(20)}


def test_one_client_cannot_take_all_the_places() -> None:
    with Served(limits=ControlLimits(pending=5, pending_per_client=3)) as served:
        served.line.hold_results()
        address = served.control.endpoint
        with raw_socket(zmq.DEALER, address) as greedy, raw_socket(zmq.DEALER, address) as modest:
            for index in range(3):
                greedy.send(head(op="trigger", request_id=f"r{index}"))
            refused = answer(ask(greedy, head(op="trigger", request_id="r3")))
            assert (refused["request_id"], refused["error"]["code"]) == ("r3", "busy")
            same = answer(ask(greedy, head(op="trigger", request_id="r0")))
            assert "pending already" in same["error"]["message"]
            assert answer(ask(modest, head(op="status")))["ok"]
            served.line.release()
            assert {answer(greedy.recv_multipart())["ok"] for _ in range(3)} == {True}
            assert answer(ask(greedy, head(op="status")))["ok"]


def test_slow_operations_beyond_what_may_wait_are_refused_as_busy(served: Served) -> None:
    gate = served.line.gates["reload"] = threading.Event()
    with raw_socket(zmq.DEALER, served.control.endpoint) as client:
        for index in range(7):
            client.send(head(op="reload", request_id=f"r{index}"))
            if index == 0:
                until(lambda: served.line.calls)
        for _ in range(2):
            assert client.poll(1000 * LIMIT_S)
            assert answer(client.recv_multipart())["error"]["code"] == "busy"
        gate.set()
        assert [answer(client.recv_multipart())["ok"] for _ in range(5)] == [True] * 5


def test_a_request_that_the_line_forgets_is_given_up() -> None:
    now = [0.0]
    with Served(limits=ControlLimits(answer_within_s=10), clock=lambda: now[0]) as served:
        served.line.hold_results()
        with raw_socket(zmq.DEALER, served.control.endpoint) as client:
            client.send(head(op="trigger"))
            until(lambda: served.line.held)
            now[0] = 11.0
            assert client.poll(1000 * LIMIT_S)
            assert answer(client.recv_multipart())["error"]["code"] == "no-result"
            served.line.release()
            assert not client.poll(50)


def test_closing_answers_whoever_waits() -> None:
    with Served() as served:
        served.line.hold_results()
        with raw_socket(zmq.DEALER, served.control.endpoint) as client:
            client.send(head(op="trigger"))
            until(lambda: served.line.held)
            served.control.close()
            served.control.close()
            assert client.poll(1000 * LIMIT_S)
            assert answer(client.recv_multipart())["error"]["code"] == "stopping"
        served.line.release()


def test_stop_is_answered_before_the_server_ends(served: Served) -> None:
    with raw_socket(zmq.REQ, served.control.endpoint) as client:
        assert answer(ask(client, head(op="stop")))["ok"]
    assert served.line.stopped.wait(LIMIT_S)


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["*", "0"])
def test_a_free_port_is_found_and_named(port: str) -> None:
    publisher = Publisher(f"tcp://127.0.0.1:{port}")
    assert publisher.endpoint.startswith("tcp://127.0.0.1:")
    assert publisher.endpoint.rpartition(":")[2] not in ("0", "*")
    publisher.close()
    publisher.close()
    publisher.send(b"nobody hears it")


def test_two_servers_on_one_port(served: Served) -> None:
    control, publish = served.addresses
    with pytest.raises(AddressInUseError, match=rf"control: {control} is in use; is another server running"):
        ControlServer(FakeLine(), control)
    with pytest.raises(AddressInUseError, match=f"publish: {publish} is in use"):
        Publisher(publish)
    assert served.client().status()["state"] == "Ready"


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("ipc:///no/such/folder/line.sock", "the folder does not exist"),
        (f"ipc:///tmp/{'x' * 200}", "cannot be bound"),
    ],
)
def test_an_address_that_cannot_be_bound_says_why(endpoint: str, message: str) -> None:
    with pytest.raises(AddressInUseError, match=message):
        Publisher(endpoint)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:*", "tcp://*:0", "nonsense"])
def test_beyond_loopback_only_with_keys(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="without keys, allowed: a loopback address, or keys"):
        ControlServer(FakeLine(), endpoint)
    with pytest.raises(ConfigError, match="without keys"):
        Publisher(endpoint)


def test_a_double_start_does_not_steal_an_ipc_socket(tmp_path: Path) -> None:
    control, publish = f"ipc://{tmp_path}/control", f"ipc://{tmp_path}/publish"
    with Served(control=control, publish=publish) as served:
        for _ in range(2):
            with pytest.raises(AddressInUseError, match="is in use"):
                Served(control=control, publish=f"{publish}-2")
        with pytest.raises(AddressInUseError, match="is in use"):
            Publisher(publish)
        assert served.client().status()["state"] == "Ready"
    with Served(control=control, publish=publish) as again:
        assert again.client().status()["state"] == "Ready"


def test_a_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_text("mine")
    with pytest.raises(AddressInUseError, match="that is no socket"):
        Publisher(f"ipc://{file}")
    assert file.read_text() == "mine"
