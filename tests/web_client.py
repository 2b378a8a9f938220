"""Asks a dashboard without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from web_fakes import FakeLine

from differad_edge.runtime.settings import WebSettings
from differad_edge.web import create_app

__all__ = ["TOKEN", "InProcess"]

TOKEN = "a-token-of-some-length"


class InProcess:
    """Asks an app without a socket; keeps cookies as a browser does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, line: FakeLine, settings: WebSettings, base_url: str) -> None:
        self._loop = loop
        transport = httpx.ASGITransport(create_app(line, settings), raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url, timeout=10)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        work = self._client.request(method, path, **options)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(20)
