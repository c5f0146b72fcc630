"""``serve``: a backend behind the instance protocol, on one UDP socket.

Each request is a task of its own. Draining, the server reads nothing more, lets what it is
answering end, and closes its connections, so that its clients know at once.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ... import logs
from ...backend import Backend
from ...errors import ConfigError
from ...serving.leases import ClientLeases
from ...tasks import InFlight
from ...wire import mapping
from ...wire.calls import Call
from ..transport.link import Link, ServerLink
from ..transport.tls import Identity
from .answers import Answers
from .connection import Limits, ServedConnection
from .listener import Listener


class Server:
    """A running server; :func:`open_server` gives it."""

    def __init__(
        self,
        backend: Backend,
        link: Link,
        identity: Identity,
        limits: Limits,
        leases: ClientLeases,
        nursery: trio.Nursery,
    ) -> None:
        self._nursery = nursery
        self.leases = leases
        self._answers = Answers(backend, self.leases)
        self._running = InFlight()
        self._draining = False
        self.listener = Listener(
            link,
            identity.configuration(limits.idle_timeout),
            limits,
            self._handle,
            self.leases.has_gone,
        )

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self.listener.clients)

    @property
    def answering(self) -> int:
        """Calls that are being answered."""
        return len(self._running)

    # ---- requests

    def _handle(self, client: ServedConnection, stream_id: int, payload: bytes) -> None:
        if self._draining:
            return
        try:
            call = mapping.decode_call(payload)
        except mapping.WireError:  # as runtara-core: no answer, and the connection goes on
            client.reply(stream_id, None)
            return
        self._running.begin()
        self._answers.begin(call)
        patience = client.patience[stream_id] = trio.CancelScope()
        self._nursery.start_soon(self._answer, client, stream_id, call, patience)

    async def _answer(
        self,
        client: ServedConnection,
        stream_id: int,
        call: Call | None,
        patience: trio.CancelScope,
    ) -> None:
        reply = None
        try:
            reply = await self._answers.answer(client, call, patience)
        except Exception as exc:  # a mistake of ours: the others must not suffer
            logs.call_failed(exc_info=exc, call="a request", error=str(exc))
        finally:
            client.reply(stream_id, reply)
            if client.gone:  # what it got meanwhile is nobody's
                self.leases.has_gone(client)
            self._running.end()

    # ---- the end

    async def drain(self, seconds: float) -> None:
        """Answer what was asked, for at most ``seconds``, and close all connections."""
        if self._draining:
            return
        self._draining = True
        self.listener.open = False
        for client in self.listener.clients:
            for patience in client.patience.values():
                patience.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
            await self._running.until_none()
        for client in self.listener.clients:
            client.close()


def bind(host: str, port: int) -> ServerLink:
    """A link on a UDP port.

    Raises:
      ConfigError: the port is taken, or the host is not one of this machine's.
    """
    try:
        ((family, _, _, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
        bound = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as exc:
        raise ConfigError(f"{host!r} is not a host to serve on: {exc.strerror}") from exc
    try:
        bound.bind(address)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"UDP port {port} of {host} is taken; choose another one with --port, "
                "or end the server that has it"
            ) from exc
        raise ConfigError(f"cannot serve on {host}:{port}: {exc.strerror}") from exc
    return ServerLink(bound)


@asynccontextmanager
async def open_server(
    backend: Backend,
    link: Link,
    identity: Identity,
    leases: ClientLeases,
    *,
    limits: Limits | None = None,
    drain_timeout: float = 10.0,
) -> AsyncIterator[Server]:
    """Serve a backend over a link, until the block is left.

    Args:
      leases: of all servers of the backend.
      drain_timeout: seconds to answer at the end what was asked before.
    """
    try:
        async with trio.open_nursery() as nursery:
            server = Server(backend, link, identity, limits or Limits(), leases, nursery)
            nursery.start_soon(server.listener.driver.run)
            try:
                yield server
            finally:
                await server.drain(drain_timeout)
                nursery.cancel_scope.cancel()
    finally:
        link.close()
