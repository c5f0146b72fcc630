"""Certificates: what a client checks, and what a server shows."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import AlertDescription
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from ...errors import ConfigError
from ...remote.location import ServerLocation, another_certificate, show_pin
from . import shim
from .shim import Quic

IDLE_TIMEOUT = 30.0
"""Seconds without a word from the peer after which a client gives a connection up, as the
Rust SDK's does."""

SERVER_IDLE_TIMEOUT = 120.0
"""The same for the server, as runtara-core's."""

WINDOW = 4 << 20
"""Bytes of a stream, and of a connection, that may come unasked. They grow by themselves."""

_CRYPTO_ERROR = 0x100
_VALID = timedelta(days=825)


def client_configuration(server: ServerLocation) -> QuicConfiguration:
    """What aioquic is to do as a client of ``server``."""
    chain = server.verify and server.pin is None
    return QuicConfiguration(
        is_client=True,
        server_name=server.server_name,
        verify_mode=ssl.CERT_REQUIRED if chain else ssl.CERT_NONE,
        cafile=server.ca,
        idle_timeout=IDLE_TIMEOUT,
        max_data=WINDOW,
        max_stream_data=WINDOW,
    )


def pin_check(server: ServerLocation) -> Callable[[Quic], str | None]:
    """A function that says what is wrong with the certificate that a server showed."""

    def check(quic: Quic) -> str | None:
        if server.pin is None:
            return None
        return another_certificate(server, shim.certificate_digest(quic))

    return check


def refusal(server: ServerLocation, quic: Quic, code: int, reason: str) -> str | None:
    """What a handshake failed of, and how to mend it; None: not of the certificate."""
    if not server.verify or not _CRYPTO_ERROR <= code < _CRYPTO_ERROR + 256:
        return None
    shown = _pin(shim.certificate_digest(quic))
    if code - _CRYPTO_ERROR == AlertDescription.certificate_expired:
        return f"its certificate has expired, or is not valid yet ({reason}): renew it"
    if "doesn't match" in reason:
        return (
            f"its certificate has the wrong name ({reason}): give the name that it carries as "
            f"server_name=…, or trust just this certificate with pin={shown}"
        )
    if code - _CRYPTO_ERROR == AlertDescription.bad_certificate:
        return (
            f"nobody that is trusted has issued its certificate ({reason}): give its issuer's "
            f"certificate as ca=FILE, or trust just this one with pin={shown}"
        )
    return f"the handshake failed: {reason}"


def _pin(digest: bytes | None) -> str:
    return "(none)" if digest is None else show_pin(digest)


class Identity(msgspec.Struct, frozen=True):
    """A server's certificate, those between it and its issuer, and its key."""

    certificate: x509.Certificate
    chain: list[x509.Certificate]
    key: Any

    @property
    def pin(self) -> str:
        """As a client's ``pin=`` takes it."""
        return show_pin(self.certificate.fingerprint(SHA256()))

    def configuration(self, idle_timeout: float = SERVER_IDLE_TIMEOUT) -> QuicConfiguration:
        """What aioquic is to do as a server."""
        return QuicConfiguration(
            is_client=False,
            certificate=self.certificate,
            certificate_chain=self.chain,
            private_key=self.key,
            idle_timeout=idle_timeout,
            max_data=WINDOW,
            max_stream_data=WINDOW,
        )


def load_identity(certificate: Path, key: Path) -> Identity:
    """Read a server's certificate and key, both PEM.

    Raises:
      ConfigError: names the file that cannot be read, or is invalid.
    """
    chain = _read(certificate, "certificate", x509.load_pem_x509_certificates)
    private = _read(key, "key", lambda data: load_pem_private_key(data, None))
    if private.public_key() != chain[0].public_key():
        raise ConfigError(f"the key in {str(key)!r} is not the one of {str(certificate)!r}")
    return Identity(chain[0], chain[1:], private)


def make_identity(*names: str, now: datetime | None = None) -> Identity:
    """A certificate of a server's own making, for these names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    start = (now or datetime.now(UTC)) - timedelta(minutes=5)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _VALID)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        .sign(key, SHA256())
    )
    return Identity(certificate, [], key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read(path: Path, what: str, load: Callable[[bytes], Any]) -> Any:
    try:
        return load(path.read_bytes())
    except (OSError, ValueError, TypeError) as exc:
        raise ConfigError(f"{str(path)!r} is not a {what} in PEM that can be read: {exc}") from exc
