"""A webhook: a real HTTP server on loopback that checks signatures, answers what it is told, and dies."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from line_fakes import until
from output_fakes import SECRET, a_line, give, started

from differad_edge.errors import ConfigError
from differad_edge.outputs.webhook import sign, verify
from differad_edge.runtime.record import ResultRecord


class Receiver:
    """Keeps the results whose signature is right. ``answers``: status codes for the next requests, then 204."""

    def __init__(self, port: int = 0, tls: Path | None = None) -> None:
        self.got: list[ResultRecord] = []
        self.paths: list[str] = []
        self.bad = 0
        self.answers: list[int] = []
        self._connections: set[socket.socket] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                receiver._connections.add(self.request)
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                stamp, signature = self.headers["Differad-Timestamp"], self.headers["Differad-Signature"]
                status = receiver.answers.pop(0) if receiver.answers else 204
                if not verify(SECRET, stamp, body, signature):
                    receiver.bad, status = receiver.bad + 1, 401
                elif status == 204:
                    receiver.got.append(ResultRecord.from_json(body))
                self.send_response(status)
                if status in (302, 307):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "c.pem", tls / "k.pem")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def hang_up(self) -> None:
        """As when it is killed, in the middle of an answer or not; or tired of a connection."""
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.hang_up()
        self._thread.join(5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)


def hook(port: int, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/results?line=1"
    return {"type": "webhook", "url": url, "secret_env": "HOOK_SECRET", "timeout_ms": 2000, **more}


def test_results_arrive_signed_and_in_order(tmp_path: Path, receiver: Receiver) -> None:
    server = started(a_line(tmp_path, [hook(receiver.port)]))
    given = give(server, 20)
    until(lambda: len(receiver.got) == 20)
    server.close()
    assert (receiver.got, receiver.bad, set(receiver.paths)) == (given, 0, {"/results?line=1"})


def test_failures_and_redirects_are_tried_again_and_refusals_are_counted(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [500, 503, 307, 429, 422]
    server = started(a_line(tmp_path, [hook(receiver.port)]))
    give(server, 3)
    until(lambda: len(receiver.got) == 2)
    [status] = server.line.status()["outputs"]
    server.close()
    assert [record.sequence for record in receiver.got] == [2, 3]
    assert (status["failures"], status["dropped"]) == (4, {"refused": 1})
    assert "/elsewhere" not in receiver.paths


def test_a_connection_that_the_receiver_has_closed_meanwhile_is_no_failure(tmp_path: Path, receiver: Receiver) -> None:
    server = started(a_line(tmp_path, [hook(receiver.port)]))
    give(server, 1)
    until(lambda: len(receiver.got) == 1)
    receiver.hang_up()
    give(server, 1)
    until(lambda: len(receiver.got) == 2)
    [status] = server.line.status()["outputs"]
    server.close()
    assert status["failures"] == 0


@pytest.mark.slow
def test_a_durable_webhook_loses_none_of_1000_results_while_the_receiver_is_killed(tmp_path: Path) -> None:
    receivers = [Receiver()]
    port = receivers[0].port
    output = hook(port, durable=True, capacity=50)
    server = started(a_line(tmp_path, [output]))
    given = [record.sequence for record in give(server, 300)]
    receivers[-1].close()
    given += [record.sequence for record in give(server, 300)]
    receivers.append(Receiver(port))
    given += [record.sequence for record in give(server, 100)]
    receivers[-1].close()
    server.close()
    server = started(a_line(tmp_path, [output]))
    given += [record.sequence for record in give(server, 300)]
    receivers.append(Receiver(port))
    until(lambda: set(given) <= {record.sequence for receiver in receivers for record in receiver.got}, 60)
    [status] = server.line.status()["outputs"]
    server.close()
    receivers[-1].close()
    assert given == list(range(1, 1001))
    assert status["dropped"] == {}
    assert list(dict.fromkeys(record.sequence for receiver in receivers for record in receiver.got)) == given


def test_https_with_a_certificate_that_is_trusted_and_one_that_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True
    )
    receiver = Receiver(tls=folder)
    url = f"https://127.0.0.1:{receiver.port}/results"
    server = started(
        a_line(
            tmp_path,
            [
                hook(0, url=url, ca_file=folder / "c.pem"),
                hook(0, url=url, name="stranger"),
            ],
        )
    )
    give(server, 2)
    until(lambda: len(receiver.got) == 2)
    until(lambda: "certificate" in (server.line.status()["outputs"][1]["fault"] or "").lower())
    server.close()
    receiver.close()
    assert len(receiver.got) == 2


def test_a_signature_is_for_one_body_and_one_time() -> None:
    good = sign(SECRET, "1000", b"body")
    assert verify(SECRET, "1000", b"body", good, now_s=1100)
    assert not verify(SECRET, "1000", b"bodi", good, now_s=1100)
    assert not verify(SECRET, "1001", b"body", good, now_s=1100)
    assert not verify(SECRET + "x", "1000", b"body", good, now_s=1100)
    assert not verify(SECRET, "1000", b"body", good, now_s=1301)
    assert not verify(SECRET, "soon", b"body", good, now_s=1100)


def test_a_key_that_is_too_short_is_refused_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "tiny-key")
    with pytest.raises(ConfigError, match="HOOK_SECRET is too short, allowed: at least 16") as caught:
        a_line(tmp_path, [hook(1)])
    assert "tiny-key" not in str(caught.value)
