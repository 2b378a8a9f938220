"""The filter of pairs by a vision-language model behind an OpenAI-compatible server.

The paper lets GPT-4o filter its pairs; its prompt is not published, so this one is ours.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from differad_edge.errors import ConfigError, EngineServerError
from differad_edge.images import Image
from training.synth import check_range
from training.synth_files import encode

PAIR_PROMPT = (
    "The first image is a reference, the second a target from a visual inspection line. Can the target be inspected by "
    "comparing it with the reference? Answer yes if both show the same kind of product from about the same viewpoint, "
    "at about the same scale and state of assembly, so that what differs between them is a defect or nothing at all. "
    "Answer no if they show different products or models of a product, another side of it, or differ all over. "
    "A defect, a missing part, dirt, a small shift or turn and another brightness are no reason to answer no. "
    "Answer with one word: yes or no."
)
PROMPT_VERSION = 1
_MAX_ANSWER_BYTES = 1_000_000
_MAX_TOKENS = 8
_JPEG_QUALITY = 90
_WORDS = {"yes": True, "no": False}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the images, and the key, to a host that nobody named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class VlmFilter:
    """Asks whether two images make a pair.

    ``url``: the server's base, such as ``http://127.0.0.1:8000/v1``. ``key_variable``: name of the environment variable
    that holds the key, None for a server without one. ``timeout_s``: of one attempt. ``retries``: attempts after the
    first, for a server that is busy, out of reach or failing, with pauses of ``pause_s``, twice that, and so on.
    ``side_px``: longer side that the images are brought down to.

    Raises ConfigError for values out of range or a key that is not set.
    """

    url: str
    model: str
    key_variable: str | None = None
    timeout_s: float = 60.0
    retries: int = 3
    pause_s: float = 1.0
    side_px: int = 768

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"--vlm: got {self.url!r}, allowed: http://HOST:PORT/v1 or https://...")
        if not self.model:
            raise ConfigError("--vlm-model: got '', allowed: the name of a model that the server has")
        if self.key_variable is not None and not os.environ.get(self.key_variable):
            raise ConfigError(f"--vlm-key-env: the environment variable {self.key_variable} is not set")
        key = "" if self.key_variable is None else os.environ[self.key_variable]
        if not (key.isascii() and (key.isprintable() or not key)):
            raise ConfigError(f"--vlm-key-env: {self.key_variable} holds other characters, allowed: printable ASCII")
        check_range("timeout_s", self.timeout_s, 0.01, 3600)
        check_range("retries", self.retries, 0, 100, whole=True)
        check_range("pause_s", self.pause_s, 0, 600)
        check_range("side_px", self.side_px, 32, 4096, whole=True)

    def settings(self) -> dict[str, Any]:
        """What the answers depend on, for the state of a run; the server may move."""
        return {"model": self.model, "prompt": PROMPT_VERSION, "side_px": self.side_px}

    def __call__(self, reference: Image, target: Image) -> bool | None:
        """Whether the two make a pair; None where the answer starts with neither yes nor no.

        Both are HxWx3 uint8 BGR. Raises EngineServerError when the server refuses, cannot be reached after all
        attempts, or answers something that is not its protocol.
        """
        images = [{"type": "image_url", "image_url": {"url": self._data_url(image)}} for image in (reference, target)]
        body = {
            "model": self.model,
            "temperature": 0,
            "max_tokens": _MAX_TOKENS,
            "messages": [{"role": "user", "content": [*images, {"type": "text", "text": PAIR_PROMPT}]}],
        }
        answer = self._post(json.dumps(body).encode())
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as exc:
            got = json.dumps(answer)[:120]
            raise EngineServerError(f"{self.url}: answered {got}; expected: choices[0].message.content") from exc
        word = re.match(r"\W*(\w+)", text) if isinstance(text, str) else None
        return None if word is None else _WORDS.get(word[1].lower())

    def _data_url(self, image: Image) -> str:
        scale = min(1.0, self.side_px / max(image.shape[:2]))
        if scale < 1.0:
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        data = encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")

    def _post(self, body: bytes) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        url = self.url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        opener = urllib.request.build_opener(_NoRedirects)
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            try:
                request = urllib.request.Request(url, body, headers, method="POST")
                with opener.open(request, timeout=self.timeout_s) as response:
                    data = response.read(_MAX_ANSWER_BYTES + 1)
                break
            except urllib.error.HTTPError as exc:
                failure = f"{url}: refused with status {exc.code}: {exc.read(200).decode('utf-8', 'replace')!r}"
                cause: Exception = exc
                if exc.code not in (408, 409, 425, 429) and exc.code < 500:
                    raise EngineServerError(failure) from exc
            except (OSError, http.client.HTTPException) as exc:  # URLError and timeouts are OSErrors
                failure, cause = f"{url}: cannot be reached: {getattr(exc, 'reason', None) or exc!r}", exc
        else:
            raise EngineServerError(f"{failure}; {self.retries + 1} attempts") from cause
        return _json_object(url, data)


def _json_object(url: str, data: bytes) -> Mapping[str, Any]:
    try:
        if len(data) > _MAX_ANSWER_BYTES:
            raise ValueError(f"more than {_MAX_ANSWER_BYTES} bytes")
        answer = json.loads(data)
        if not isinstance(answer, dict):
            raise ValueError(f"a JSON {type(answer).__name__}")
    except (ValueError, RecursionError) as exc:
        raise EngineServerError(f"{url}: answered what is no JSON object: {exc}; {data[:80]!r}") from exc
    return answer
