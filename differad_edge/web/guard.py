"""Who may ask: the checks that every request passes before any route sees it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from differad_edge.web.problems import refusal
from differad_edge.web.session import Doorkeeper

__all__ = ["OPEN_PATHS", "Guard"]

OPEN_PATHS = frozenset({"/healthz", "/login"})
"""What is answered without the token."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": browsers would then send "Origin: null" with the login form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware: Host, token, Origin, and the headers of every answer.

    ``only_hosts``: names that a request may be addressed to, besides those of loopback; None: any. On loopback this
    keeps a page that made its own name point to 127.0.0.1 (DNS rebinding) from reading the line; elsewhere the token
    does.
    """

    def __init__(self, app: ASGIApp, *, doorkeeper: Doorkeeper | None, only_hosts: frozenset[str] | None) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._hosts = None if only_hosts is None else _LOOPBACK_NAMES | {name.lower() for name in only_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no other protocol is spoken here

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._verdict(scope) or self._app
        await app(scope, receive, send_guarded)

    def _verdict(self, scope: Scope) -> ASGIApp | None:
        """The refusal, or None."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return refusal(400, "bad-host", "exactly one valid Host header is needed")
        if self._hosts is not None and match["name"].lower() not in self._hosts:
            allowed = ", ".join(sorted(self._hosts))
            return refusal(403, "host-not-allowed", f"Host: got {hosts[0]!r}, allowed: {allowed}")
        if scope["method"] not in _SAFE_METHODS and not _same_origin(headers, hosts[0]):
            origin = headers.get("origin", headers.get("sec-fetch-site"))
            return refusal(403, "origin-not-allowed", f"Origin: got {origin!r}, allowed: this server's own page")
        if self._doorkeeper is not None and scope["path"] not in OPEN_PATHS:
            return self._doorkeeper.refuse(scope, headers)
        return None


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether no other site's page sent this. Programs that are no browser send neither header."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")
