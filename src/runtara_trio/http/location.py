"""From a URL to a server over HTTP: where it is, and how it is known.

``http://host:port``: a runtara-core speaks nothing else.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from ..errors import ConfigError

SCHEMES = ("http://", "https://")
DEFAULT_PORT = 8001


class HttpServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """What errors call it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def authority(self) -> str:
        """What it is called in requests."""
        return self.name.partition("://")[2]


def is_http(target: str) -> bool:
    """Whether a URL means a server over HTTP."""
    return target.lower().startswith(SCHEMES)


def http_server(url: str) -> HttpServer:
    """The server that a URL names. Raises ConfigError."""
    remedy = "write http://HOST:PORT, such as http://127.0.0.1:8001"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"{url!r} names no server ({exc}); {remedy}") from exc
    if not host or parts.username or parts.path not in ("", "/") or parts.fragment or port == 0:
        raise ConfigError(f"{url!r} names no server; {remedy}")
    if parts.query:
        raise ConfigError(
            f"{url!r}: {parts.query} is not understood; an http:// URL has no parameters"
        )
    if parts.scheme == "https":
        raise ConfigError(f"{url!r}: a server over TLS is not opened by this version; {remedy}")
    return HttpServer(host=host, port=DEFAULT_PORT if port is None else port)
