"""The token: brought as a bearer by programs, and once by a person, whose browser then holds a cookie."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from differad_edge.web.problems import refusal

__all__ = ["SESSION_DAYS", "Attempts", "Doorkeeper"]

SESSION_DAYS = 30
_MOST_FAILURES, _WINDOW_S = 10, 60.0
_MOST_ADDRESSES = 1000


class Attempts:
    """Wrong tokens by address: after ten within a minute, that address waits. ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str) -> None:
        """Another one."""
        times = self._failures.setdefault(address, deque(maxlen=_MOST_FAILURES))
        times.append(self._clock())
        self._failures.move_to_end(address)
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)

    def must_wait(self, address: str) -> bool:
        """Whether not even the right token is looked at now."""
        times = self._failures.get(address)
        return times is not None and len(times) == _MOST_FAILURES and self._clock() - times[0] < _WINDOW_S


class Doorkeeper:
    """Knows the token. ``wall_clock``: seconds since 1970: a cookie outlives the server's run, so its end is a date."""

    def __init__(
        self,
        token: str,
        *,
        wall_clock: Callable[[], float] = time.time,
        attempts: Attempts | None = None,
    ) -> None:
        self._token = token.encode()
        # Not the token itself, so that it cannot be read out of a browser, and changing it ends all sessions.
        self._key = hashlib.sha256(b"differad-edge web session\0" + self._token).digest()
        # Browsers send cookies to every port of a host: two lines on one machine need two names.
        self.cookie = f"differad-{hashlib.sha256(self._key).hexdigest()[:8]}"
        self._wall_clock = wall_clock
        self._attempts = attempts or Attempts()

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """None for who brings the token or a cookie; a browser that asks for a page is sent to the login."""
        if self.knows(headers):
            return None
        address = address_of(scope)
        if self._attempts.must_wait(address):
            return too_many_attempts()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if self.accepts(token.strip(), address):
                return None
        elif scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
        return refusal(401, "unauthorized", "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})

    def must_wait(self, address: str) -> bool:
        """See Attempts."""
        return self._attempts.must_wait(address)

    def accepts(self, token: str, address: str) -> bool:
        """Whether it is the token; a wrong one counts against ``address``."""
        right = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)
        if not right:
            self._attempts.failed(address)
        return right

    def new_session(self) -> str:
        """A cookie's value: "<end>.<proof>", the end in seconds since 1970."""
        end = str(int(self._wall_clock()) + SESSION_DAYS * 86_400)
        return f"{end}.{self._proof(end)}"

    def knows(self, headers: Headers) -> bool:
        """Whether the request carries a cookie of a session that has not ended."""
        end, _, proof = cookie_parser(headers.get("cookie", "")).get(self.cookie, "").partition(".")
        if not hmac.compare_digest(proof.encode(), self._proof(end).encode()):
            return False
        return int(end) > self._wall_clock()

    def _proof(self, end: str) -> str:
        return hmac.new(self._key, end.encode(), hashlib.sha256).hexdigest()


def address_of(scope: Scope) -> str:
    """Of the other side, without its port."""
    client = scope.get("client")
    return client[0] if client else "?"


def too_many_attempts() -> Response:
    """The answer to who guesses."""
    message = f"more than {_MOST_FAILURES - 1} wrong tokens from this address, wait {_WINDOW_S:g} s"
    return refusal(429, "too-many-attempts", message, {"Retry-After": f"{_WINDOW_S:.0f}"})
