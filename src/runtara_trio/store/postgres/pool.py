"""Connections to one server: a few that calls take turns on, and those that a task keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ... import measures
from . import settings
from .connection import Connection
from .hosts import CONNECT_TIMEOUT, Hosts
from .pooler import check_sessions_are_kept
from .settings import Settings

CONNECTIONS = 4


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
        self._unreplaced = 0
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
                    if not self._closed:
                        self.losses += 1
                        self.note_loss()
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
            self.note_loss()
        return None

    def note_loss(self) -> None:
        """A connection was lost: the next one is in its place."""
        self._unreplaced += 1

    async def open(self, wanted: Settings | None = None) -> Connection:
        """A connection of the caller's own, to be closed by it. None: set as those that are
        lent."""
        wanted = wanted or settings.LENT
        try:
            connection = await self._hosts.connect(wanted.local)
        except Exception as exc:
            self.trouble = exc
            raise
        self.trouble = None
        try:
            if not self._hosts.pooled:
                with trio.fail_after(CONNECT_TIMEOUT):
                    await self._check_sessions(connection)
                    await connection.script(wanted.session)
        except BaseException:
            connection.close()
            raise
        if self._unreplaced:
            self._unreplaced -= 1
            measures.reconnects(peer="postgres")
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
