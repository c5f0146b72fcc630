"""``runtara-trio serve``: a store as a server that stock SDKs take for runtara-core."""

from __future__ import annotations

import signal
from pathlib import Path

import click
import trio

from ..config import SdkConfig
from ..opening import open_backend
from ..quic.location import SCHEME
from ..quic.server.connection import Limits
from ..quic.server.server import bind, open_server
from ..quic.transport.tls import Identity, load_identity, make_identity
from ..store.location import without_password


def identity_of(certificate: Path | None, key: Path | None, host: str) -> Identity:
    """The server's certificate: one that is given, or one of its own making."""
    if certificate is not None and key is not None:
        return load_identity(certificate, key)
    if certificate is not None or key is not None:
        raise click.UsageError("--certificate and --key go together")
    names = dict.fromkeys(("localhost", "127.0.0.1", "::1", host))
    return make_identity(*(name for name in names if name not in ("0.0.0.0", "::")))


async def run_server(
    config: SdkConfig,
    host: str,
    port: int,
    identity: Identity,
    *,
    limits: Limits,
    drain_timeout: float,
) -> None:
    """Serve the configuration's store until SIGTERM or SIGINT."""
    link = bind(host, port)
    address = link.address
    async with (
        open_backend(config, create=True) as backend,
        open_server(
            backend,
            link,
            identity,
            limits=limits,
            keep_leases=config.lease_ms / 1000,
            drain_timeout=drain_timeout,
        ) as server,
    ):
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        click.echo(f"serving {without_password(config.url)} on {SCHEME}{shown}:{address[1]}")
        click.echo(f"certificate pin={identity.pin}")
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                click.echo(
                    f"{signal.Signals(number).name}: draining {server.connections} connections",
                    err=True,
                )
                break
