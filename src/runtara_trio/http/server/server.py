"""An application on TCP ports, until it is drained."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ... import logs
from ...errors import ConfigError
from ...serving.limits import Memory
from ...tasks import RepeatedEvent
from ..stream import TcpStream
from .connection import Application, Limits, ServedConnection

BUSY = 0.1
"""Seconds before a connection is taken again, where one could not be."""


class HttpServer:
    """A running server; :func:`open_http_server` gives it."""

    def __init__(
        self,
        listeners: list[trio.SocketListener],
        application: Application,
        limits: Limits,
        nursery: trio.Nursery,
    ) -> None:
        self._listeners = listeners
        self._application = application
        self._limits = limits
        self._nursery = nursery
        self._requests = Memory(limits.memory // 2)
        self._answers = Memory(limits.memory // 2)
        self._draining = False
        self._clients: set[ServedConnection] = set()
        self._fewer = RepeatedEvent()
        self._accepting = trio.CancelScope()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port, *_ = self._listeners[0].socket.getsockname()
        return host, port

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._clients)

    @property
    def held(self) -> int:
        """Bytes of requests and answers that are held for clients."""
        return self._requests.used + self._answers.used

    async def accept(self) -> None:
        """Take connections. Runs until it is drained."""
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for listener in self._listeners:
                        nursery.start_soon(self._accept_from, listener)
        finally:
            for listener in self._listeners:
                listener.socket.close()

    async def _accept_from(self, listener: trio.SocketListener) -> None:
        while True:
            while len(self._clients) >= self._limits.connections:
                await self._fewer.wait()
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):
                    raise  # the listener is gone; all else is of one connection, or passes
                await trio.sleep(BUSY)
                continue
            client = ServedConnection(
                TcpStream.of(stream),
                self._application,
                self._limits,
                self._requests,
                self._answers,
            )
            self._clients.add(client)
            if self._draining:
                client.drain()
            self._nursery.start_soon(self._serve, client)

    async def _serve(self, client: ServedConnection) -> None:
        try:
            await client.run()
        except Exception as exc:
            logs.connection_failed(exc_info=exc, error=repr(exc))
        finally:
            self._clients.discard(client)
            self._fewer.set()

    async def drain(self, seconds: float) -> None:
        """Answer what was asked, for at most ``seconds``, and close all connections."""
        if self._draining:
            return
        self._draining = True
        self._accepting.cancel()
        for client in self._clients:
            client.drain()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
            while self._clients:
                await self._fewer.wait()


async def listen(host: str, port: int, option: str) -> list[trio.SocketListener]:
    """Listen on a TCP port.

    Raises:
      ConfigError: the port is taken, or the host is not one of this machine's.
    """
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as exc:
        found = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
        if found.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"TCP port {port} of {host} is taken; choose another one with {option}, "
                "or end the server that has it"
            ) from exc
        raise ConfigError(f"cannot serve on {host}:{port}: {found.strerror or found}") from exc


@asynccontextmanager
async def open_http_server(
    listeners: list[trio.SocketListener],
    application: Application,
    *,
    limits: Limits | None = None,
    drain_timeout: float = 10.0,
) -> AsyncIterator[HttpServer]:
    """Serve an application, until the block is left.

    Args:
      drain_timeout: seconds to answer at the end what was asked before.
    """
    async with trio.open_nursery() as nursery:
        server = HttpServer(listeners, application, limits or Limits(), nursery)
        nursery.start_soon(server.accept)
        try:
            yield server
        finally:
            await server.drain(drain_timeout)
            nursery.cancel_scope.cancel()
