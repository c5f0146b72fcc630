"""The hosts of a PostgreSQL server, and which of them to connect to.

Several hosts in a URL mean one cluster, and a store writes: the primary is meant, unless
the URL says otherwise. They are asked one after the other, the one that worked last first; a
host that is silent holds the next one up for a moment only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
import trio
from psycopg import conninfo, generators, pq, waiting
from psycopg import errors as pg_errors
from psycopg.waiting import Wait

from ...tasks import staggered
from ...threads import in_thread
from .connection import Connection, wait_until_ready
from .failures import is_of_network
from .pooled import PooledConnection, without_pooler

CONNECT_TIMEOUT = 5.0
"""Seconds for one host, where the URL does not say."""

SHORT = 2
"""Seconds for one that is not the last, where they are asked one by one; libpq has no less."""

_DEFAULTS = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Parameters of a connection where its URL does not say: one that was cut must be noticed."""

T = TypeVar("T")

Attempt = dict[str, Any]
"""The parameters of a connection to one address."""


class Hosts:
    """Connects to one of the hosts that a URL names. Shared by all connections of a store."""

    def __init__(self, url: str) -> None:
        self.url, self.pooled = without_pooler(url)
        """``pooled``: there are no sessions, but for the time of a transaction."""
        self._parameters = parameters_of(self.url)
        self._worked_last: object = None

    @property
    def timeout(self) -> float:
        """Seconds for one host."""
        return float(self._parameters.get("connect_timeout") or CONNECT_TIMEOUT)

    def attempts(self) -> list[Attempt]:
        """What to try, in this order. It resolves names, and so blocks: for a thread.

        Raises:
          psycopg.OperationalError: no name can be resolved.
        """
        found = conninfo.conninfo_attempts(self._parameters)
        found.sort(key=lambda attempt: _place(attempt) != self._worked_last)
        if len(found) > 1 and "target_session_attrs" not in self._parameters:
            # One name of several servers, of which a standby is better than nothing.
            found = [{**one, "target_session_attrs": "read-write"} for one in found] + found
        return found

    def worked(self, attempt: Attempt) -> None:
        """This one is asked first from now on."""
        self._worked_last = _place(attempt)

    def connect_blocking(self) -> psycopg.Connection[tuple[object, ...]]:
        """As :meth:`connect`, for a thread, which it blocks.

        Raises:
          psycopg.Error: as :meth:`connect`.
        """
        failure: psycopg.Error | None = None
        attempts = self.attempts()
        for attempt in attempts:
            timeout = int(self.timeout) if attempt is attempts[-1] else SHORT
            try:
                connection = connected_blocking({**attempt, "connect_timeout": timeout})
            except psycopg.Error as exc:
                failure = failure or exc
            else:
                self.worked(attempt)
                if self.pooled:
                    connection.prepare_threshold = None
                return connection
        assert failure is not None
        raise failure

    async def connect(self, local: str = "") -> Connection:
        """A connection to the first that takes it. ``local``: what each of its transactions begins
        with, where it has no session.

        Raises:
          psycopg.Error: every host refuses it, or no name can be resolved.
          TooSlowError: no host has answered.
        """
        with trio.fail_after(self.timeout):
            attempts = await in_thread(self.attempts, abandon_on_cancel=True)
        race = _Race(self.timeout)
        with race.scope:
            await staggered(race.run, attempts, lambda: race.won is not None)
        if race.won is None:
            raise race.failure()
        attempt, pgconn = race.won
        self.worked(attempt)
        return PooledConnection(pgconn, local) if self.pooled else Connection(pgconn)


class _Race:
    """Who answers first of those that are asked."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._failures: list[Exception] = []
        self.scope = trio.CancelScope()
        """Of all who are asked."""
        self.won: tuple[Attempt, pq.abc.PGconn] | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(self, attempt: Attempt, over: trio.Event) -> None:
        try:
            with trio.fail_after(self._timeout):
                pgconn = await connected(conninfo.make_conninfo("", **attempt))
        except (psycopg.Error, OSError, trio.TooSlowError) as exc:
            self._failures.append(exc)
        else:
            if self.won is None:
                self.won = attempt, pgconn
            else:
                pgconn.finish()
            self.scope.cancel()
        finally:
            over.set()

    def failure(self) -> Exception:
        """What says most: what a server answered, before what the network did."""
        return min(self._failures, key=_says_little)


def _says_little(failure: Exception) -> int:
    if getattr(failure, "sqlstate", None) is not None:
        return 0
    return 2 if isinstance(failure, trio.TooSlowError) else 1


def parameters_of(url: str) -> dict[str, Any]:
    """The parameters of a connection, for libpq."""
    given = conninfo.conninfo_to_dict(url)
    if "," in str(given.get("host") or given.get("hostaddr") or ""):
        given = {"target_session_attrs": "read-write", **given}
    return {**_DEFAULTS, **given, "client_encoding": "UTF8"}


def _place(attempt: Attempt) -> object:
    return attempt.get("hostaddr") or attempt.get("host"), attempt.get("port")


async def connected(parameters: str) -> pq.abc.PGconn:
    """A connection to one address.

    Raises:
      psycopg.OperationalError: as the server says, of the class of its SQLSTATE where it says
        one; libpq has only the text, which may be in any language.
    """
    try:
        return await _drive(generators.connect(parameters))
    except psycopg.OperationalError as exc:
        if is_of_network(exc):
            raise
        raise _coded(exc, await _drive(_sqlstate(parameters))) from exc


def connected_blocking(parameters: Attempt) -> psycopg.Connection[tuple[object, ...]]:
    """The same for a thread, which it blocks."""
    try:
        return psycopg.connect("", autocommit=True, **parameters)
    except psycopg.OperationalError as exc:
        if is_of_network(exc):
            raise
        state = waiting.wait_conn(_sqlstate(conninfo.make_conninfo("", **parameters)))
        raise _coded(exc, state) from exc


def _coded(exc: psycopg.OperationalError, sqlstate: str | None) -> psycopg.Error:
    try:
        kind = pg_errors.lookup(sqlstate or "")
    except KeyError:
        return exc
    return kind(str(exc))


def _sqlstate(parameters: str) -> Generator[Any, Any, str | None]:
    """The SQLSTATE with which a server refuses a connection, read from a trace of another try;
    None: there is none, or this platform has no traces."""
    if not hasattr(os, "memfd_create"):
        return None
    waits = {pq.PollingStatus.READING: Wait.R, pq.PollingStatus.WRITING: Wait.W}
    descriptor = os.memfd_create("runtara-trio")
    try:
        pgconn = pq.PGconn.connect_start(parameters.encode())
        try:
            pgconn.trace(descriptor)
            while (status := pq.PollingStatus(pgconn.connect_poll())) in waits:
                yield pgconn.socket, waits[status]
            pgconn.untrace()
        except psycopg.NotSupportedError:
            return None
        finally:
            pgconn.finish()
        said = os.pread(descriptor, 1 << 16, 0)
    finally:
        os.close(descriptor)
    found = re.search(rb'\tErrorResponse\t.*? C "(\w{5})"', said)
    return None if found is None else found[1].decode()


async def _drive(generator: Generator[Any, Any, T]) -> T:
    try:
        descriptor, wait = next(generator)
        while True:
            descriptor, wait = generator.send(await wait_until_ready(descriptor, wait))
    except StopIteration as stop:
        made: T = stop.value
        return made
    finally:
        generator.close()
