"""Results by HTTP POST to a server that checks their signature.

    POST /path
    Content-Type: application/json
    Differad-Sequence: 17                   each number once; the same number again is the same result again
    Differad-Session: 5d0c…                 which run of the line
    Differad-Timestamp: 1767225600          seconds since 1970 (UTC) when it was sent
    Differad-Signature: sha256=<hex>        HMAC-SHA256 with the shared key over "<timestamp>.<body>"

Any 2xx confirms it. 400, 409, 413, 415 and 422 refuse this one result for good; anything else, a redirect too, is tried
again later. Redirects are not followed: results go where the settings say.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from differad_edge.errors import ConfigError, OutputError, OutputRefusedError
from differad_edge.outputs.base import Record
from differad_edge.outputs.secrets import from_environment
from differad_edge.outputs.settings import WebhookSettings

__all__ = ["WebhookOutput", "sign", "verify"]

_SHORTEST_KEY = 16
_REFUSALS = frozenset({400, 409, 413, 415, 422})
_MAX_ANSWER_BYTES = 65_536


def sign(key: str, timestamp: str, body: bytes) -> str:
    """The value of Differad-Signature."""
    digest = hmac.new(key.encode("utf-8"), timestamp.encode("ascii") + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


def verify(
    key: str, timestamp: str, body: bytes, signature: str, *, now_s: float | None = None, within_s: float = 300.0
) -> bool:
    """For whoever receives: whether the signature is right and not older than ``within_s``."""
    now_s = time.time() if now_s is None else now_s  # wall time: two machines have no other clock in common
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(now_s - int(timestamp)) > within_s:
        return False
    return hmac.compare_digest(sign(key, timestamp, body).encode(), signature.encode("utf-8", "replace"))


class WebhookOutput:
    """Raises ConfigError for a key that is missing or too short, and for a ``ca_file`` that cannot be read."""

    most_at_once = 1

    def __init__(self, settings: WebhookSettings, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._key = from_environment(settings.secret_env, setting="secret_env", at_least=_SHORTEST_KEY)
        self._wall_clock = wall_clock
        parts = urlsplit(settings.url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = _trust(settings) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None
        self._used = False

    def open(self) -> None:
        """Connect. Raises OutputError."""
        timeout_s = self._settings.timeout_ms / 1000.0
        if self._tls is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_s, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.connect()
        except OSError as error:  # a certificate that does not fit is one too
            connection.close()
            raise OutputError(f"webhook {self._host}: cannot be reached: {_why(error)}") from error
        self._connection, self._used = connection, False

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """POST the one record. Raises OutputError, OutputRefusedError."""
        for record in records:
            self._post(record)

    def check(self) -> None:
        """A connection that nobody uses may end: the next result opens another one."""

    def show(self, pulse: Mapping[str, Any]) -> None:
        """Only results are posted."""

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, record: Record) -> None:
        body = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "backslashreplace"
        )
        timestamp = str(int(self._wall_clock()))
        headers = {
            "Content-Type": "application/json",
            "Differad-Sequence": str(record["sequence"]),
            "Differad-Session": str(record["session"]),
            "Differad-Timestamp": timestamp,
        }
        if self._key is not None:
            headers["Differad-Signature"] = sign(self._key, timestamp, body)
        try:
            status = self._answer(body, headers)
        except ConnectionError as error:  # RemoteDisconnected is one
            if not self._used:
                raise OutputError(f"webhook {self._host}: no answer: {_why(error)}") from error
            self.close()  # a server may close a connection that nobody used for a while: once more on a new one
            self.open()
            status = self._post_anew(body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise OutputError(f"webhook {self._host}: no answer: {_why(error)}") from error
        self._used = True
        if 200 <= status < 300:
            return
        message = f"webhook {self._host}: it answered {status}, allowed: 2xx"
        raise OutputRefusedError(message) if status in _REFUSALS else OutputError(message)

    def _post_anew(self, body: bytes, headers: Mapping[str, str]) -> int:
        try:
            return self._answer(body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise OutputError(f"webhook {self._host}: no answer: {_why(error)}") from error

    def _answer(self, body: bytes, headers: Mapping[str, str]) -> int:
        connection = self._connection
        if connection is None:
            raise OutputError(f"webhook {self._host}: it is not open")
        connection.request("POST", self._path, body, headers)
        answer = connection.getresponse()
        if len(answer.read(_MAX_ANSWER_BYTES)) == _MAX_ANSWER_BYTES:
            connection.close()  # whatever else it says is not read; the next result opens another one
        return answer.status


def _trust(settings: WebhookSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file: {str(settings.ca_file)!r} cannot be read: {_why(error)}") from error


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
