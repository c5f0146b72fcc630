"""One connection to a PostgreSQL server, on Trio's own readiness waits.

libpq does the protocol, psycopg's generators say what to wait for; no thread and no asyncio
takes part in a call.
Parameters and results are binary; the few types that the store uses are packed here.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import weakref
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import trio
from psycopg import errors as pg_errors
from psycopg import generators, pq
from psycopg.waiting import Ready, Wait

BOOL, BYTEA, INT8, TEXT, BYTEAS, INT8S, TEXTS, TIMES = 16, 17, 20, 25, 1001, 1016, 1009, 1184
"""Object ids of the types."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INT8 = struct.Struct("!q")
_INTEGERS = {20: _INT8, 21: struct.Struct("!h"), 23: struct.Struct("!i")}
_LENGTH = struct.Struct("!i")

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


Parameter = None | str | bytes | int | list[str] | list[bytes] | list[int]
Row = tuple[Any, ...]


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
          psycopg.Error: as the server says.
        """
        with self._broken_if_cut():
            name = self._prepared.get(statement)
            if name is None:
                name = f"s{len(self._prepared)}".encode()
                types = [_type_of(one) for one in parameters]
                self._pgconn.send_prepare(name, statement.encode(), types)
                self._check(await self._results())
                self._prepared[statement] = name
            values = [_packed(one) for one in parameters]
            self._pgconn.send_query_prepared(name, values, [1] * len(values), 1)
            results = await self._results()
        self._check(results)
        return _rows(results[-1])

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
        with self._broken_if_cut():
            self._pgconn.send_query(statements.encode())
            results = await self._results()
        self._check(results)

    async def value(self, statements: str) -> str:
        """The first value that statements without parameters bring, unprepared; empty: no value."""
        with self._broken_if_cut():
            self._pgconn.send_query(statements.encode())
            results = await self._results()
        self._check(results)
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

    async def _results(self) -> list[pq.abc.PGresult]:
        results: list[pq.abc.PGresult] = await _drive(
            generators.execute(self._pgconn), self._pgconn.socket
        )
        return results

    def _check(self, results: list[pq.abc.PGresult]) -> None:
        for result in results:
            if result.status not in (
                pq.ExecStatus.TUPLES_OK,
                pq.ExecStatus.COMMAND_OK,
                pq.ExecStatus.EMPTY_QUERY,
            ):
                error = told_apart(pg_errors.error_from_result(result), self._pgconn)
                if isinstance(error, ReadOnlySession):
                    raise error
                if error.sqlstate in (READ_ONLY, *STALE):
                    self.close()  # another one is of the primary, or as new as the tables
                raise error


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


# ---- binary parameters and results


def _type_of(value: Parameter) -> int:
    if isinstance(value, list):
        if not value or isinstance(value[0], str):
            return TEXTS
        return BYTEAS if isinstance(value[0], bytes) else INT8S
    if isinstance(value, bytes):
        return BYTEA
    return INT8 if isinstance(value, int) and not isinstance(value, bool) else 0


def _packed(value: Parameter) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        return _packed_list(value)
    return _INT8.pack(value)


def _packed_list(values: list[Any]) -> bytes:
    element = {TEXTS: TEXT, BYTEAS: BYTEA, INT8S: INT8}[_type_of(values)]
    parts = [struct.pack("!iiiii", 1, 0, element, len(values), 1)]
    for value in values:
        data = _packed(value) or b""
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _rows(result: pq.abc.PGresult) -> list[Row]:
    columns = range(result.nfields)
    loads = [_LOADS.get(result.ftype(column), _text) for column in columns]
    get = result.get_value
    return [
        tuple(
            [
                None if (data := get(row, column)) is None else loads[column](data)
                for column in columns
            ]
        )
        for row in range(result.ntuples)
    ]


def _text(data: bytes) -> str:
    return data.decode()


def _time(data: bytes) -> datetime:
    with contextlib.suppress(OverflowError):
        return _EPOCH + timedelta(microseconds=_INT8.unpack(data)[0])
    return datetime.max.replace(tzinfo=UTC)


_LOADS: dict[int, Any] = {
    BOOL: lambda data: data == b"\1",
    BYTEA: bytes,
    TIMES: _time,
    **{kind: lambda data, form=form: form.unpack(data)[0] for kind, form in _INTEGERS.items()},
}
