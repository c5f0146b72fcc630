"""From a URL or a configuration to a server: where it is, and how it is known.

``quic://host:port?server_name=…&verify=no&ca=…&pin=sha256:…``. Certificates are verified,
but not on loopback hosts, because a stock runtara-core makes its own anew at every start.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..config import SdkConfig
from ..errors import ConfigError

SCHEME = "quic://"
DEFAULT_PORT = 8001

_EXAMPLE = "write quic://HOST:PORT, such as quic://127.0.0.1:8001"
_PARAMETERS = ("server_name", "verify", "ca", "pin")


class ServerLocation(msgspec.Struct, frozen=True, kw_only=True):
    """A server and what its certificate must be."""

    host: str
    port: int
    server_name: str
    """The name that the certificate must carry."""
    verify: bool
    ca: str | None = None
    """A file of PEM certificates whose issuers are trusted; None: those of certifi."""
    pin: bytes | None = None
    """SHA-256 of the certificate (DER): it is trusted, and no other, whoever issued it."""

    @property
    def name(self) -> str:
        """What errors call it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{host}:{self.port}"


def is_server(target: str) -> bool:
    """Whether a URL means a server, not a store."""
    return target.lower().startswith(SCHEME)


def server_of_url(url: str) -> ServerLocation:
    """The server that a URL names. Raises ConfigError."""
    host, port, query = _split(url, url)
    options: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _PARAMETERS or key in options or not value:
            raise ConfigError(
                f"{url!r}: {key}={value} is not understood; the parameters are "
                f"{', '.join(_PARAMETERS)}, each once"
            )
        options[key] = value
    verify = _yes(url, options["verify"]) if "verify" in options else None
    ca, pin = options.get("ca"), options.get("pin")
    if verify is False and (ca or pin):
        raise ConfigError(f"{url!r}: verify=no does not go with ca= or pin=; take one of them out")
    if ca is not None and not os.path.isfile(ca):
        raise ConfigError(f"{url!r}: there is no file {os.path.abspath(ca)!r} for ca=")
    return ServerLocation(
        host=host,
        port=port,
        server_name=options.get("server_name", host),
        verify=_verifies(host, verify) or ca is not None or pin is not None,
        ca=ca,
        pin=None if pin is None else parse_pin(url, pin),
    )


def server_of_config(config: SdkConfig) -> ServerLocation:
    """The server that ``server_addr`` and the fields beside it name. Raises ConfigError."""
    host, port, query = _split(SCHEME + config.server_addr, config.server_addr)
    if query:
        raise ConfigError(
            f"server_addr is host:port, not {config.server_addr!r}; a quic:// URL takes parameters"
        )
    skip = config.skip_cert_verification
    return ServerLocation(
        host=host,
        port=port,
        server_name=config.server_name,
        verify=_verifies(host, None if skip is None else not skip),
    )


def parse_pin(where: str, text: str) -> bytes:
    """``sha256:`` and 64 hexadecimal digits, colons between them or not. Raises ConfigError."""
    kind, _, digits = text.partition(":")
    try:
        digest = bytes.fromhex(digits.replace(":", ""))
    except ValueError:
        digest = b""
    if kind.lower() != "sha256" or len(digest) != 32:
        raise ConfigError(
            f"{where!r}: pin={text} is not a pin; it is 'sha256:' and the 64 hexadecimal digits of "
            "the certificate's SHA-256, as 'runtara-trio serve' prints them"
        )
    return digest


def show_pin(digest: bytes) -> str:
    """A certificate's digest as ``pin=`` takes it."""
    return f"sha256:{digest.hex()}"


def _split(url: str, shown: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"{shown!r} names no server ({exc}); {_EXAMPLE}") from exc
    if not host or parts.username or parts.path not in ("", "/") or parts.fragment or port == 0:
        raise ConfigError(f"{shown!r} names no server; {_EXAMPLE}")
    return host, DEFAULT_PORT if port is None else port, parts.query


def _yes(url: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise ConfigError(f"{url!r}: verify is yes or no, not {text!r}")
    return text == "yes"


def _verifies(host: str, asked: bool | None) -> bool:
    return not _is_loopback(host) if asked is None else asked


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
