"""From a URL or a configuration to a server over QUIC."""

from __future__ import annotations

import msgspec

from ..config import SdkConfig
from ..errors import ConfigError
from ..remote.location import TRUST, ServerLocation, server_of, verifies

SCHEME = "quic://"
DEFAULT_PORT = 8001

_EXAMPLE = "write quic://HOST:PORT, such as quic://127.0.0.1:8001"


def is_server(target: str) -> bool:
    """Whether a URL means a server over QUIC."""
    return target.lower().startswith(SCHEME)


def server_of_url(url: str) -> ServerLocation:
    """The server that a URL names. Raises ConfigError."""
    return server_of(url, port=DEFAULT_PORT, parameters=TRUST, example=_EXAMPLE)


def server_of_config(config: SdkConfig) -> ServerLocation:
    """The server that ``server_addr`` and the fields beside it name. Raises ConfigError."""
    shown = config.server_addr
    if "?" in shown:
        raise ConfigError(
            f"server_addr is host:port, not {shown!r}; a quic:// URL takes parameters"
        )
    found = server_of(
        SCHEME + shown, port=DEFAULT_PORT, parameters=(), example=_EXAMPLE, shown=shown
    )
    skip = config.skip_cert_verification
    return msgspec.structs.replace(
        found,
        server_name=config.server_name,
        verify=verifies(found.host, None if skip is None else not skip),
    )
