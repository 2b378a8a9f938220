"""The application: a LineService in, an ASGI app out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from differad_edge.runtime.service import LineService
from differad_edge.runtime.settings import WebSettings, is_loopback
from differad_edge.web.acting import acting_routes
from differad_edge.web.assets import asset_routes
from differad_edge.web.guard import Guard
from differad_edge.web.hub import Hub
from differad_edge.web.login import login_routes
from differad_edge.web.problems import install
from differad_edge.web.session import Doorkeeper
from differad_edge.web.snapshots import Snapshots
from differad_edge.web.watching import watching_routes

__all__ = ["create_app"]


def create_app(service: LineService, settings: WebSettings) -> FastAPI:
    """The dashboard of ``service``. ``app.state.hub`` is what streams end with, see Hub.close.

    ``settings.token``: None lets in whoever reaches the address, which WebSettings allows on loopback only.
    """
    hub, snapshots = Hub(), Snapshots()
    doorkeeper = None if settings.token is None else Doorkeeper(settings.token.get_secret_value())

    @asynccontextmanager
    async def connected(_: FastAPI) -> AsyncIterator[None]:
        hub.open(asyncio.get_running_loop())
        unsubscribe = service.subscribe(hub.listen)
        try:
            yield
        finally:
            unsubscribe()
            hub.close()

    # No generated documentation: its pages load scripts from elsewhere.
    app = FastAPI(title="differad-edge", lifespan=connected, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.hub = hub
    install(app)
    app.include_router(watching_routes(service, hub, snapshots))
    app.include_router(acting_routes(service, snapshots))
    app.include_router(login_routes(doorkeeper))
    app.include_router(asset_routes())
    app.add_middleware(Guard, doorkeeper=doorkeeper, only_hosts=_only_hosts(settings.address))
    return app


def _only_hosts(address: str | None) -> frozenset[str] | None:
    """The names of a loopback address; None for an address that other machines know by names we cannot."""
    if address is None:
        return frozenset()
    return frozenset({address.rpartition(":")[0]}) if is_loopback(address) else None
