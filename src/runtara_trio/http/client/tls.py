"""TLS to a proxy in front of a server: which certificate is trusted."""

from __future__ import annotations

import hashlib
import ssl

import trio

from ...errors import ConfigError
from ...remote.location import ServerLocation, another_certificate

EXPIRED = (9, 10)
"""OpenSSL's numbers of a certificate that is not valid yet, or not any more."""
WRONG_NAME = (62, 64)
"""Of one that carries another name, or another address."""


def context_for(server: ServerLocation) -> ssl.SSLContext:
    """What a client checks. Raises ConfigError: ``ca`` is no file of certificates."""
    try:
        context = ssl.create_default_context(cafile=server.ca)
    except OSError as exc:
        raise ConfigError(f"{server.ca!r} holds no certificates in PEM: {exc}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not server.verify or server.pin is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def encrypted(
    stream: trio.SocketStream, server: ServerLocation, context: ssl.SSLContext
) -> trio.SSLStream[trio.SocketStream]:
    """A stream whose other end is the server. Raises OSError: says why it is not."""
    try:
        found = trio.SSLStream(
            stream, context, server_hostname=server.server_name, https_compatible=True
        )
        await found.do_handshake()
    except ValueError as exc:
        raise OSError(f"server_name={server.server_name} is no name of a host: {exc}") from exc
    except trio.BrokenResourceError as exc:
        raise OSError(_why(exc.__cause__)) from exc
    certificate = found.getpeercert(binary_form=True)
    trouble = another_certificate(
        server, None if certificate is None else hashlib.sha256(certificate).digest()
    )
    if trouble is not None:
        raise OSError(trouble)
    return found


def _why(cause: BaseException | None) -> str:
    """What a handshake failed of, and how to mend it."""
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return f"the handshake failed: {cause}"
    reason = cause.verify_message
    if cause.verify_code in EXPIRED:
        return f"its certificate has expired, or is not valid yet ({reason}): renew it"
    if cause.verify_code in WRONG_NAME:
        return (
            f"its certificate has the wrong name ({reason}): give the name that it carries as "
            "server_name=…, or trust just this certificate with pin=…"
        )
    return (
        f"nobody that is trusted has issued its certificate ({reason}): give its issuer's "
        "certificate as ca=FILE, or trust just this one with pin=…"
    )
