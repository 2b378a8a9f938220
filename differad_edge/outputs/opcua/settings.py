"""The settings of both OPC UA outputs: the server, and the client that writes into a PLC's server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from differad_edge.outputs.opcua.fields import FIELDS
from differad_edge.outputs.settings_base import OutputSettings, host_and_port, is_loopback, variable

__all__ = ["OpcUaClientSettings", "OpcUaSettings"]

_UUID = r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_NODE_ID = re.compile(rf"(ns=\d{{1,5}};)?(i=\d{{1,10}}|s=[^\x00-\x1f]{{1,4096}}|g={_UUID}|b=[A-Za-z0-9+/]+={{0,2}})")


class OpcUaSettings(OutputSettings):
    """An OPC UA server with the station's state, its results, and methods: see docs/OUTPUTS.md for its nodes."""

    type: Literal["opcua"]
    name: str = "opcua"
    address: str = "127.0.0.1:4840"
    """"host:port" to listen at."""
    certificate: Path | None = None
    private_key: Path | None = None
    """Of the server, made by `differad-edge certificate`; then nothing but Basic256Sha256, signed and encrypted."""
    trusted: Path | None = None
    """Folder with the certificates of the clients that may connect."""
    handshake: bool = False
    """The next result is shown after a client has acknowledged this one."""

    _address = field_validator("address")(host_and_port)

    @model_validator(mode="after")
    def _what_goes_together(self) -> OpcUaSettings:
        given = [one is not None for one in (self.certificate, self.private_key, self.trusted)]
        if any(given) and not all(given):
            raise ValueError("certificate, private_key and trusted together, or none of them")
        if not all(given) and not is_loopback(self.address.rpartition(":")[0]):
            raise ValueError(f"address {self.address} only with certificates, or a loopback address")
        if self.durable and not self.handshake:
            raise ValueError("durable only with the handshake: nothing else confirms a result")
        return self


class OpcUaClientSettings(OutputSettings):
    """Writes results into the nodes of a PLC that is an OPC UA server itself: see docs/OUTPUTS.md for the fields."""

    type: Literal["opcua-client"]
    name: str = "opcua-client"
    url: str
    """opc.tcp://host:port, with a path where the server has one."""
    nodes: Annotated[Mapping[str, str], Field(min_length=1)]
    """Field -> node id, such as passed: "ns=4;s=Vision.Passed". With acknowledge, each result stands until the PLC has
    written its result_id there."""
    certificate: Path | None = None
    private_key: Path | None = None
    """The line's own, made by `differad-edge certificate`; then Basic256Sha256, signed and encrypted."""
    server_certificate: Path | None = None
    """The PLC's; no other server is talked to."""
    plaintext: bool = False
    """Without certificates beyond this machine: everybody on the network may read and change what is sent."""
    user_env: str | None = None
    """Name of the environment variable that holds the user's name, ..."""
    password_env: str | None = None
    """... and of the one that holds the password; without certificates only to this machine."""
    timeout_ms: Annotated[float, Field(ge=10, le=60_000)] = 5000.0
    """To connect, and for each answer."""
    poll_ms: Annotated[float, Field(ge=1, le=60_000)] = 20.0
    """How often acknowledge is read while a result stands."""
    hold_ms: Annotated[float, Field(ge=0, le=60_000)] = 100.0
    """Without acknowledge: how long a result stands at least before the next; longer than the PLC's cycle."""
    text_limit: Annotated[int, Field(ge=1, le=65_535)] = 254
    """Characters that the PLC's texts hold. A longer one is cut and ends with "~"; a longer record is left out."""

    _variables = field_validator("user_env", "password_env")(variable)

    @property
    def secure(self) -> bool:
        """Whether the channel is signed and encrypted."""
        return self.certificate is not None

    @property
    def host(self) -> str:
        """The server's."""
        return urlsplit(self.url).hostname or ""

    @field_validator("url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            fits = parts.scheme == "opc.tcp" and bool(parts.hostname) and bool(parts.port)
        except ValueError:
            fits = False
        if not fits or not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
            raise ValueError("opc.tcp://host:port or opc.tcp://host:port/path")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an address without a user, a password, a query and a fragment; use user_env")
        return value

    @field_validator("nodes")
    @classmethod
    def _known_fields_and_node_ids(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for field, node in value.items():
            if field not in FIELDS:
                raise ValueError(f"{field!r} is none of: {', '.join(sorted(FIELDS))}")
            if not _NODE_ID.fullmatch(node):
                raise ValueError(f'{field}: {node!r} is no node id such as "ns=4;s=Vision.Passed" or "ns=4;i=1001"')
            space = re.match(r"ns=(\d+);", node)
            number = re.fullmatch(r"(?:ns=\d+;)?i=(\d+)", node)
            if (space and int(space[1]) > 0xFFFF) or (number and int(number[1]) > 0xFFFF_FFFF):
                raise ValueError(f"{field}: {node!r}: ns is 65535 at the most, i is 4294967295")
            other = next((name for name in value if name != field and value[name] == node), None)
            if other is not None:
                raise ValueError(f"{field} and {other}: a node each, got {node!r} for both")
        return dict(value)

    @model_validator(mode="after")
    def _what_goes_together(self) -> OpcUaClientSettings:
        given = [one is not None for one in (self.certificate, self.private_key, self.server_certificate)]
        if any(given) and not all(given):
            raise ValueError("certificate, private_key and server_certificate together, or none of them")
        if self.plaintext and self.secure:
            raise ValueError("plaintext: true only without certificates")
        if not self.secure and not self.plaintext and not is_loopback(self.host):
            raise ValueError(f"{self.host} only with certificates, or with plaintext: true")
        if self.password_env is not None and self.user_env is None:
            raise ValueError("password_env only with a user_env")
        if self.password_env is not None and not self.secure and not is_loopback(self.host):
            raise ValueError(f"a password to {self.host} only with certificates")
        if "result_id" not in self.nodes and "result_ready" not in self.nodes:
            raise ValueError("nodes with result_ready or result_id: nothing else says that a result is a new one")
        if "acknowledge" in self.nodes and not {"result_id", "result_ready"} <= set(self.nodes):
            raise ValueError("acknowledge only with result_id and result_ready")
        if self.durable and "acknowledge" not in self.nodes:
            raise ValueError("durable only with acknowledge: nothing else confirms that the PLC has seen a result")
        return self
