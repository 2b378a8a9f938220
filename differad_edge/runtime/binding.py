"""A socket that a server binds: one context each, CURVE when there are keys, and clear words when it cannot be had."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from differad_edge.errors import AddressInUseError, ConfigError, ReferenceStoreError
from differad_edge.references.lock import writer_lock
from differad_edge.runtime.keys import ServerKeys
from differad_edge.runtime.settings import is_loopback
from differad_edge.runtime.zeromq import HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, SECURITY_DOMAIN, zmq

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

__all__ = ["BoundSocket"]

_HANDSHAKE_MS = 5_000
_IPC = "ipc://"
_CAUSES = {
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.ENODEV: "this machine has no such address",
    errno.EACCES: "permission denied",
    errno.ENOENT: "the folder does not exist",
}


class BoundSocket:
    """Owns context, socket, authenticator and, of ``ipc://``, a lock file beside the socket.

    ``name``: what messages call the address ("publish", "control"); ``kind``: zmq.PUB, zmq.ROUTER; ``options``: set
    before it is bound. The context is its own because in ZeroMQ a context has one authenticator for all its sockets.
    Raises ConfigError for an address beyond loopback without keys, AddressInUseError when it cannot be bound.
    """

    def __init__(
        self, name: str, kind: int, endpoint: str, *, keys: Path | None, options: Mapping[zmq.SocketOption, int]
    ) -> None:
        if keys is None and not is_loopback(endpoint):
            raise ConfigError(f"{name}: got {endpoint} without keys, allowed: a loopback address, or keys")
        server_keys = None if keys is None else ServerKeys.load(keys)
        with ExitStack() as stack:
            _hold_ipc_path(name, endpoint, stack)
            context = zmq.Context()
            stack.callback(context.term)
            if server_keys is not None:
                # Before the socket is bound: nobody may come in while nobody asks for keys.
                stack.callback(_start_authenticator(context, server_keys).stop)
            self.socket = context.socket(kind)
            stack.callback(self.socket.close, 0)
            self._set_up(endpoint, server_keys, options)
            self.endpoint = _bind(self.socket, name, endpoint)
            self._closing = stack.pop_all()

    def close(self, linger_ms: int = 0) -> None:
        """Let go of the address; what is still to be sent gets ``linger_ms``. Closing twice is closing once."""
        if not self.socket.closed:
            self.socket.close(linger_ms)
        self._closing.close()

    def _set_up(self, endpoint: str, keys: ServerKeys | None, options: Mapping[zmq.SocketOption, int]) -> None:
        common: dict[zmq.SocketOption, int] = {
            zmq.LINGER: 0,
            zmq.HANDSHAKE_IVL: _HANDSHAKE_MS,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.IPV6: int(endpoint.startswith("tcp://[")),
        }
        for option, value in {**common, **options}.items():
            self.socket.setsockopt(option, value)
        if keys is not None:
            self.socket.setsockopt(zmq.CURVE_SERVER, 1)
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            self.socket.setsockopt(zmq.ZAP_DOMAIN, SECURITY_DOMAIN.encode())
            # Without it, a missing authenticator would let everybody in.
            self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


class _Credentials:
    """What pyzmq's authenticator asks at each handshake, so that a revoked key is out at its next connection."""

    def __init__(self, keys: ServerKeys) -> None:
        self._keys = keys

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the client may come in; ``key``: Z85."""
        return self._keys.allows(key)


def _start_authenticator(context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys) -> ThreadAuthenticator:
    from zmq.auth.thread import ThreadAuthenticator

    authenticator = ThreadAuthenticator(context)
    authenticator.configure_curve_callback(domain=SECURITY_DOMAIN, credentials_provider=_Credentials(keys))
    authenticator.start()
    return authenticator


def _hold_ipc_path(name: str, endpoint: str, stack: ExitStack) -> None:
    """ZeroMQ takes an existing path over without a word, from a dead server as from a living one. The lock tells."""
    path = Path(endpoint.removeprefix(_IPC))
    if not endpoint.startswith(_IPC) or str(path).startswith(("@", "*")):  # abstract or made up: nothing to take over
        return
    try:
        stack.enter_context(writer_lock(path.with_name(f"{path.name}.lock"), timeout_s=0))
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise AddressInUseError(f"{name}: {endpoint}: there is a file of this name that is no socket")
    except ReferenceStoreError as error:
        raise _in_use(name, endpoint) from error
    except OSError as error:
        raise _cannot_bind(name, endpoint, error) from error


def _bind(socket: zmq.Socket[bytes], name: str, endpoint: str) -> str:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise (
            _in_use(name, endpoint) if error.errno == errno.EADDRINUSE else _cannot_bind(name, endpoint, error)
        ) from error
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    return bound.rstrip(b"\0").decode() if isinstance(bound, bytes) else str(bound)


def _in_use(name: str, endpoint: str) -> AddressInUseError:
    return AddressInUseError(
        f"{name}: {endpoint} is in use; is another server running? Stop it, or choose another address for {name!r}"
    )


def _cannot_bind(name: str, endpoint: str, error: OSError | zmq.ZMQError) -> AddressInUseError:
    cause = _CAUSES.get(error.errno or 0) or error.strerror
    return AddressInUseError(f"{name}: {endpoint} cannot be bound: {cause}; choose another address for {name!r}")
