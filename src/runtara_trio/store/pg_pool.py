"""Connections to one server: a few that calls take turns on, and those that a task keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from . import pg_connection
from .pg_connection import Connection

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

    def __init__(self, url: str) -> None:
        self._url = url
        self._turns = trio.Semaphore(CONNECTIONS)
        self._idle: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Connection]:
        """A connection for the time of the block."""
        async with self._turns:
            connection = self._idle.pop() if self._idle else await self.open()
            try:
                yield connection
            finally:
                if connection.broken or self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)

    async def open(self, settings: str = "") -> Connection:
        """A connection of the caller's own, to be closed by it."""
        connection = await pg_connection.connect(self._url)
        try:
            with trio.fail_after(pg_connection.CONNECT_TIMEOUT):
                await connection.script(_SETTINGS + settings)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close what is idle, and what comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
