"""The dashboard on a socket, in a thread of its own."""

from __future__ import annotations

import errno
import logging
import socket
import sys
import threading
import time
from typing import Any

import uvicorn

from differad_edge.errors import AddressInUseError, ConfigError, WireError
from differad_edge.runtime.service import LineService
from differad_edge.runtime.settings import WebSettings
from differad_edge.web.app import create_app

__all__ = ["WebServer"]

_log = logging.getLogger(__name__)

_START_S, _CLOSE_S = 10.0, 5.0
_BACKLOG = 128


class WebServer:
    """Serves the dashboard of ``service`` from `start` until `close`.

    The address is bound at once, so that a taken one is known before anything slow begins. Raises AddressInUseError,
    ConfigError without ``settings.address``.
    """

    def __init__(self, service: LineService, settings: WebSettings) -> None:
        if settings.address is None:
            raise ConfigError("web.address: got None, allowed: host:port")
        self._socket = _bound(settings.address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        """"host:port" as bound, also where the settings leave the port open."""
        self._app = create_app(service, settings)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                lifespan="on",
                backlog=_BACKLOG,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host, _, port = self.address.rpartition(":")
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else '[::1]' if host == '[::]' else host}:{port}/"

    def start(self) -> WebServer:
        """Serve. Returns when it does. Raises WireError when it cannot."""
        if self._thread is not None:
            raise WireError("dashboard: started already")
        self._thread = threading.Thread(target=self._run, name="differad-web", daemon=True)
        self._thread.start()
        limit = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > limit:
                self.close()
                raise WireError(f"dashboard: does not start on {self.address}; the log says why")
            time.sleep(0.005)
        return self

    def close(self) -> None:
        """End open streams and stop. Closing twice is closing once."""
        self._app.state.hub.close()
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive():
                self._server.force_exit = True
                self._thread.join(_CLOSE_S)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except SystemExit:  # uvicorn's way to say that it could not start
            _log.error("the dashboard did not start")
        except Exception:
            _log.exception("the dashboard failed")


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    name = host.strip("[]")
    try:
        found: list[Any] = socket.getaddrinfo(
            None if name == "*" else name,
            0 if port == "*" else int(port),
            family=socket.AF_INET if name in ("*", "localhost") else socket.AF_UNSPEC,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        family, kind, protocol, _, target = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressInUseError(f"web.address: {address} cannot be bound: {error}") from error
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        why = "it is in use" if error.errno == errno.EADDRINUSE else str(error)
        raise AddressInUseError(f"web.address: {address} cannot be bound: {why}") from error
    return bound
