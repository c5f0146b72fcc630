"""One connection to a PostgreSQL server, on Trio's own readiness waits.

libpq does the protocol, psycopg's generators say what to wait for; no thread and no asyncio
takes part in a call.
What can go in one round trip does: statements whose rows nobody needs wait for the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import weakref
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NoReturn

import psycopg
import trio
from psycopg import errors as pg_errors
from psycopg import generators, pq
from psycopg.waiting import Ready, Wait

from . import limits
from .packing import Parameter, Row, packed, rows, type_of

STALE = ("0A000", "26000")
"""SQLSTATEs of a statement that was prepared for what the database was, or on another server."""

READ_ONLY = "25006"
"""The same of a write on a standby."""


class ReadOnlySession(pg_errors.ReadOnlySqlTransaction):
    """A write on a server that is no standby: its sessions are read-only for this role."""


def told_apart(error: psycopg.Error, pgconn: pq.abc.PGconn) -> psycopg.Error:
    """A write that was refused by a standby, or by a primary that is read-only."""
    if error.sqlstate == READ_ONLY and pgconn.parameter_status(b"in_hot_standby") == b"off":
        told = ReadOnlySession(str(error))
        told.__cause__ = error
        return told
    return error


Statement = tuple[str, tuple[Parameter, ...]]


_open: weakref.WeakSet[pq.abc.PGconn] = weakref.WeakSet()


def keep_from_children(pgconn: pq.abc.PGconn) -> None:
    """Close a connection's socket in forked children: its server must see this process end."""
    _open.add(pgconn)


def _close_in_child() -> None:
    for pgconn in list(_open):
        with contextlib.suppress(OSError, pg_errors.Error):
            os.close(pgconn.socket)
    _open.clear()  # in a child of this one the numbers are another's


os.register_at_fork(after_in_child=_close_in_child)


class Connection:
    """An open connection. One statement at a time: who shares it takes turns."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._prepared: dict[str, bytes] = {}
        self._names = (f"s{number}".encode() for number in itertools.count())
        self._later: list[Statement] = []
        self._begins: list[Statement] = [("BEGIN", ())]
        """What a transaction begins with."""
        self.notifications: list[bytes] = []
        self.broken = False
        keep_from_children(pgconn)
        notes = self.notifications  # a handler that knew this object would keep it alive
        pgconn.notify_handler = lambda notify: notes.append(notify.relname)
        pgconn.notice_handler = lambda notice: None

    @property
    def socket(self) -> int:
        return int(self._pgconn.socket)

    async def run(self, statement: str, *parameters: Parameter) -> list[Row]:
        """Run one statement, prepared at its first use. Its rows.

        Cancelled on its way, the connection is given up: nobody knows what it is about.

        Raises:
          psycopg.Error: as the server says, of this one or of those that go with it.
        """
        return (await self.run_all((statement, parameters)))[-1]

    async def run_all(self, *statements: Statement) -> list[list[Row]]:
        """Run several in one round trip; one that fails ends it. The rows of each."""
        sent = [*self._later, *statements]
        self._later.clear()
        with self._broken_if_cut():
            if len(sent) == 1 and sent[0][0] in self._prepared:
                self._send(*sent[0])
                results = await _drive(generators.execute(self._pgconn), self.socket)
                failed = self._failure(results)
            else:
                with self._in_pipeline():
                    results, failed = await self._received(self._send_off(sent))
        if failed is not None:
            self._raise(failed)
        return [rows(result) for result in results[-len(statements) :]]

    def later(self, statement: str, *parameters: Parameter) -> None:
        """Run a statement, whose rows nobody needs, with the next one: that is a round trip less.
        Where the server refuses it, the next one raises."""
        self._later.append((statement, parameters))

    def begin(self) -> None:
        """Begin a transaction with the next statement."""
        self._later += self._begins

    async def commit(self, *channels: str) -> None:
        """Commit, and tell those who listen. Where that fails, the transaction is over as well.

        A server whose queue of notifications is full refuses these, or one of them takes too long:
        what was committed is found by the poll of those who listen.

        Raises:
          psycopg.Error: as the server says.
        """
        if self._later == self._begins:
            self._later.clear()
            return
        sent = [*self._later, ("COMMIT", ())]
        self._later.clear()
        notes: list[Statement] = [(f"SELECT pg_notify('{one}', '')", ()) for one in channels]
        with self._broken_if_cut(), self._in_pipeline():
            segments = [self._send_off(one) for one in (sent, *([note] for note in notes))]
            _, failed = await self._received(segments[0])
            if not await self._have_gone(segments[1:]):
                self.close()
        if failed is not None:
            await self.roll_back()
            self._raise(failed)

    async def _have_gone(self, segments: Sequence[Sequence[str | None]]) -> bool:
        """Whether the server has taken these in time. What it says of them does not count."""
        with contextlib.suppress(psycopg.Error), trio.move_on_after(limits.RETRY, shield=True):
            for segment in segments:
                await self._received(segment)
            return True
        return False

    async def roll_back(self) -> None:
        """End a transaction that may have begun."""
        self._later.clear()
        if not self.broken and self._pgconn.transaction_status != pq.TransactionStatus.IDLE:
            await self.run("ROLLBACK")

    def is_alive(self) -> bool:
        """Whether a connection that nobody uses is open still, as far as is known here. What the
        server says unasked is most often that it goes."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not self.broken and not poll.poll(0)

    @property
    def server_pid(self) -> int:
        """The server process, as the connection was told when it began."""
        return int(self._pgconn.backend_pid)

    async def script(self, statements: str) -> None:
        """Run statements without parameters, in one transaction of their own."""
        await self.value(statements)

    async def value(self, statements: str) -> str:
        """The first value that statements without parameters bring, unprepared; empty: no value."""
        with self._broken_if_cut():
            self._pgconn.send_query(statements.encode())
            results = await _drive(generators.execute(self._pgconn), self.socket)
            failed = self._failure(results)
        if failed is not None:
            self._raise(failed)
        last = results[-1]
        return (last.get_value(0, 0) or b"").decode() if last.ntuples else ""

    async def warnings_of(self, statement: str) -> list[str]:
        """Run a statement, and what the server warns of."""
        said: list[str] = []

        def note(notice: pq.abc.PGresult) -> None:
            if notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING":
                said.append(
                    (notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()
                )

        before, self._pgconn.notice_handler = self._pgconn.notice_handler, note
        try:
            await self.value(statement)
        finally:
            self._pgconn.notice_handler = before
        return said

    @contextlib.contextmanager
    def _broken_if_cut(self) -> Iterator[None]:
        """What does not end, by an error of the connection or a cancel, leaves it unusable."""
        self.broken = True
        yield
        self.broken = self._pgconn.status != pq.ConnStatus.OK

    async def notified(self) -> list[bytes]:
        """Wait for notifications; their channels."""
        while not self.notifications:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                self._pgconn.consume_input()
            except pg_errors.Error:
                self.broken = True
                raise
            while (notify := self._pgconn.notifies()) is not None:
                self.notifications.append(notify.relname)
        found, self.notifications[:] = list(self.notifications), []
        return found

    def close(self) -> None:
        self.broken = True
        self._pgconn.finish()

    # ---- one round trip

    @contextlib.contextmanager
    def _in_pipeline(self) -> Iterator[None]:
        self._pgconn.enter_pipeline_mode()
        yield
        if self._pgconn.status == pq.ConnStatus.OK:
            self._pgconn.exit_pipeline_mode()

    def _send(self, statement: str, parameters: Sequence[Parameter]) -> None:
        values = [packed(one) for one in parameters]
        name = self._prepared[statement]
        self._pgconn.send_query_prepared(name, values, [1] * len(values), 1)

    def _send_off(self, statements: Sequence[Statement]) -> list[str | None]:
        """All at once, each prepared at its first use. For each result that will come: the
        statement that it prepares, or None."""
        sent: list[str | None] = []
        for statement, parameters in statements:
            if statement not in self._prepared:
                name = self._prepared[statement] = next(self._names)
                types = [type_of(one) for one in parameters]
                self._pgconn.send_prepare(name, statement.encode(), types)
                sent.append(statement)
            self._send(statement, parameters)
            sent.append(None)
        self._pgconn.pipeline_sync()
        return sent

    async def _received(
        self, sent: Sequence[str | None]
    ) -> tuple[list[pq.abc.PGresult], psycopg.Error | None]:
        """The results of what was sent off at once, or why they are not all."""
        await _drive(generators.send(self._pgconn), self.socket)
        found: list[pq.abc.PGresult] = []
        failed: psycopg.Error | None = None
        to_come = iter(sent)
        while self._pgconn.status == pq.ConnStatus.OK:
            results = await _drive(generators.fetch_many(self._pgconn), self.socket)
            if results and results[0].status == pq.ExecStatus.PIPELINE_SYNC:
                break
            failed = failed or self._failure(results)
            prepares = next(to_come, None)  # behind them all comes what a commit by itself says
            if prepares is None:
                found += results[-1:]
            elif failed is not None:
                self._prepared.pop(prepares, None)
        return found, failed

    def _failure(self, results: Sequence[pq.abc.PGresult]) -> psycopg.Error | None:
        for result in results:
            if result.status not in _GOOD:
                return self._told(pg_errors.error_from_result(result))
        return None

    def _told(self, error: psycopg.Error) -> psycopg.Error:
        return told_apart(error, self._pgconn)

    def _raise(self, failed: psycopg.Error) -> NoReturn:
        if not isinstance(failed, ReadOnlySession) and failed.sqlstate in (READ_ONLY, *STALE):
            self.close()  # another one is of the primary, or as new as the tables
        raise failed


_GOOD = (
    pq.ExecStatus.TUPLES_OK,
    pq.ExecStatus.COMMAND_OK,
    pq.ExecStatus.EMPTY_QUERY,
    pq.ExecStatus.PIPELINE_ABORTED,  # what stands before it has failed
)


async def _drive(generator: Generator[Wait, Ready, Any], descriptor: int) -> Any:
    try:
        wait = next(generator)
        while True:
            wait = generator.send(await wait_until_ready(descriptor, wait))
    except StopIteration as stop:
        return stop.value


async def wait_until_ready(descriptor: int, wait: Wait) -> Ready:
    if wait == Wait.R:
        await trio.lowlevel.wait_readable(descriptor)
        return Ready.R
    if wait == Wait.W:
        await trio.lowlevel.wait_writable(descriptor)
        return Ready.W
    ready = []

    async def when(waits: Any, what: Ready, scope: trio.CancelScope) -> None:
        await waits(descriptor)
        ready.append(what)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(when, trio.lowlevel.wait_readable, Ready.R, nursery.cancel_scope)
        nursery.start_soon(when, trio.lowlevel.wait_writable, Ready.W, nursery.cancel_scope)
    return Ready.RW if len(ready) == 2 else ready[0]
