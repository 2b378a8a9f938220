"""A chat with a vision-language model on an OpenAI-compatible server: images and a text in, texts out."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cv2

from differad_edge.errors import ConfigError, DeadlineExceeded, EngineServerError

if TYPE_CHECKING:
    from differad_edge.deadline import Deadline
    from differad_edge.images import Image

__all__ = ["KEY_VARIABLE", "ChatServer", "Reply", "Token"]

KEY_VARIABLE = "DIFFERAD_SERVER_KEY"
"""Environment variable with the server's API key; none is sent without it."""
TIMEOUT_S = 60.0  # of one request where no deadline is nearer
MODELS_TIMEOUT_S = 10.0
TRIES = 4
FIRST_WAIT_S = 0.2  # doubled from try to try, with up to half of it added by chance
MAX_ANSWER_BYTES = 4_000_000
_SHOWN = 200
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was written: its text, its natural log-probability, and the most probable ones in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """``tokens``: of ``text``, in order; none where the server does not tell."""

    text: str
    tokens: tuple[Token, ...]


class ChatServer:
    """Asks ``model`` on ``server``.

    A request that fails for the moment (refused, cut off, 429, 5xx) is sent again, four times in all and never past the
    part's deadline. Redirects are refused: images do not go where nobody sent them.

    Raises ConfigError for a port or a key that cannot be sent, EngineServerError when the server does not answer or
    does not have the model.
    """

    def __init__(self, server: str, model: str) -> None:
        self.model = model
        self.server = server.rstrip("/").removesuffix("/v1")
        self._place = urlsplit(self.server)
        self._headers = _headers(self.server)
        offered = self._offered()
        if self.model not in offered:
            shown = ", ".join(offered[:10]) or "none"
            raise EngineServerError(f"--model: got {self.model!r}, allowed on {self.server}: {shown}")

    def ask(
        self,
        content: Sequence[Image | str],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        samples: int = 1,
        top: int = 0,
        deadline: Deadline | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[Reply]:
        """``samples`` replies to one user turn of texts and HxWx3 uint8 BGR images, which are sent as PNG.

        ``top``: how many of the most probable tokens are told in each place.

        Raises DeadlineExceeded, and EngineServerError where no whole answer came.
        """
        question = {
            "model": self.model,
            "messages": [{"role": "user", "content": [_part(part) for part in content]}],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "logprobs": True,
            **({"n": samples} if samples > 1 else {}),
            **({"top_logprobs": top} if top else {}),
        }
        path = "/v1/chat/completions"
        answer = self._send("POST", path, question, timeout_s, deadline)
        try:
            choices = answer["choices"][:samples]
            texts = [choice["message"]["content"] for choice in choices]
        except (KeyError, IndexError, TypeError) as exc:
            raise self._wrong(path, "has no choices[0].message.content", answer) from exc
        if len(texts) != samples:
            raise self._wrong(path, f"has no choices[{len(texts)}], expected: {samples} of them", answer)
        if not all(isinstance(text, str) for text in texts):
            raise self._wrong(path, "has a content that is no text", answer)
        return [Reply(text, _tokens(choice)) for text, choice in zip(texts, choices, strict=True)]

    def _offered(self) -> list[str]:
        answer = self._send("GET", "/v1/models", None, MODELS_TIMEOUT_S, None)
        try:
            return [str(entry["id"]) for entry in answer["data"]]
        except (KeyError, TypeError) as exc:
            raise self._wrong("/v1/models", "has no data[].id", answer) from exc

    def _send(self, method: str, path: str, body: Any, timeout_s: float, deadline: Deadline | None) -> Any:
        """The JSON that the server answers. Raises EngineServerError, and DeadlineExceeded."""
        data = None if body is None else json.dumps(body).encode()
        why = ""
        for wait_s in _waits():
            if wait_s > 0:
                if deadline is not None and deadline.remaining_ms <= wait_s * 1000:
                    break
                time.sleep(wait_s)
            left_s = timeout_s
            if deadline is not None:
                deadline.check()
                left_s = min(timeout_s, deadline.remaining_ms / 1000)
            try:
                status, read = self._request(method, path, data, left_s)
            except (OSError, http.client.HTTPException) as exc:
                why = f"{type(exc).__name__}: {exc}"
                if isinstance(exc, ssl.SSLError):
                    break  # a certificate does not mend itself
                continue
            if status == 200:
                return self._parsed(path, read)
            why = f"status {status}: {_shown(read)}"
            if status not in _AGAIN:
                break
        if deadline is not None and deadline.expired:
            raise DeadlineExceeded(f"the deadline of {deadline.budget_ms:g} ms has passed; {self.server}: {why}")
        raise EngineServerError(f"{self.server}{path}: {why}")

    def _request(self, method: str, path: str, data: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        # A socket's time limit starts again with every byte: a slow answer is bounded by the reading below.
        end_s = time.monotonic() + timeout_s
        secure = self._place.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._place.hostname or "", self._place.port, timeout=max(0.01, timeout_s))
        try:
            connection.request(method, self._place.path.rstrip("/") + path, data, self._headers)
            response = connection.getresponse()
            read = b""
            while chunk := response.read1(65536):
                read += chunk
                if len(read) > MAX_ANSWER_BYTES:
                    raise EngineServerError(f"{self.server}{path}: answered more than {MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > end_s:
                    raise TimeoutError(f"no whole answer in {timeout_s:.1f} s")
            return response.status, read
        finally:
            connection.close()

    def _parsed(self, path: str, read: bytes) -> Any:
        try:
            return json.loads(read)
        except (ValueError, RecursionError) as exc:
            raise EngineServerError(f"{self.server}{path}: not JSON: {_shown(read)}") from exc

    def _wrong(self, path: str, what: str, answer: Any) -> EngineServerError:
        return EngineServerError(f"{self.server}{path}: the answer {what}: {str(answer)[:_SHOWN]}")


def _headers(server: str) -> dict[str, str]:
    """Raises ConfigError for a port or a key that cannot be sent; the key is never shown."""
    try:
        port = urlsplit(server).port
    except ValueError as exc:
        raise ConfigError(f"--server: got {server!r}: {exc}") from exc
    del port
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    key = os.environ.get(KEY_VARIABLE)
    if key:
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"{KEY_VARIABLE}: got a key with other characters, allowed: printable ASCII")
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _waits() -> Iterator[float]:
    yield 0.0
    for number in range(TRIES - 1):
        yield FIRST_WAIT_S * 2**number * (1 + random.random() / 2)


def _shown(read: bytes) -> str:
    return repr(read[:_SHOWN].decode("utf-8", "replace"))


def _part(part: Image | str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    _, encoded = cv2.imencode(".png", part, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    url = f"data:image/png;base64,{base64.b64encode(bytes(encoded)).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _tokens(choice: Any) -> tuple[Token, ...]:
    try:
        return tuple(
            Token(
                str(token["token"]),
                float(token["logprob"]),
                tuple((str(one["token"]), float(one["logprob"])) for one in token.get("top_logprobs") or ()),
            )
            for token in choice["logprobs"]["content"]
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
