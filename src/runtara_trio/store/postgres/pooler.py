"""Whether a pooler stands between us and the server, and hands its sessions out by transaction.

Our sessions have settings, prepared statements, locks and a LISTEN. Where a pooler gives each
transaction another session, these reach other programs, and are missing where we need
them. So before any of it is said, it is found out, and refused.

A pooler answers a new connection itself, so the process that it names is not the server's. Then
two connections show how it hands sessions out: one that has a session of its own finds the
same process again after the other one has been at work; one that has not gets the other's, or
waits for it while it is in a transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import outcome
import psycopg
import trio

from ...errors import StoreError
from .connection import Connection

AT_ONCE = 1.0
"""Seconds for a statement that needs no work, if nobody uses the session that it waits for."""

Connect = Callable[[], Awaitable[Connection]]


async def check_sessions_are_kept(name: str, connection: Connection, connect: Connect) -> None:
    """Refuse a pooler that hands out its sessions by transaction, or by statement.

    Args:
      name: of the server, for errors.
      connection: a new one, on which nothing was said yet.
      connect: makes another one.

    Raises:
      StoreError: it is such a pooler.
    """
    if int(await connection.value(_PROCESS)) == connection.server_pid:
        return  # no pooler
    other = await connect()
    try:
        for first, second in ((connection, other), (other, connection)):
            kept = await _keeps(name, connection, other, first, second)
            if not kept:
                raise StoreError(
                    f"{name} is reached through a pooler in transaction mode, where a session does "
                    "not stay with who has it: write ?pooler=transaction in the URL; or connect to "
                    "the server itself, or to a pool in session mode (PgBouncer: pool_mode = "
                    "session)"
                )
    finally:
        other.close()


_PROCESS = "SELECT pg_backend_pid()"
_STATEMENT_MODE = "08P01"
"""The SQLSTATE with which PgBouncer refuses a BEGIN there."""


async def _keeps(
    name: str, connection: Connection, other: Connection, first: Connection, second: Connection
) -> bool:
    """Whether the connection has the same session before and after both were in a transaction,
    which they ended in this order."""
    try:
        mine = await connection.value(f"BEGIN; {_PROCESS}")
    except psycopg.Error as exc:
        if exc.sqlstate == _STATEMENT_MODE:
            return False
        raise
    began = trio.Event()
    theirs: list[outcome.Outcome[str]] = []

    async def begin() -> None:
        try:
            theirs.append(outcome.Value(await other.value(f"BEGIN; {_PROCESS}")))
        except psycopg.Error as exc:
            theirs.append(outcome.Error(exc))
        began.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin)
        with trio.move_on_after(AT_ONCE):
            await began.wait()
        waits = not theirs
        if waits:  # for a session: ours, where that is free after a transaction
            await connection.value("COMMIT")
            with trio.move_on_after(AT_ONCE):
                await began.wait()
        nursery.cancel_scope.cancel()
    if not began.is_set():
        raise StoreError(
            f"{name} is reached through a pooler that has too few sessions for this user and "
            "database; a backend takes up to 8: raise its pool_size"
        )
    process = theirs[0].unwrap()
    if waits:
        return False
    for one in (first, second):
        await one.value("COMMIT")
    return process != mine and await connection.value(_PROCESS) == mine
