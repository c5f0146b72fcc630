"""``runtara-trio serve``: a store as a server that stock SDKs take for runtara-core."""

from __future__ import annotations

from pathlib import Path

import click

from ..config import SdkConfig
from .options import run_on_trio, url_option


@click.command("serve")
@url_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="UDP; 0: any."
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM; without it, one is made at every start.",
)
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Its key, PEM."
)
@click.option("--max-connections", default=10_000, show_default=True, type=click.IntRange(1))
@click.option(
    "--max-handshakes",
    default=1_000,
    show_default=True,
    type=click.IntRange(1),
    help="Connections at once that are not established yet.",
)
@click.option(
    "--max-calls",
    default=1_000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Calls at once, of one connection.",
)
@click.option(
    "--max-memory",
    default=1024,
    show_default=True,
    type=click.IntRange(512),
    metavar="MIB",
    help="Of requests and replies at once; one connection may have a quarter.",
)
@click.option(
    "--idle-timeout",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Of a connection.",
)
@click.option(
    "--call-timeout",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Until a request must be whole, and a large reply be read.",
)
@click.option(
    "--drain-timeout",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="To answer at the end what was asked before.",
)
def serve_command(
    store: str,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    max_connections: int,
    max_handshakes: int,
    max_calls: int,
    max_memory: int,
    idle_timeout: float,
    call_timeout: float,
    drain_timeout: float,
) -> None:
    """Serve a store to SDKs of the instance protocol, as runtara-core does."""
    from ..quic.server.connection import Limits  # with QUIC and its cryptography
    from . import server

    limits = Limits(
        connections=max_connections,
        handshakes=max_handshakes,
        streams=max_calls,
        memory=max_memory << 20,
        idle_timeout=idle_timeout,
        stream_timeout=call_timeout,
    )

    async def run() -> None:
        await server.run_server(
            SdkConfig(store=store),
            host,
            port,
            server.identity_of(certificate, key, host),
            limits=limits,
            drain_timeout=drain_timeout,
        )

    run_on_trio(run)
