"""The dashboard on its socket: bound early, closed soon, and refused by name."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import httpx
import pytest
from web_client import TOKEN
from web_fakes import FakeLine

from differad_edge.errors import AddressInUseError, ConfigError, WireError
from differad_edge.runtime.settings import WebSettings
from differad_edge.web import WebServer


def test_a_taken_port_is_known_before_anything_starts(line: FakeLine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=rf"web\.address: {address} cannot be bound: it is in use"):
            WebServer(line, WebSettings(address=address))
    assert line.listeners == 0


def test_two_dashboards_on_one_port(serve: Callable[..., WebServer], line: FakeLine) -> None:
    first = serve()
    with pytest.raises(AddressInUseError):
        WebServer(line, WebSettings(address=first.address))
    assert httpx.get(f"{first.url}healthz").status_code == 200


def test_an_address_that_is_not_ours(line: FakeLine) -> None:
    with pytest.raises(AddressInUseError, match="203"):
        WebServer(line, WebSettings(address="203.0.113.7:8080", token=TOKEN))
    with pytest.raises(AddressInUseError, match="no-such-host"):
        WebServer(line, WebSettings(address="no-such-host.invalid:8080", token=TOKEN))
    with pytest.raises(ConfigError, match=r"web\.address"):
        WebServer(line, WebSettings())


def test_the_bound_address_is_told(serve: Callable[..., WebServer]) -> None:
    server = serve()
    host, _, port = server.address.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert server.url == f"http://{server.address}/"
    assert httpx.get(f"{server.url}healthz").status_code == 200


def test_all_interfaces_answer_to_any_name(serve: Callable[..., WebServer]) -> None:
    server = serve(address="*:*", token=TOKEN)
    headers = {"Host": "line3.plant", "Authorization": f"Bearer {TOKEN}"}
    assert server.url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{server.url}api/status", headers=headers).status_code == 200


def test_the_port_is_free_again_after_closing(serve: Callable[..., WebServer], line: FakeLine) -> None:
    first = serve()
    httpx.get(f"{first.url}healthz")
    first.close()
    first.close()
    second = WebServer(line, WebSettings(address=first.address)).start()
    try:
        assert httpx.get(f"{second.url}healthz").status_code == 200
    finally:
        second.close()


def test_one_that_was_never_started_lets_go_of_its_port(line: FakeLine) -> None:
    server = WebServer(line, WebSettings(address="127.0.0.1:*"))
    server.close()
    again = WebServer(line, WebSettings(address=server.address))
    again.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "differad-web"]


def test_a_dashboard_whose_line_cannot_be_heard_does_not_start(line: FakeLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no more listeners")

    monkeypatch.setattr(line, "subscribe", broken)
    server = WebServer(line, WebSettings(address="127.0.0.1:*"))
    with pytest.raises(WireError, match="does not start"):
        server.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "differad-web"]


def test_starting_twice_is_a_mistake(serve: Callable[..., WebServer]) -> None:
    server = serve()
    with pytest.raises(WireError, match="started already"):
        server.start()


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_a_missing_extra_is_named(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from differad_edge.errors import MissingExtraError\n"
        "try:\n    import differad_edge.web.server\nexcept MissingExtraError as error:\n    print(error.code, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"missing-extra '{package}' is not installed")
    assert "differad-edge[web]" in done.stdout


def test_the_runtime_does_not_need_the_dashboard() -> None:
    code = "import differad_edge.runtime.settings, sys; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
