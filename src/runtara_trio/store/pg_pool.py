"""Connections to one server: a few that calls take turns on, and those that a task keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .pg_connection import Connection
from .pg_hosts import CONNECT_TIMEOUT, Hosts
from .pg_pooler import check_sessions_are_kept

CONNECTIONS = 4

_SETTINGS = """
-- Planned anew for each of its parameters, a batch takes three times as long.
SET plan_cache_mode = force_generic_plan;
-- A process that is stopped inside a transaction must not lock others out for good.
SET idle_in_transaction_session_timeout = 5000;
-- What a database or a role says of these is for other programs.
SET default_transaction_isolation = 'read committed';
SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off';
SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout';
"""


class Pool:
    """Opens connections, and lends up to ``CONNECTIONS`` of them."""

    def __init__(self, hosts: Hosts, name: str) -> None:
        self._hosts = hosts
        self._name = name
        self._sessions_are_kept = False
        self._checking = trio.Lock()
        self._turns = trio.Semaphore(CONNECTIONS)
        self._idle: list[Connection] = []
        self.trouble: Exception | None = None
        """What keeps it from connecting, since it last could."""
        self.losses = 0
        """How many connections were lost."""
        self._closed = False

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Connection]:
        """A connection for the time of the block."""
        async with self._turns:
            connection = self._living() or await self.open()
            try:
                yield connection
            finally:
                if connection.broken or self._closed:
                    connection.close()
                    self.losses += not self._closed
                else:
                    self._idle.append(connection)

    def _living(self) -> Connection | None:
        """An idle connection; those that were cut meanwhile go."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_alive():
                return connection
            connection.close()
            self.losses += 1
        return None

    async def open(self, settings: str = "") -> Connection:
        """A connection of the caller's own, to be closed by it."""
        try:
            connection = await self._hosts.connect()
        except Exception as exc:
            self.trouble = exc
            raise
        self.trouble = None
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                await self._check_sessions(connection)
                await connection.script(_SETTINGS + settings)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _check_sessions(self, connection: Connection) -> None:
        async with self._checking:
            if not self._sessions_are_kept:
                await check_sessions_are_kept(self._name, connection, self._hosts.connect)
                self._sessions_are_kept = True

    def close(self) -> None:
        """Close what is idle, and what comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
