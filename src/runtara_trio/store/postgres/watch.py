"""Signals on PostgreSQL: a connection that listens for those that are announced, with a slow
poll behind it for those that are not."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence

import trio

from ... import logs
from ...backend import SignalBatch
from ...tasks import RepeatedEvent
from ...types import Signal
from ..values import signal_of
from . import limits
from .connection import Connection
from .hosts import Hosts
from .owner import Owner
from .packing import Row
from .pool import Pool

CHANNEL = "runtara_trio"
"""Where signals are announced, to those who listen."""

NEWS = "runtara_trio_runs"
"""The same of changes to runs."""


class Watch:
    """What waits for the instances that this owner has leased."""

    def __init__(
        self,
        pool: Pool,
        owner: Owner,
        hosts: Hosts,
        listens: trio.Event,
        versions: Iterator[int],
    ) -> None:
        """``listens``: set once this process wants to hear of anything."""
        self._pool = pool
        self._hears = not hosts.pooled
        """It has a session to listen with."""
        self._own = RepeatedEvent()
        self._own_news: set[str] = set()
        self._owner = owner
        self._listens = listens
        self._versions = versions
        self._hints: set[Row] = set()
        self._news, self._batches = trio.open_memory_channel[SignalBatch](math.inf)

    async def signals(self) -> AsyncIterator[SignalBatch]:
        while True:
            yield await self._batches.receive()

    def publish(self, batch: SignalBatch) -> None:
        self._news.send_nowait(batch)

    def announced(self, channels: Sequence[str]) -> None:
        """This process has told others of something, and cannot hear itself."""
        if not self._hears and channels:
            self._own_news.update(channels)
            self._own.set()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Poll when a signal is announced, and now and then. Runs until cancelled."""
        await self._listens.wait()
        away = logs.Outage(logs.poll_failed, "the poll for signals")
        wait = limits.RETRY
        while True:
            try:
                connection = await self._pool.open()
                try:
                    if self._hears:
                        await connection.run(f"LISTEN {CHANNEL}")
                        await connection.run(f"LISTEN {NEWS}")
                    self.publish(SignalBatch(news=True))
                    heard: set[str] = set()
                    due = trio.current_time()
                    while True:
                        is_due = trio.current_time() >= due
                        if is_due or CHANNEL in heard:
                            with trio.fail_after(limits.ANSWER):
                                await self._poll(connection)
                        if NEWS in heard or (is_due and not self._hears):
                            self.publish(SignalBatch(news=True))
                        if is_due:
                            every = limits.POLL if self._hears else limits.POLL_POOLED
                            due = trio.current_time() + every
                        away.over()
                        wait = limits.RETRY
                        heard = await self._hear(connection, due)
                finally:
                    connection.close()
            except Exception as exc:
                away.goes_on(str(exc))
                await trio.sleep(wait)
                wait = min(2 * wait, limits.RETRY_SERVER)

    async def _hear(self, connection: Connection, until: float) -> set[str]:
        """Wait for announcements, until the next poll is due."""
        with trio.move_on_at(until):
            if self._hears:
                return {channel.decode() for channel in await connection.notified()}
            while not self._own_news:
                await self._own.wait()
            heard, self._own_news = self._own_news, set()
            return heard
        return set()

    async def _poll(self, connection: Connection) -> None:
        if not self._owner.leased:
            return
        version = next(self._versions)
        rows = await connection.run(
            "SELECT s.instance_id, s.signal_type::text, s.payload, NULL, NULL"
            " FROM pending_signals s"
            " JOIN runtara_trio_leases l USING (instance_id)"
            " WHERE l.owner = $1 AND s.acknowledged_at IS NULL UNION ALL"
            " SELECT c.instance_id, NULL, NULL, c.checkpoint_id, c.id"
            " FROM pending_checkpoint_signals c"
            " JOIN runtara_trio_leases l USING (instance_id) WHERE l.owner = $1",
            self._owner.name,
        )
        signals: list[tuple[str, Signal]] = []
        for instance, kind, payload, *_ in rows:
            signal = signal_of(kind, payload)
            if signal is not None:
                signals.append((instance, signal))
        # With its row's id: of messages the same number comes again once the first was taken.
        hints = {(row[0], *row[3:]) for row in rows if not row[1]}
        fresh, self._hints = hints - self._hints, hints
        if signals or fresh:  # a signal again and again: a poll may overtake another
            hinted = tuple((instance, checkpoint_id) for instance, checkpoint_id, _ in fresh)
            self.publish(SignalBatch(signals=tuple(signals), hints=hinted, version=version))
