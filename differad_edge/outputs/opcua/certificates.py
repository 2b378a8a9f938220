"""Certificates of OPC UA applications: making one, reading one, and saying whose is trusted."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from differad_edge.errors import ConfigError, MissingExtraError

try:
    from asyncua.crypto import cert_gen
    from asyncua.crypto.permission_rules import User, UserRole
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID
except ImportError as error:
    raise MissingExtraError("plc", "asyncua") from error

__all__ = ["CERTIFICATE", "PRIVATE_KEY", "TrustedClients", "application_uri", "make_certificate", "valid_certificate"]

_log = logging.getLogger(__name__)

CERTIFICATE, PRIVATE_KEY = "certificate.der", "private_key.pem"


def make_certificate(folder: Path, *, host: str | None = None, days: int = 3650) -> tuple[Path, Path]:
    """A key and a certificate that it signs itself, in ``folder``; returns the files of both.

    ``host``: the name by which clients reach this machine. An existing pair is never replaced. Raises ConfigError.
    """
    host = host or socket.gethostname()
    certificate, key = folder / CERTIFICATE, folder / PRIVATE_KEY
    if certificate.exists() or key.exists():
        raise ConfigError(f"certificate: {str(folder)!r} holds one already, allowed: a folder without")
    private_key = cert_gen.generate_private_key()
    made = cert_gen.generate_self_signed_app_certificate(
        private_key,
        "differad-edge",
        {"organizationName": "differad-edge"},
        [x509.UniformResourceIdentifier(f"urn:{host}:differad-edge"), _name(host)],
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        days,
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(cert_gen.dump_private_key_as_pem(private_key))
        certificate.write_bytes(made.public_bytes(Encoding.DER))
    except OSError as error:
        raise ConfigError(f"certificate: {str(folder)!r} cannot be written: {error.strerror}") from error
    return certificate, key


def application_uri(certificate: Path) -> str:
    """The URI that a certificate was made for. Raises ConfigError."""
    try:
        names = _read(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])
    except (OSError, ValueError, IndexError, x509.ExtensionNotFound) as error:
        raise ConfigError(
            f"certificate: {str(certificate)!r}: allowed: a DER or PEM certificate with the URI of an application"
        ) from error


def valid_certificate(certificate: Path, *, setting: str) -> bytes:
    """In DER. Raises ConfigError for one that cannot be read or is not valid now."""
    try:
        found = _read(certificate)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting}: got {str(certificate)!r}, allowed: a DER or PEM certificate") from error
    if not _is_valid_now(found):
        raise ConfigError(f"{setting}: {str(certificate)!r} is not valid now, only until {found.not_valid_after_utc}")
    return found.public_bytes(Encoding.DER)


class TrustedClients:
    """Lets in whose certificate lies in ``folder`` (.der, .pem), now; the channel has proven that the key is theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not folder.is_dir():
            raise ConfigError(f"trusted: got {str(folder)!r}, allowed: a folder with the certificates of clients")

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """Called by the server when a session begins. None: not let in."""
        if not isinstance(certificate, bytes):
            return None
        for file in self._folder.iterdir():
            try:
                one = _read(file)
            except (OSError, ValueError) as error:
                _log.warning("trusted: %s is no certificate: %s", file, error)
                continue
            if one.public_bytes(Encoding.DER) == certificate:
                if _is_valid_now(one):
                    return User(role=UserRole.User, name=file.stem)
                _log.warning("trusted: the certificate %s is not valid now", file)
        return None


def _is_valid_now(certificate: x509.Certificate) -> bool:
    now = datetime.now(timezone.utc)  # certificates are valid by the calendar
    return certificate.not_valid_before_utc - timedelta(minutes=5) <= now <= certificate.not_valid_after_utc


def _read(file: Path) -> x509.Certificate:
    data = file.read_bytes()
    return x509.load_pem_x509_certificate(data) if b"-----BEGIN" in data else x509.load_der_x509_certificate(data)


def _name(host: str) -> x509.GeneralName:
    """A client looks for an address among the addresses."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
