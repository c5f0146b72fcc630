"""Calls to a server whose connection comes and goes.

The session connects by itself, and again with a backoff when the connection is lost. A
call waits for a connection, sends itself on it, and where that one is lost, on the next:
a call that had been sent already only if whoever makes it says that twice does no harm.
Each call has one deadline over all of that.
"""

from __future__ import annotations

import functools
import random
import socket
from collections.abc import Callable

import msgspec
import trio

from ... import logs, measures
from ...errors import RequestTimeout, ServerError, Unreachable
from ...remote.location import ServerLocation
from ...tasks import GRACE, RepeatedEvent, staggered
from ...threads import addresses
from ..transport.driver import Driver
from ..transport.link import Address, ClientLink, Link
from ..transport.shim import Quic
from ..transport.tls import client_configuration, pin_check, refusal
from .connection import (
    AFTER_STOP,
    BadReply,
    CallingConnection,
    CallTimeout,
    ConnectionLost,
    Orphaned,
)

KEEP_ALIVE = 10.0
"""Seconds between two pings, as the Rust SDK's."""

FIRST_BACKOFF, LONGEST_BACKOFF = 0.05, 1.0
"""Seconds before a server is tried again; doubled each time, and up to half of it off."""

_OTHER_PLACES = (
    ". Start a server there, or name another place: RUNTARA_SERVER_ADDR is a server, "
    "RUNTARA_DATABASE_URL a store"
)

OpenLink = Callable[[int, Address], Link]
"""Opens a link to an address of a family."""


class Reply(msgspec.Struct, frozen=True):
    """What a call brought back."""

    payload: bytes | None
    """None: the server ended the call without an answer."""
    resent: bool
    """The call was sent more than once, so that it may have been carried out before."""


class Session:
    """A server, connected to as long as :meth:`run` runs."""

    def __init__(
        self, server: ServerLocation, connect_timeout: float, open_link: OpenLink = ClientLink
    ) -> None:
        self.server = server
        self._connect_timeout = connect_timeout
        self._open_link = open_link
        self._connection: CallingConnection | None = None
        self._changed = RepeatedEvent()
        self._failure = "there was no answer"
        self._answered_last: tuple[int, Address] | None = None
        self._trusted = True
        self._tried = 0
        self._was_connected = False
        self._wanted = trio.Event()
        self._closed = False

    # ---- calls

    async def call(
        self,
        name: str,
        frame: bytes,
        deadline: float,
        *,
        resend: bool,
        orphaned: Orphaned | None = None,
    ) -> Reply:
        """Make one call.

        Args:
          name: what errors call it.
          frame: the request.
          deadline: by Trio's clock.
          resend: whether it may be sent again where nobody knows if it was carried out.
          orphaned: see :meth:`CallingConnection.call`.

        Raises:
          RequestTimeout: no reply by the deadline.
          Unreachable: no connection, or the reply of a call was lost that must not be
            sent again.
          ServerError: what came was no reply.
        """
        sent = False
        while True:
            connection = self._connection
            if connection is None:
                connection = await self._connected(name, deadline, sent)
            try:
                # A call whose reply must not be lost saves something.
                grace = 0 if orphaned is None else GRACE
                return Reply(await connection.call(frame, deadline, orphaned, grace=grace), sent)
            except ConnectionLost as exc:
                sent = sent or exc.sent
                if sent and not resend:
                    raise Unreachable(
                        f"{name} at {self.server.name}: the connection was lost ({exc}); it may "
                        "have been carried out"
                    ) from exc
                if self._connection is connection:
                    self._connection = None
                now = trio.current_time()
                if now > deadline:  # lost while this process was stopped
                    deadline = now + AFTER_STOP
            except CallTimeout as exc:
                raise self._too_late(name, sent or exc.sent) from exc
            except BadReply as exc:
                raise ServerError(name, "BAD_REPLY", str(exc)) from exc

    async def _connected(self, name: str, deadline: float, sent: bool) -> CallingConnection:
        """A connection, waited for: the first one ``connect_timeout``, a later one until the
        call's deadline."""
        self._wanted.set()
        if self._closed:
            raise Unreachable(f"the client of {self.server.name} was closed; {name} was not sent")
        first = not self._was_connected
        limit = min(deadline, trio.current_time() + self._connect_timeout) if first else deadline
        with trio.move_on_at(limit):
            while self._connection is None:
                if not self._trusted or self._closed:
                    break
                await self._changed.wait()
            else:
                return self._connection
        if first or not self._trusted:
            raise Unreachable(
                f"{self.server.name} cannot be reached: {self._failure}"
                + (f"; tried {self._tried} times" if self._tried > 1 else "")
                + ("; it may have been carried out" if sent else "")
                + ("" if not self._trusted else _OTHER_PLACES)
            )
        raise self._too_late(name, sent)

    def _too_late(self, name: str, sent: bool) -> RequestTimeout:
        return RequestTimeout(
            f"{name} at {self.server.name} got no answer in time; "
            + ("it may have been carried out" if sent else "it was not sent")
            + ("" if self._connection is not None else f" (not connected: {self._failure})")
        )

    def trouble(self) -> str | None:
        """What keeps it from connecting; None: it is connected, or has not tried."""
        if self._connection is not None or not self._tried:
            return None
        return f"{self.server.name}: {self._failure}"

    # ---- the connection

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Keep a connection, from the first call on. Runs until cancelled."""
        try:
            await self._wanted.wait()
            await self._keep_connected()
        finally:
            self._closed = True
            self._disconnected("the client was closed")

    async def _keep_connected(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            self._tried += 1
            race = _Race()
            try:
                await self._connect_to(await self._addresses(), race)
            except OSError as exc:
                race.failed(exc.strerror or str(exc), distrusted=False)
            if race.won:
                backoff = FIRST_BACKOFF
                self._tried = 0
            self._trusted = not race.distrusted
            self._disconnected(race.failure)
            await trio.sleep(backoff * random.uniform(0.5, 1))
            backoff = min(2 * backoff, LONGEST_BACKOFF)

    async def _addresses(self) -> list[tuple[int, Address]]:
        """Where the server may be, the one that answered last first."""
        found = await addresses(self.server.host, self.server.port, socket.SOCK_DGRAM)
        return sorted(found, key=lambda one: one != self._answered_last)

    async def _connect_to(self, found: list[tuple[int, Address]], race: _Race) -> None:
        """Connect to the first that answers, and stay connected."""
        await staggered(functools.partial(self._hold, race), found, lambda: race.won)

    async def _hold(self, race: _Race, place: tuple[int, Address], over: trio.Event) -> None:
        """Connect, and stay connected if nobody else was first. ``over``: it is decided."""
        family, address = place
        quic = Quic(configuration=client_configuration(self.server))
        try:
            link = self._open_link(family, address)
        except OSError as exc:  # of a family that this machine does not have, say
            race.failed(exc.strerror or str(exc), distrusted=False)
            over.set()
            return
        driver = Driver(link, lambda datagram, source: connection)
        connection = CallingConnection(quic, driver, pin_check(self.server))
        connected = False
        try:
            with race.enter() as mine:
                async with trio.open_nursery() as nursery:
                    quic.connect(address, now=trio.current_time())
                    nursery.start_soon(driver.run)
                    connection.touch()
                    with trio.move_on_after(self._connect_timeout):
                        await connection.ready.wait()
                    connected = connection.ready.is_set() and connection.lost is None
                    if connected:
                        race.win(mine)
                        over.set()
                        self._answered_last = family, address
                        nursery.start_soon(_keep_alive, connection)
                        logs.connected(server=self.server.name)
                        if self._was_connected:
                            measures.reconnects(peer="server")
                        self._was_connected = self._trusted = True
                        self._set(connection)
                        await connection.over.wait()
                    nursery.cancel_scope.cancel()
        finally:
            if self._connection is connection:
                self._connection = None
            why = connection.lost
            connection.close()
            link.close()
            over.set()
        if race.won and not connected:
            return  # another one was first
        wrong = refusal(self.server, quic, connection.close_code, why or "")
        if connected:
            logs.disconnected(server=self.server.name, error=why)
        race.failed(
            wrong or why or f"no answer within {self._connect_timeout:g} s",
            distrusted=wrong is not None or connection.distrusted,
        )

    def _disconnected(self, why: str) -> None:
        self._failure = why
        self._set(None)

    def _set(self, connection: CallingConnection | None) -> None:
        """Tell all who wait for a connection that there is one, or that one has failed."""
        self._connection = connection
        self._changed.set()


class _Race:
    """The addresses of a server that are tried at once: the first that answers is it."""

    def __init__(self) -> None:
        self.won = False
        self.failure = "there was no answer"
        self.distrusted = False
        self._tries: list[trio.CancelScope] = []

    def enter(self) -> trio.CancelScope:
        """A scope for one try: cancelled when another one wins."""
        scope = trio.CancelScope()
        self._tries.append(scope)
        return scope

    def win(self, mine: trio.CancelScope) -> None:
        """A try has an answer: the others end."""
        self.won = True
        for scope in self._tries:
            if scope is not mine:
                scope.cancel()

    def failed(self, why: str, *, distrusted: bool) -> None:
        """A try came to nothing, or the connection that it made was lost."""
        self.failure = why
        self.distrusted = self.distrusted or distrusted


async def _keep_alive(connection: CallingConnection) -> None:
    while True:
        await trio.sleep(KEEP_ALIVE)
        connection.ping()
