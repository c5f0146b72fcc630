"""Connections to one server, that calls take turns on.

A call is read to its end also where nobody waits for it any more: a server drops what it does for a
connection that is closed, and half of a write would stay behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import outcome
import trio

from ... import logs, measures
from ...errors import RequestTimeout, ServerError, Unreachable
from ...remote.location import ServerLocation
from ...tasks import GRACE, Answer
from ..location import HTTPS
from ..stream import TcpStream
from .connection import BadResponse, Connection, Lost, Response
from .tls import context_for, encrypted

Connect = Callable[[], Awaitable[Connection]]

SMALL = 32 * 1024
"""Bytes of a request that a connection takes at once, the one before having been answered."""

WRITE = b"POST"
"""How a request begins that writes."""

MOST = 64
"""Connections at once; more calls wait."""
RETRY, LONGEST_RETRY = 0.05, 1.0
"""Seconds before a server that is away is tried again; doubled each time."""
LEFT_ALONE = 30.0
"""Seconds for an answer that nobody waits for."""

Late = Callable[[Response], object]


class Reply(NamedTuple):
    response: Response
    resent: bool


def connecting(server: ServerLocation) -> Connect:
    """What connects to a server over TCP, and where its URL says so over TLS. Raises OSError."""
    context = context_for(server) if server.scheme == HTTPS else None

    async def connect() -> Connection:
        stream = await trio.open_tcp_stream(server.host, server.port)
        if context is None:
            plain = TcpStream.of(stream)
            return Connection(plain, plain.fileno())
        try:
            tls = await encrypted(stream, server, context)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return Connection(tls, stream.socket.fileno(), is_plain=False)

    return connect


def _leave_alone(scope: trio.CancelScope) -> None:
    scope.deadline = trio.current_time() + LEFT_ALONE


class _Exchange:
    """One request and its answer. What was begun is gone on with by whoever runs it next."""

    __slots__ = ("_sent", "connection", "is_half", "late", "request", "writes")

    def __init__(self, connection: Connection, request: bytes, late: Late | None) -> None:
        self.connection = connection
        self.request = request
        self.late = late
        self.writes = request.startswith(WRITE)
        self._sent = False
        self.is_half = False
        """A part of the request was sent: nobody will carry it out."""

    async def run(self) -> Response:
        if not self._sent:
            self.is_half = True
            await self.connection.send(self.request)
            self.is_half, self._sent = False, True
        return await self.connection.read()


class Pool:
    """The connections of one client."""

    def __init__(
        self,
        server: ServerLocation,
        nursery: trio.Nursery,
        connect_timeout: float,
    ) -> None:
        """``nursery``: of calls that are on their way."""
        self.server = server
        self._nursery = nursery
        self._connect_timeout = connect_timeout
        self._connect = connecting(server)
        self._turns = trio.Semaphore(MOST)
        self._idle: list[Connection] = []
        self._writes = 0
        """On their way: a question may be cut off."""
        self._written = trio.Event()
        self._was_connected = False
        self._failure: str | None = None
        self._closed = False

    def trouble(self) -> str | None:
        """What keeps it from connecting; None: it is connected, or has not tried."""
        return None if self._failure is None else f"{self.server.name}: {self._failure}"

    async def call(
        self,
        name: str,
        request: bytes,
        deadline: float,
        *,
        resend: bool,
        late: Late | None = None,
    ) -> Reply:
        """Make one call.

        Args:
          name: what errors call it.
          request: head and body.
          deadline: by Trio's clock.
          resend: whether it may be sent again where nobody knows if it was carried out.
          late: given the answer, where its caller was cancelled meanwhile.

        Raises:
          RequestTimeout: no answer by the deadline.
          Unreachable: no connection, or the answer of a call was lost that must not be sent again.
          ServerError: what came is no answer.
        """
        sent = False
        wait = RETRY
        while True:
            try:
                return Reply(await self._once(name, request, deadline, sent, late), sent)
            except Lost as exc:
                sent = sent or exc.sent
                if sent and not resend:
                    raise Unreachable(
                        f"{name} at {self.server.name}: the connection was lost ({exc}); it may "
                        "have been carried out"
                    ) from exc
                self._note_failure(str(exc))
                if not self._was_connected or trio.current_time() + wait > deadline:
                    raise self._unreachable(name, sent) from exc
                await trio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY)
            except BadResponse as exc:
                raise ServerError(name, "BAD_REPLY", str(exc)) from exc

    @trio.lowlevel.enable_ki_protection
    async def _once(
        self, name: str, request: bytes, deadline: float, sent: bool, late: Late | None
    ) -> Response:
        if self._closed:
            raise Unreachable(f"the client of {self.server.name} was closed; {name} was not sent")
        with trio.move_on_at(deadline) as limit:
            if self._turns.value:
                self._turns.acquire_nowait()
            else:
                await self._turns.acquire()
            try:
                connection = await self._taken(deadline)
            except BaseException:
                self._turns.release()
                raise
            exchange = _Exchange(connection, request, late)
            self._writes += exchange.writes
            sent = True
            if len(request) > SMALL or not connection.is_plain:
                return await self._handed_over(exchange)
            try:
                found = await exchange.run()
            except trio.Cancelled:
                if exchange.is_half:
                    await self._done(exchange)
                    raise
                return await self._handed_over(exchange)
            except KeyboardInterrupt:
                scope = trio.CancelScope()
                _leave_alone(scope)
                self._nursery.start_soon(self._finish, exchange, Answer(), scope)
                raise
            except BaseException:
                await self._done(exchange)
                raise
            await self._done(exchange)
            return found
        assert limit.cancelled_caught
        raise RequestTimeout(
            f"{name} at {self.server.name} got no answer in time; "
            + ("it may have been carried out" if sent else "it was not sent")
            + ("" if self._failure is None else f" (not connected: {self._failure})")
        )

    async def _handed_over(self, exchange: _Exchange) -> Response:
        """Who has asked is cancelled: the answer is read without him. He waits for it where it
        tells what was saved, but not for long."""
        answer, scope = Answer(), trio.CancelScope()
        self._nursery.start_soon(self._finish, exchange, answer, scope)
        found: Response = await answer.wait(
            grace=0 if exchange.late is None else GRACE, leaves=lambda: _leave_alone(scope)
        )
        return found

    @trio.lowlevel.enable_ki_protection
    async def _finish(self, exchange: _Exchange, answer: Answer, scope: trio.CancelScope) -> None:
        """An exchange that was handed over, to its end."""
        found: outcome.Outcome[Response] = outcome.Error(Lost("the client was closed", sent=True))
        try:
            with scope:
                found = outcome.Value(await exchange.run())
        except (Lost, BadResponse) as exc:
            found = outcome.Error(exc)
        finally:
            await self._done(exchange)
            if (
                exchange.late is not None
                and not answer.is_awaited
                and isinstance(found, outcome.Value)
            ):
                exchange.late(found.value)
            answer.give(found)

    async def _done(self, exchange: _Exchange) -> None:
        """An exchange has ended, or is given up."""
        self._turns.release()
        self._writes -= exchange.writes
        if not self._writes:
            self._written.set()
        if exchange.connection.reusable and not self._closed:
            self._idle.append(exchange.connection)
        else:
            with trio.CancelScope(shield=True):
                await exchange.connection.close()

    async def _taken(self, deadline: float) -> Connection:
        """A connection that nobody uses, or a new one. Raises Lost."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_alive():
                return connection
            await connection.close()
        limit = min(deadline, trio.current_time() + self._connect_timeout)
        failure = "there was no answer"
        with trio.move_on_at(limit):
            try:
                made = await self._connect()
            except OSError as exc:
                failure = str(exc)
            else:
                self._note_connected()
                return made
        raise Lost(failure, sent=False)

    def _note_connected(self) -> None:
        if self._failure is not None or not self._was_connected:
            logs.connected(server=self.server.name)
            if self._was_connected:
                measures.reconnects(peer="server")
        self._was_connected, self._failure = True, None

    def _note_failure(self, why: str) -> None:
        if self._failure is None and self._was_connected:
            logs.disconnected(server=self.server.name, error=why)
        self._failure = why

    def _unreachable(self, name: str, sent: bool) -> Unreachable:
        kind = RequestTimeout if self._was_connected else Unreachable
        return kind(
            f"{self.server.name} cannot be reached for {name}: {self._failure}; "
            + ("it may have been carried out" if sent else "it was not sent")
        )

    async def close(self, patience: float) -> None:
        """Read the answers to writes that are on their way, within ``patience`` seconds, and
        close."""
        self._closed = True
        with trio.move_on_after(patience):
            while self._writes:
                self._written = trio.Event()
                await self._written.wait()
        while self._idle:
            await self._idle.pop().close()
