"""One database in memory, which many stores use as if each were of a process of its own.

What they answer is the real store's: its rules, its SQL. What differs is how they hear of each
other. Time is Trio's; an owner is dead once its lease is over, or at once where the simulated
machine tells so; and what one store has committed, the others are told by the network.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import trio

from ...backend import SignalBatch
from ...store.location import Location
from ...store.sqlite.database import Database
from ...store.sqlite.file import StoreFile
from ...store.sqlite.leases import DEAD, Leases
from ...store.sqlite.tables import SqliteTables
from ...store.structs import Holder, Row
from ...tasks import RepeatedEvent
from ...types import FINISHED

ENDED = "(" + ", ".join(f"'{one.value}'" for one in sorted(FINISHED)) + ")"
"""The statuses of what has ended, for a query."""

LEASE = 30.0
"""Seconds of a lease."""


def trio_ms() -> int:
    """Trio's time, in milliseconds: every machine's steady clock."""
    return int(trio.current_time() * 1000)


class SimulatedClock:
    """The wall clock of all machines, which can be set to another time."""

    def __init__(self, start: float) -> None:
        self._offset = start - trio.current_time()
        self.has_jumped = False

    def now(self) -> float:
        return self._offset + trio.current_time()

    def jump(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._offset += seconds
        self.has_jumped = True


class SimulatedLeases(Leases):
    """Owners by name, whose death is seen at once or when the lease is over."""

    def __init__(self, owner: str, is_seen_dead: Callable[[str], bool]) -> None:
        super().__init__(None, int(LEASE * 1000))
        self._name = owner
        self._is_seen_dead = is_seen_dead
        self.who = f"the simulated process {owner}"

    def become_owner(self, db: sqlite3.Connection) -> None:
        if self.owner is None:
            self.owner = self._name
            self.renew(db)

    def renew(self, db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT OR REPLACE INTO runtara_trio_owners (owner, holder, renewed_ms, lease_ms)"
            " VALUES (?, ?, ?, ?)",
            (self.owner, self.who, trio_ms(), self.lease_ms),
        )

    def judge(
        self,
        owner: str,
        who: str | None,
        renewed_ms: int | None,
        lease_ms: int | None,
        *,
        now: float,
    ) -> Holder:
        if owner == self.owner:
            return Holder(owner, self.who, True, None)
        if who is None or renewed_ms is None or lease_ms is None:
            return Holder(owner, "an owner that ended", False, None)
        left_ms = renewed_ms + lease_ms - trio_ms()
        alive = left_ms >= 0 and not self._is_seen_dead(owner)
        return Holder(owner, who, alive, datetime.fromtimestamp(now + left_ms / 1000, UTC))

    def bury(self, db: sqlite3.Connection, owner: str) -> str | None:
        if self._is_seen_dead(owner):
            db.execute("UPDATE runtara_trio_owners SET lease_ms = ? WHERE owner = ?", (DEAD, owner))
        return None


class SimulatedTables(SqliteTables):
    """A transaction whose answer may be lost."""

    async def strays(self) -> list[tuple[str, int]]:
        found = self.db.execute(
            "SELECT l.instance_id, l.epoch FROM runtara_trio_leases l JOIN runtara_trio_runs r"
            " ON r.instance_id = l.instance_id WHERE l.owner = ? AND r.state = 'running'",
            (self.leases.owner,),
        ).fetchall()
        heard = self.leases.leased
        return [(instance, epoch) for instance, epoch in found if heard.get(instance) != epoch]

    def has_unheard(self, instance_id: str, row: Row) -> bool:
        mine = self.again and row.owner == self.leases.owner
        return mine and self.leases.leased.get(instance_id) != row.epoch


class SimulatedDatabase(Database):
    """The database as one process has it."""

    def __init__(
        self,
        file: StoreFile,
        leases: SimulatedLeases,
        publish: Callable[[SignalBatch], None],
        committed: Callable[[SqliteTables], None],
    ) -> None:
        super().__init__(Location(None), leases.lease_ms, publish)
        self.file = file
        self.leases = leases
        self._committed = committed
        self.again = False
        """What is sent now was carried out before, and the answer lost."""
        self.loses_answer = False
        """The answer to what is sent now will not arrive."""

    def _tables(self, file: StoreFile) -> SqliteTables:
        tx = SimulatedTables(file, self.leases)
        tx.again = self.again
        return tx

    def _after_commit(self, tx: SqliteTables) -> None:
        if self.loses_answer:
            tx.leased.clear()  # nobody has heard of them
        super()._after_commit(tx)
        self._committed(tx)


class Batches:
    """What a store reports: the newest batch of signals, and whether there is news."""

    def __init__(self) -> None:
        self._batches: list[SignalBatch] = []
        self._more = RepeatedEvent()

    def put(self, batch: SignalBatch) -> None:
        self._batches.append(batch)
        self._more.set()

    async def all(self) -> AsyncIterator[SignalBatch]:
        """As they come. Until cancelled."""
        while True:
            while not self._batches:
                await self._more.wait()
            yield self._batches.pop(0)


def open_memory() -> StoreFile:
    """A new database."""
    return StoreFile(Location(None), create=True)
