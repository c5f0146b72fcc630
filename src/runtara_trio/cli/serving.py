"""``runtara-trio serve``: a store as a server that stock SDKs take for runtara-core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config import SdkConfig
from .options import run_on_trio, url_option


@click.command("serve")
@url_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="UDP; 0: any."
)
@click.option("--quic/--no-quic", default=True, show_default=True, help="Serve over QUIC.")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    help="Serve over HTTP, for SDKs from 1.5 on. TCP; 0: any.",
)
@click.option(
    "--operators-port",
    type=click.IntRange(0, 65535),
    help="Answer operators over HTTP, as a runtara-environment does. TCP; 0: any.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Who may ask over HTTP: lines of role (program or operator), name and token.",
)
@click.option(
    "--allow-anonymous",
    is_flag=True,
    help="Over HTTP anybody may ask who reaches the port, though it is not on loopback.",
)
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which it is asked for over HTTP. Addresses and localhost are known.",
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
    help="Calls at once, of one connection over QUIC.",
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
def serve_command(store: str, **options: Any) -> None:
    """Serve a store to SDKs of the instance protocol, as runtara-core does."""
    from . import server  # with QUIC and its cryptography

    host = options["host"]
    over_http = options["http_port"] is not None or options["operators_port"] is not None
    if not options["quic"] and not over_http:
        raise click.UsageError("--no-quic needs --http-port: there is nothing to serve")

    async def run() -> None:
        await server.run_server(
            SdkConfig(store=store),
            host,
            server.over_quic(host, options) if options["quic"] else None,
            server.over_http(host, options) if over_http else None,
            drain_timeout=options["drain_timeout"],
        )

    run_on_trio(run)
