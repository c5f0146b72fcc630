"""Who has leased what: owners and leases in the database.

An owner is an open store, a lease belongs to one run of an instance. Its epoch comes from
one counter a database, so that no two leases ever share one; every write checks it in its
own transaction. Whether another owner lives is asked of ``owners``. A lease whose owner
has no row is dead; one that expired and that nobody took is still valid.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from datetime import UTC, datetime

from ..structs import Holder
from . import owners

DEAD = -1
"""The ``lease_ms`` of an owner whose lock was found free: every age exceeds it."""


class Leases:
    """This store as an owner, and what it knows of the others."""

    def __init__(self, path: str | None, lease_ms: int) -> None:
        self._path = path
        self._file: owners.OwnerFile | None = None
        self.lease_ms = lease_ms
        self.owner: str | None = None
        self.who = f"process {os.getpid()} on {socket.gethostname()}"
        self.leased: dict[str, int] = {}
        """Instance id to epoch, of what this store has taken and not released."""
        self._renewals: dict[str, tuple[int, int]] = {}
        """Of other owners: the last renewal that was seen, and when that was, by our clock."""

    def become_owner(self, db: sqlite3.Connection) -> None:
        """Add this store's row, its lock taken before. Once, inside a transaction."""
        if self.owner is not None:
            return
        if self._path is None:
            self.owner = "memory"
        else:
            self._file = owners.OwnerFile(self._path)
            self.owner = self._file.name
        self.renew(db)

    def forget_owner(self) -> None:
        """The transaction of :meth:`become_owner` did not commit."""
        self.give_up(keep_file=False)
        self._file = None
        self.owner = None

    def renew(self, db: sqlite3.Connection) -> None:
        """Say that this owner lives; also where somebody has removed its row."""
        db.execute(
            "INSERT INTO runtara_trio_owners (owner, holder, renewed_ms, lease_ms)"
            " VALUES (?, ?, ?, ?)"
            " ON CONFLICT (owner) DO UPDATE"
            " SET renewed_ms = excluded.renewed_ms, lease_ms = excluded.lease_ms",
            (self.owner, self.who, owners.monotonic_ms(), self.lease_ms),
        )

    def lost(self, db: sqlite3.Connection) -> tuple[tuple[str, int], ...]:
        """What this store believes to have and has not any more."""
        valid = dict(
            db.execute(
                "SELECT instance_id, epoch FROM runtara_trio_leases WHERE owner = ?",
                (self.owner,),
            ).fetchall()
        )
        return tuple(
            (instance, epoch)
            for instance, epoch in self.leased.items()
            if valid.get(instance) != epoch
        )

    def leave(self, db: sqlite3.Connection) -> None:
        """Remove this owner; what it has still leased is dead from here on."""
        db.execute("DELETE FROM runtara_trio_owners WHERE owner = ?", (self.owner,))

    def give_up(self, *, keep_file: bool) -> None:
        """Drop this owner's lock, and take its side file away unless that is still needed."""
        if self._file is not None:
            if keep_file:
                self._file.close()
            else:
                self._file.remove()

    def holder(self, db: sqlite3.Connection, owner: str, now: float) -> Holder:
        """Who an owner is, and whether it lives; ``now``: Unix seconds."""
        row = db.execute(
            "SELECT holder, renewed_ms, lease_ms FROM runtara_trio_owners WHERE owner = ?",
            (owner,),
        ).fetchone()
        return self.judge(owner, *(row or (None, None, None)), now=now)

    def living(self, db: sqlite3.Connection) -> set[str]:
        """The owners that live, each looked at once."""
        rows = db.execute("SELECT owner, holder, renewed_ms, lease_ms FROM runtara_trio_owners")
        return {row[0] for row in rows.fetchall() if self.judge(*row, now=0.0).alive}

    def take(self, db: sqlite3.Connection, instance_id: str) -> int:
        """Give the instance's lease to this owner under a new epoch."""
        epoch = self.next_epochs(db, 1)
        db.execute(
            "INSERT OR REPLACE INTO runtara_trio_leases (instance_id, owner, epoch)"
            " VALUES (?, ?, ?)",
            (instance_id, self.owner, epoch),
        )
        return epoch

    def next_epochs(self, db: sqlite3.Connection, count: int) -> int:
        """The first of so many new numbers of leases."""
        db.execute("UPDATE runtara_trio_schema SET epoch = epoch + ?", (count,))
        (last,) = db.execute("SELECT epoch FROM runtara_trio_schema").fetchone()
        return int(last) - count + 1

    def let_go(self, db: sqlite3.Connection, instance_id: str, epoch: int) -> bool:
        """Give a lease to nobody, an owner that no row tells of. Whether it was leased.

        The row stays: without it a running instance would be a runtara-core's.
        """
        return bool(
            db.execute(
                "UPDATE runtara_trio_leases SET owner = '' WHERE instance_id = ? AND epoch = ?",
                (instance_id, epoch),
            ).rowcount
        )

    def bury_the_dead(self, db: sqlite3.Connection) -> list[str]:
        """Mark all owners that are dead for certain, and name their side files.

        Their rows go when nothing is left of them: whoever takes their instances over is
        told whose they were.
        """
        if self._path is None:
            return []
        dead = owners.dead_files(self._path)
        for name in dead:
            _mark(db, name)
        db.execute(
            "DELETE FROM runtara_trio_owners WHERE lease_ms = ?"
            " AND owner NOT IN (SELECT owner FROM runtara_trio_leases)",
            (DEAD,),
        )
        return list(dead.values())

    def bury(self, db: sqlite3.Connection, owner: str) -> str | None:
        """Mark a dead owner, and name its side file for removal after the commit.

        One that only expired may come back: its row and its file stay.
        """
        if self._path is None:
            return None
        path = owners.side_file(self._path, owner)
        if owners.seen_at(path).lock is not owners.Lock.FREE:
            return None
        _mark(db, owner)
        return path

    def judge(
        self,
        owner: str,
        who: str | None,
        renewed_ms: int | None,
        lease_ms: int | None,
        *,
        now: float,
    ) -> Holder:
        """Who an owner is, by its row, and whether it lives; ``now``: Unix seconds."""
        if owner == self.owner:
            return Holder(owner, self.who, True, None)
        if who is None or renewed_ms is None or lease_ms is None or self._path is None:
            return Holder(owner, "an owner that ended", False, None)
        clock = owners.monotonic_ms()
        unchanged = clock - self._seen_since(owner, renewed_ms, clock)
        dead = owners.is_dead(
            owners.seen_at(owners.side_file(self._path, owner)),
            renewed_ms=renewed_ms,
            lease_ms=lease_ms,
            now_ms=clock,
            unchanged_ms=unchanged,
        )
        age = min(max(clock - renewed_ms, 0), lease_ms)
        until = datetime.fromtimestamp(now + (lease_ms - age) / 1000, UTC)
        return Holder(owner, who, not dead, until)

    def _seen_since(self, owner: str, renewed_ms: int, now_ms: int) -> int:
        """Since when, by our clock, this renewal of an owner has been its last."""
        renewal, since = self._renewals.get(owner, (None, 0))
        if renewal != renewed_ms:
            since = now_ms
            self._renewals[owner] = renewed_ms, since
        return since


def _mark(db: sqlite3.Connection, dead: str) -> None:
    db.execute("UPDATE runtara_trio_owners SET lease_ms = ? WHERE owner = ?", (DEAD, dead))


def remove_side_file(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
