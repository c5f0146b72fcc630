"""The SQLite store as a backend."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import trio

from ...backend import Patience, SignalBatch
from ...clock import Clock
from ...messages import ReplyT, Request, Transact
from ...tasks import GRACE, RepeatedEvent, open_service_nursery
from ..answers import at_once
from ..location import Location
from .database import Database, Job
from .failures import BUSY_TIMEOUT
from .thread import DatabaseThread, InlineWorker, Worker
from .transact import SqliteTransacting


class SqliteStore:
    """A backend on a file or in memory; open it with :func:`open_sqlite`."""

    keeps_history = True

    def __init__(
        self,
        location: Location,
        *,
        lease_ms: int,
        clock: Clock,
        patience: Patience | None = None,
        create: bool = False,
    ) -> None:
        self._clock = clock
        self._patience = patience or Patience(BUSY_TIMEOUT)
        self._path = location.path
        self.alone = location.path is None
        """No other process can use it."""
        self._news = RepeatedEvent()
        self._latest: SignalBatch | None = None
        self._database = Database(location, lease_ms, self._publish, create=create)
        self._worker: Worker
        if location.path is None:
            self._worker = InlineWorker(self._database.run, self._database.close)
        else:
            self._worker = DatabaseThread(
                f"runtara-trio {os.path.basename(location.path)}",
                self._database.run,
                self._database.tick,
                self._database.close,
            )

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        await trio.lowlevel.checkpoint_if_cancelled()
        if (done := at_once(message)) is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return cast(ReplyT, done)
        if isinstance(message, Transact) and self._path is not None:
            own = SqliteTransacting(
                message, self._path, self._clock.now(), self._database.leases.who
            )
            return cast(ReplyT, await own.carry_out())
        job = Job(message, self._clock.now())
        self._worker.submit(job)
        # Cancelled, the write goes on; nobody waits for it, or not for long.
        reply: ReplyT = await job.wait(grace=GRACE if message.saves else 0.0)
        return reply

    @trio.lowlevel.enable_ki_protection
    async def watch_over(self) -> None:
        """The worker's watchdog; runs until cancelled."""
        await self._worker.watchdog()

    async def close(self) -> None:
        """Answer what is queued, then free what is leased. A writer that has the file locked is
        waited for as long as there is patience."""
        self._database.give_up_after(self._patience.left())
        await self._worker.close()

    async def signals(self) -> AsyncIterator[SignalBatch]:
        while True:
            while (batch := self._latest) is None:
                await self._news.wait()
            self._latest = None
            yield batch

    def _publish(self, batch: SignalBatch) -> None:
        self._worker.post(self._received, batch)

    def _received(self, batch: SignalBatch) -> None:
        older = self._latest
        if older is not None:  # a batch is all that waits: the newest counts
            pending = older if batch.lost or not batch.version else batch
            batch = SignalBatch(
                signals=pending.signals,
                hints=pending.hints,
                version=pending.version,
                lost=older.lost + batch.lost,
                news=older.news or batch.news,
            )
        self._latest = batch
        self._news.set()


@asynccontextmanager
async def open_sqlite(
    location: Location,
    *,
    lease_ms: int,
    clock: Clock,
    patience: Patience | None = None,
    create: bool = False,
) -> AsyncIterator[SqliteStore]:
    """Open a store. The file is touched by the first request, made by the first register;
    with ``create`` by the first request."""
    store = SqliteStore(location, lease_ms=lease_ms, clock=clock, patience=patience, create=create)
    try:
        async with open_service_nursery() as nursery:
            nursery.start_soon(store.watch_over)
            yield store
    finally:
        await store.close()
