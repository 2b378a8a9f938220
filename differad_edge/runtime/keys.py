"""CURVE keys of a server and its clients, as files.

    FOLDER/server.json          the server's key pair; secret, stays here
    FOLDER/clients/NAME.json    the public key of a client that may connect; taking it away shuts the client out
    FOLDER/bundles/NAME.json    for the client's machine: its key pair and the server's public key; secret

Keys are 40 characters of Z85, as ZeroMQ writes them. Clients import this module: it needs pyzmq and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from differad_edge.errors import ConfigError
from differad_edge.runtime.zeromq import zmq

__all__ = ["ClientKeys", "ServerKeys", "add_client", "client_names", "create_server_keys", "revoke_client"]

_log = logging.getLogger(__name__)

_SERVER_FILE = "server.json"
_CLIENTS = "clients"
_BUNDLES = "bundles"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_MAX_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a server proves itself with, and the folder that says who may connect."""

    folder: Path
    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ServerKeys:
        """Read a folder made by `create_server_keys`.

        Raises ConfigError when it is none, and when others than the owner may read the secret key.
        """
        path = Path(folder) / _SERVER_FILE
        if not path.is_file():
            raise ConfigError(f"keys: got {str(folder)!r}, allowed: a folder made by: differad-edge keys FOLDER")
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"keys: {str(path)!r} can be read by other users; close it with: chmod 600 {path}")
        clients = Path(folder) / _CLIENTS
        if os.name == "posix" and clients.is_dir() and clients.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(
                f"keys: other users may add clients to {str(clients)!r}; close it with: chmod 700 {clients}"
            )
        keys = _read(path, ("public", "secret"))
        return cls(Path(folder), keys["public"], keys["secret"])

    def allows(self, client_public: bytes) -> bool:
        """Whether this key (Z85) is listed now. A file that cannot be read lists nobody; never raises."""
        for name in client_names(self.folder):
            try:
                if _read(self.folder / _CLIENTS / f"{name}.json", ("public",))["public"] == client_public:
                    return True
            except ConfigError as error:
                _log.warning("client %s is shut out: %s", name, error)
        return False


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client proves itself with, and the server key that it expects."""

    server_public: bytes
    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> ClientKeys:
        """Read the file of a client, out of the folder "bundles". Raises ConfigError when it is none."""
        path = Path(file)
        if not path.is_file():
            raise ConfigError(
                f"keys: got {str(path)!r}, allowed: a file of the folder {_BUNDLES!r} of the server's keys"
            )
        keys = _read(path, ("server_public", "public", "secret"))
        return cls(keys["server_public"], keys["public"], keys["secret"])


def create_server_keys(folder: str | os.PathLike[str]) -> bool:
    """Make the folder and the server's key pair; tells whether there was none. An existing pair is never replaced.

    Raises ConfigError when the folder cannot be written.
    """
    root = Path(folder)
    try:
        for part in (root, root / _CLIENTS, root / _BUNDLES):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"keys: {str(root)!r} cannot be made: {error.strerror}") from error
    path = root / _SERVER_FILE
    if path.exists():
        _read(path, ("public", "secret"))
        return False
    public, secret = zmq.curve_keypair()
    _write_new(path, {"public": public.decode(), "secret": secret.decode()})
    return True


def add_client(folder: str | os.PathLike[str], name: str) -> Path:
    """Let one more client in; returns the file to copy to its machine.

    A server that is running lets it in at once. Raises ConfigError for a name that is taken or not allowed.
    """
    server = ServerKeys.load(folder)
    listed, bundle = _files_of(server.folder, name)
    if listed.exists():
        raise ConfigError(f"client: {name!r} has a key already; take it away first with: --revoke {name}")
    public, secret = zmq.curve_keypair()
    bundle.unlink(missing_ok=True)  # of a client that was shut out by hand
    keys = {"server_public": server.public.decode(), "public": public.decode(), "secret": secret.decode()}
    _write_new(bundle, keys)
    _write_new(listed, {"public": public.decode()})  # last: nobody is let in whose bundle is not complete
    return bundle


def revoke_client(folder: str | os.PathLike[str], name: str) -> None:
    """Shut a client out from its next connection on. Raises ConfigError when there is none of this name."""
    listed, bundle = _files_of(Path(folder), name)
    try:
        listed.unlink()
        bundle.unlink(missing_ok=True)
    except FileNotFoundError as error:
        known = ", ".join(client_names(folder)) or "none"
        raise ConfigError(f"client: got {name!r}, allowed: one that has a key: {known}") from error
    except OSError as error:
        raise ConfigError(f"client: {name!r} cannot be taken away: {error.strerror}") from error


def client_names(folder: str | os.PathLike[str]) -> list[str]:
    """Who may connect, by name; empty when the folder cannot be read."""
    try:
        return sorted(file.stem for file in (Path(folder) / _CLIENTS).iterdir() if file.suffix == ".json")
    except OSError as error:
        _log.warning("the keys of clients cannot be read, so none may connect: %s", error)
        return []


def _files_of(folder: Path, name: str) -> tuple[Path, Path]:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"client: got {name!r}, allowed: letters, digits, '.', '_' and '-', at most 64, the first a letter or digit"
        )
    return folder / _CLIENTS / f"{name}.json", folder / _BUNDLES / f"{name}.json"


def _read(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"keys: {str(path)!r} cannot be read: {_why(error)}") from error
    values = {name: str(data.get(name)) for name in names} if isinstance(data, dict) else {}
    if not values or not all(map(_KEY.fullmatch, values.values())):
        # Without the value: it may be half a secret.
        raise ConfigError(f"keys: {str(path)!r}: allowed: a JSON object with {' and '.join(names)}, 40 characters each")
    return {name: value.encode("ascii") for name, value in values.items()}


def _why(error: Exception) -> str:
    """Without the file's content: it may be half a secret."""
    return error.strerror or str(error.errno) if isinstance(error, OSError) else "it is no JSON of this program"


def _write_new(path: Path, keys: Mapping[str, str]) -> None:
    """Readable by the owner alone from the first moment on, and never in place of another file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(json.dumps(keys, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path) if os.name == "posix" else os.rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"keys: {str(path)!r} cannot be written: {error.strerror}") from error
