"""The one place that imports pyzmq: without it, MissingExtraError says what to install."""

from __future__ import annotations

from differad_edge.errors import MissingExtraError

try:
    import zmq
    import zmq.asyncio as zmq_asyncio
except ImportError as error:
    raise MissingExtraError("line", "pyzmq") from error

__all__ = ["HEARTBEAT_MS", "HEARTBEAT_TIMEOUT_MS", "SECURITY_DOMAIN", "zmq", "zmq_asyncio"]

HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 6_000
"""Of the connection, below the messages: a pulled cable is noticed, and what was kept for the peer is let go."""

SECURITY_DOMAIN = "differad-edge"
