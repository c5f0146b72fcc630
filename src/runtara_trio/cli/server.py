"""``runtara-trio serve``: a store as a server that stock SDKs take for runtara-core."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import click
import trio

from ..config import SdkConfig
from ..http.server.connection import Application
from ..http.server.connection import Limits as HttpLimits
from ..http.server.guard import Guard
from ..http.server.instances import InstanceAnswers
from ..http.server.operators import OperatorAnswers
from ..http.server.server import HttpServer, listen, open_http_server
from ..opening import open_backend
from ..quic.location import SCHEME
from ..quic.server.connection import Limits
from ..quic.server.server import Server, bind, open_server
from ..quic.transport.tls import Identity, load_identity, make_identity
from ..serving.leases import open_leases
from ..store.location import without_password
from ..tokens import Role, TokenFile
from .options import is_loopback


def identity_of(certificate: Path | None, key: Path | None, host: str) -> Identity:
    """The server's certificate: one that is given, or one of its own making."""
    if certificate is not None and key is not None:
        return load_identity(certificate, key)
    if certificate is not None or key is not None:
        raise click.UsageError("--certificate and --key go together")
    names = dict.fromkeys(("localhost", "127.0.0.1", "::1", host))
    return make_identity(*(name for name in names if name not in ("0.0.0.0", "::")))


class OverQuic(NamedTuple):
    """What is served over QUIC."""

    port: int
    identity: Identity
    limits: Limits


class OverHttp(NamedTuple):
    """What is served over HTTP."""

    port: int | None
    """Of instances; None: they are not served."""
    operators_port: int | None
    limits: HttpLimits
    tokens: TokenFile | None
    hosts: tuple[str, ...]
    """Names by which it may be asked for."""

    async def listen(self, host: str) -> list[tuple[Role, list[trio.SocketListener]]]:
        """For whom it listens where. Raises ConfigError: a port is taken."""
        ports = {
            Role.PROGRAM: (self.port, "--http-port"),
            Role.OPERATOR: (self.operators_port, "--operators-port"),
        }
        return [
            (role, await listen(host, port, option))
            for role, (port, option) in ports.items()
            if port is not None
        ]


def over_quic(host: str, options: Mapping[str, Any]) -> OverQuic:
    """What the options say of QUIC."""
    limits = Limits(
        connections=options["max_connections"],
        handshakes=options["max_handshakes"],
        streams=options["max_calls"],
        memory=options["max_memory"] << 20,
        idle_timeout=options["idle_timeout"],
        stream_timeout=options["call_timeout"],
    )
    identity = identity_of(options["certificate"], options["key"], host)
    return OverQuic(options["port"], identity, limits)


def over_http(host: str, options: Mapping[str, Any]) -> OverHttp:
    """What they say of HTTP. Raises UsageError: anybody from anywhere could ask for anything."""
    file = options["token_file"]
    if file is None and not options["allow_anonymous"] and not is_loopback(host):
        raise click.UsageError(
            f"on {host} everybody who reaches the port could run, read and end any instance: give "
            "--token-file, or --allow-anonymous, or listen on 127.0.0.1"
        )
    limits = HttpLimits(
        connections=options["max_connections"],
        memory=options["max_memory"] << 20,
        idle_timeout=options["idle_timeout"],
        call_timeout=options["call_timeout"],
    )
    tokens = None if file is None else TokenFile.read(file)
    return OverHttp(
        options["http_port"], options["operators_port"], limits, tokens, options["hosts"]
    )


async def run_server(
    config: SdkConfig,
    host: str,
    quic: OverQuic | None,
    http: OverHttp | None,
    *,
    drain_timeout: float,
) -> None:
    """Serve the configuration's store until SIGTERM or SIGINT."""
    link = None if quic is None else bind(host, quic.port)
    listening = [] if http is None else await http.listen(host)
    store = without_password(config.url)
    running: list[Server | HttpServer] = []
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(open_backend(config, create=True))
        leases = await stack.enter_async_context(open_leases(backend, keep=config.lease_ms / 1000))
        if quic is not None and link is not None:
            over_quic = await stack.enter_async_context(
                open_server(
                    backend,
                    link,
                    quic.identity,
                    leases,
                    limits=quic.limits,
                    drain_timeout=drain_timeout,
                )
            )
            running.append(over_quic)
            click.echo(f"serving {store} on {_url(SCHEME, link.address)}")
            click.echo(f"certificate pin={quic.identity.pin}")
        for role, listeners in listening:
            assert http is not None
            guard = Guard(hosts=http.hosts, tokens=http.tokens, role=role)
            application: Application = (
                InstanceAnswers(backend, leases, guard)
                if role is Role.PROGRAM
                else OperatorAnswers(backend, guard)
            )
            over_http = await stack.enter_async_context(
                open_http_server(
                    listeners, application, limits=http.limits, drain_timeout=drain_timeout
                )
            )
            running.append(over_http)
            what = "serving" if role is Role.PROGRAM else "operators of"
            click.echo(f"{what} {store} on {_url('http://', over_http.address)}")
        number = await _ended()
        count = sum(server.connections for server in running)
        click.echo(f"{number.name}: draining {count} connections", err=True)
        async with trio.open_nursery() as nursery:  # all at once: nobody takes work meanwhile
            for server in running:
                nursery.start_soon(server.drain, drain_timeout)


async def _ended() -> signal.Signals:
    """The signal that ends the server."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            return signal.Signals(number)
    raise AssertionError("signals do not end")


def _url(scheme: str, address: tuple[Any, ...]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}{host}:{address[1]}"
