"""From a URL to a server: where it is, and what its certificate must be.

``scheme://host:port?server_name=…&verify=no&ca=…&pin=sha256:…``. Certificates are verified,
but not on loopback hosts, because a stock runtara-core makes its own anew at every start.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..errors import ConfigError

TRUST = ("server_name", "verify", "ca", "pin")
"""The parameters of a URL that are about certificates."""


class ServerLocation(msgspec.Struct, frozen=True, kw_only=True):
    """A server and what its certificate must be."""

    scheme: str
    """With ``://``."""
    host: str
    port: int
    server_name: str
    """The name that the certificate must carry."""
    verify: bool
    ca: str | None = None
    """A file of PEM certificates whose issuers are trusted; None: those of certifi over QUIC, and
    those of the system over HTTPS."""
    pin: bytes | None = None
    """SHA-256 of the certificate (DER): it is trusted, and no other, whoever issued it."""

    @property
    def authority(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.scheme}{self.authority}"


def server_of(
    url: str,
    *,
    port: int,
    parameters: Collection[str],
    example: str,
    shown: str | None = None,
) -> ServerLocation:
    """The server that a URL names.

    Args:
      port: where the URL says none.
      parameters: those that it may have.
      example: a URL that would do.
      shown: what errors show. None: the URL.

    Raises:
      ConfigError: it names none, or a parameter is invalid.
    """
    shown = url if shown is None else shown
    try:
        parts = urlsplit(url)
        host, given = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"{shown!r} names no server ({exc}); {example}") from exc
    if not host or parts.username or parts.path not in ("", "/") or parts.fragment or given == 0:
        raise ConfigError(f"{shown!r} names no server; {example}")
    options = _options(shown, parts.query, parameters)
    verify = _yes(shown, options["verify"]) if "verify" in options else None
    ca, pin = options.get("ca"), options.get("pin")
    if verify is False and (ca or pin):
        raise ConfigError(
            f"{shown!r}: verify=no does not go with ca= or pin=; take one of them out"
        )
    if ca is not None and not os.path.isfile(ca):
        raise ConfigError(f"{shown!r}: there is no file {os.path.abspath(ca)!r} for ca=")
    return ServerLocation(
        scheme=f"{parts.scheme}://",
        host=host,
        port=port if given is None else given,
        server_name=options.get("server_name", host),
        verify=verifies(host, verify) or ca is not None or pin is not None,
        ca=ca,
        pin=None if pin is None else parse_pin(shown, pin),
    )


def _options(shown: str, query: str, parameters: Collection[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in parameters or key in options or not value:
            known = (
                f"the parameters are {', '.join(parameters)}, each once"
                if parameters
                else "such a URL has no parameters"
            )
            raise ConfigError(f"{shown!r}: {key}={value} is not understood; {known}")
        options[key] = value
    return options


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


def another_certificate(server: ServerLocation, shown: bytes | None) -> str | None:
    """What is wrong with a certificate of this digest, where a pin is given."""
    if server.pin is None or shown == server.pin:
        return None
    pin = "(none)" if shown is None else show_pin(shown)
    return (
        f"its certificate is another one: it has the pin {pin}, not {show_pin(server.pin)}. If it "
        "was renewed, give the new pin; else somebody is between you and your server"
    )


def _yes(shown: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise ConfigError(f"{shown!r}: verify is yes or no, not {text!r}")
    return text == "yes"


def verifies(host: str, asked: bool | None) -> bool:
    """Whether certificates of a host are verified, where that is asked, or not."""
    return not is_loopback(host) if asked is None else asked


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
