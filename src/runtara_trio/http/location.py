"""From a URL to a server over HTTP.

``http://host:port``: a runtara-core, or ``runtara-trio serve``, speaks nothing else.
``https://host:port`` is a proxy in front of one. ``?operators=8004``: the port of the same host at
which operators are answered.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from ..config import SdkConfig
from ..errors import ConfigError
from ..remote.location import TRUST, ServerLocation, is_loopback, server_of

HTTP, HTTPS = "http://", "https://"
DEFAULT_PORTS = {HTTP: 8001, HTTPS: 443}
OPERATORS = "operators"


class HttpTarget(NamedTuple):
    """What a URL names."""

    server: ServerLocation
    operators: ServerLocation | None
    """Where operators are answered; None: nowhere."""


def is_http(target: str) -> bool:
    """Whether a URL means a server over HTTP."""
    return target.lower().startswith((HTTP, HTTPS))


def http_target(url: str, config: SdkConfig) -> HttpTarget:
    """What a URL names.

    Raises:
      ConfigError: no server, or a token could be read on its way there.
    """
    scheme = HTTPS if url.lower().startswith(HTTPS) else HTTP
    rest, port = _without_operators(url)
    server = server_of(
        rest,
        port=DEFAULT_PORTS[scheme],
        parameters=TRUST if scheme == HTTPS else (),
        example="write http://HOST:PORT, such as http://127.0.0.1:8001",
        shown=url,
    )
    has_token = config.token is not None or config.operators_token is not None
    if has_token and scheme == HTTP and not is_loopback(server.host):
        raise ConfigError(
            f"a token for {server.name} could be read on its way: put a proxy with TLS before "
            "the server, and give its https:// URL"
        )
    return HttpTarget(server, None if port is None else msgspec.structs.replace(server, port=port))


def _without_operators(url: str) -> tuple[str, int | None]:
    """A URL without its ``operators=``, and what that says."""
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    ports = [value for name, value in given if name == OPERATORS]
    for value in ports:
        if not value.isdecimal() or not 0 < int(value) < 65536:
            raise ConfigError(f"{url!r}: operators={value} is no port, such as operators=8004")
    rest = urlencode([(name, value) for name, value in given if name != OPERATORS])
    without = urlunsplit(parts._replace(query=rest)) if ports else url
    return without, int(ports[-1]) if ports else None
