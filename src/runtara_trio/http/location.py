"""From a URL to a server over HTTP.

``http://host:port``: a runtara-core, or ``runtara-trio serve``, speaks nothing else.
``https://host:port`` is a proxy in front of one.
"""

from __future__ import annotations

from ..errors import ConfigError
from ..remote.location import TRUST, ServerLocation, is_loopback, server_of

HTTP, HTTPS = "http://", "https://"
DEFAULT_PORTS = {HTTP: 8001, HTTPS: 443}


def is_http(target: str) -> bool:
    """Whether a URL means a server over HTTP."""
    return target.lower().startswith((HTTP, HTTPS))


def http_server(url: str, token: str | None = None) -> ServerLocation:
    """The server that a URL names.

    Raises:
      ConfigError: it names none, or a token could be read on its way there.
    """
    scheme = HTTPS if url.lower().startswith(HTTPS) else HTTP
    server = server_of(
        url,
        port=DEFAULT_PORTS[scheme],
        parameters=TRUST if scheme == HTTPS else (),
        example="write http://HOST:PORT, such as http://127.0.0.1:8001",
    )
    if token is not None and scheme == HTTP and not is_loopback(server.host):
        raise ConfigError(
            f"a token for {server.name} could be read on its way: put a proxy with TLS before the "
            "server, and give its https:// URL"
        )
    return server
