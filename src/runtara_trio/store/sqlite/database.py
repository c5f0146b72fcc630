"""The database behind a store, whichever thread it lives on: batches, and what is due.

All that is queued goes into one commit, and a reply is given only after it. A request
that fails alone would take the others with it, so a batch in which one failed for
SQLite's reasons is undone and run again one by one.
"""

from __future__ import annotations

import functools
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import outcome

from ... import logs
from ...backend import SignalBatch, dispatch
from ...errors import StoreError
from ...messages import Checkpoint, GetCheckpoint, Request, Transact, Vacuum
from ...tasks import Answer
from ...types import Signal
from ..answers import ANSWERS, set_off
from ..driving import drive
from ..location import Location
from ..values import signal_of
from . import leases as leasing
from . import schema
from .failures import is_busy, translated
from .file import StoreFile
from .leases import Leases
from .locked import LockWaits
from .saving import Saving
from .schema import transaction, undo
from .tables import SqliteTables
from .transact import in_memory

T = TypeVar("T")

WATCH_INTERVAL = 0.04
"""Seconds between two polls for other processes' signals."""

WATCH_CLOSELY = 0.005
"""The same for a second after news, where somebody listens for changes to runs."""

CLOSELY_FOR = 1.0

CHECK_FILE = 0.5
"""Seconds between two checks that the file is still there, while nothing is written."""

_UNKNOWN = -1


class Job(Answer):
    """One message on its way through a batch."""

    __slots__ = ("message", "now", "result")

    def __init__(self, message: Request[Any], now: float) -> None:
        super().__init__()
        self.message = message
        self.now = now
        self.result: outcome.Outcome[Any]


class Database:
    """The file, or the memory, behind a store. Used by one thread at a time."""

    def __init__(
        self,
        location: Location,
        lease_ms: int,
        publish: Callable[[SignalBatch], None],
        *,
        create: bool = False,
    ) -> None:
        self.location = location
        self._create = create
        self.listens = False
        """Whether somebody wants to hear of changes to runs."""
        self._closely_until = 0.0
        self.leases = Leases(location.path, lease_ms)
        self.file: StoreFile | None = None
        self._publish = publish
        self._lock_waits = LockWaits()
        self._versions = itertools.count(1)
        self._published: tuple[list[tuple[str, Signal]], list[tuple[str, str]]] = ([], [])
        self._data_version = 0
        self._next_watch = self._next_look = self._next_renewal = 0.0

    # ---- batches

    def run(self, jobs: Sequence[Job]) -> None:
        """Answer all of ``jobs``; afterwards each has its result."""
        ready: list[Job] = []
        refused: dict[type[Request[Any]], BaseException] = {}
        for job in jobs:
            kind = type(job.message)
            try:
                if kind in refused:  # nobody waits for the same lock twice
                    raise refused[kind]
                self._prepare(job)
            except (StoreError, sqlite3.Error, OSError) as exc:
                refused[kind] = exc
                job.result = outcome.Error(self._translated(exc))
            else:
                ready.append(job)
        batch = [job for job in ready if not isinstance(job.message, (Vacuum, Transact))]
        if batch:
            self._run_ready(batch)
        for job in ready:
            if isinstance(job.message, Vacuum):
                self._vacuum(job)
            elif isinstance(job.message, Transact):  # of a store in memory
                job.result = outcome.capture(
                    in_memory, self._opened().db, job.message, job.now, self.leases.who
                )

    def _vacuum(self, job: Job) -> None:
        """Alone, for it is no part of a transaction."""
        tx = SqliteTables(self._opened(), self.leases)
        try:
            job.result = outcome.Value(drive(dispatch(ANSWERS, tx, job.message)))
        except (sqlite3.Error, OSError) as exc:
            self._fail([job], exc)

    def _run_ready(self, jobs: Sequence[Job]) -> None:
        file = self._opened()
        try:
            tx = self._lock_waits.wait(lambda: self._commit(file, jobs))
        except (_Undo, sqlite3.Error, StoreError) as exc:
            # Where the file is locked, nobody got a turn: one by one would not help.
            if len(jobs) > 1 and not file.gone and not is_busy(exc):
                for job in jobs:
                    self._run_ready([job])
            else:
                self._fail(jobs, exc.reason if isinstance(exc, _Undo) else exc)
        else:
            self._after_commit(tx)

    def _commit(self, file: StoreFile, jobs: Sequence[Job]) -> SqliteTables:
        """Answer ``jobs`` in one transaction."""
        writes = any(job.message.writes for job in jobs)
        durable = any(job.message.writes and job.message.durable for job in jobs)
        tx = self._tables(file)
        saving = Saving(tx)
        try:
            if writes and not durable:
                file.db.execute("PRAGMA synchronous = NORMAL")
            if writes:
                file.db.execute("BEGIN IMMEDIATE")
            for job in jobs:
                tx.now, tx.version = job.now, next(self._versions)
                if type(job.message) is not Checkpoint:
                    saving.settle()
                job.result = _answered(tx, saving, job.message)
            saving.settle()
            if writes:
                file.db.execute("COMMIT")
            file.check()
        except BaseException:  # also a mistake of ours: the next batch must find no half of it
            undo(file.db)
            raise
        finally:
            if writes and not durable:
                file.db.execute("PRAGMA synchronous = FULL")
        return tx

    def _tables(self, file: StoreFile) -> SqliteTables:
        return SqliteTables(file, self.leases)

    def _fail(self, jobs: Sequence[Job], reason: BaseException) -> None:
        for job in jobs:
            job.result = outcome.Error(self._translated(reason))

    def _translated(self, exc: BaseException) -> BaseException:
        return translated(exc, self.location.name)

    def _after_commit(self, tx: SqliteTables) -> None:
        for instance, epoch in tx.leased:
            if epoch is None:
                self.leases.leased.pop(instance, None)
            else:
                self.leases.leased[instance] = epoch
        for path in tx.dead_files:
            leasing.remove_side_file(path)
        if tx.signals_taken:
            self._published = ([], [])
        if tx.signals_changed:
            try:
                self.publish_pending()
            except sqlite3.Error:  # what was committed stays; the next tick polls again
                self._data_version = _UNKNOWN
        if tx.runs_changed and self.listens:
            self._publish(SignalBatch(news=True))

    # ---- signals, renewal, the file under us: what has to be done between batches

    def tick(self) -> float | None:
        """Do what is due. Seconds until the next thing is; None: nothing ever."""
        if self.file is None or self.file.gone or self.location.path is None:
            return None
        if self.leases.owner is None and not self.listens:
            return None
        now = time.monotonic()
        if now >= self._next_watch:
            closely = self.listens and now < self._closely_until
            self._next_watch = now + (WATCH_CLOSELY if closely else WATCH_INTERVAL)
            if self.leases.leased or self.listens:
                self._attempt(functools.partial(self._watch, now), logs.poll_failed)
        if self.leases.owner is None:
            return max(0.0, self._next_watch - time.monotonic())
        if now >= self._next_renewal:
            self._next_renewal = now + self.leases.lease_ms / 3000
            self._attempt(self.renew, logs.renewal_failed)
        return max(0.0, min(self._next_watch, self._next_renewal) - time.monotonic())

    def _attempt(self, due: Callable[[], None], failed: Callable[..., None]) -> None:
        """Do what is due. Whoever asks next is told of a failure; a lock or a full disk may pass
        by itself, and the thread must live on: it renews the leases."""
        try:
            due()
        except Exception as exc:
            failed(error=str(self._translated(exc)))

    def _watch(self, now: float) -> None:
        if now >= self._next_look:
            self._next_look = now + CHECK_FILE
            self._opened().check()
        (version,) = self._opened().db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:  # another connection has committed
            if self.leases.leased:
                self.publish_pending()
            self._data_version = version
            if self.listens:
                self._closely_until = now + CLOSELY_FOR
                self._publish(SignalBatch(news=True))

    def renew(self) -> None:
        """Renew this store's leases, and tell of those that it has lost."""
        db = self._opened().db
        lost = self._in_transaction(db, self._renew_in)
        for instance, _ in lost:
            self.leases.leased.pop(instance, None)
        if lost:
            self._publish(SignalBatch(lost=lost))

    def _renew_in(self, db: sqlite3.Connection) -> tuple[tuple[str, int], ...]:
        self.leases.renew(db)
        return self.leases.lost(db)

    def publish_pending(self) -> None:
        """Tell of the signals that wait for this store's instances, where they are new."""
        version = next(self._versions)
        rows = (
            self._opened()
            .db.execute(
                "SELECT s.instance_id, s.signal_type, s.payload, NULL FROM pending_signals s"
                " JOIN runtara_trio_leases l ON l.instance_id = s.instance_id"
                " WHERE l.owner = ? AND s.acknowledged_at IS NULL UNION ALL"
                " SELECT c.instance_id, NULL, NULL, c.checkpoint_id FROM pending_custom_signals c"
                " JOIN runtara_trio_leases l ON l.instance_id = c.instance_id WHERE l.owner = ?",
                (self.leases.owner, self.leases.owner),
            )
            .fetchall()
        )
        signals: list[tuple[str, Signal]] = []
        hints: list[tuple[str, str]] = []
        for instance, kind, payload, checkpoint_id in rows:
            signal = signal_of(kind, payload)
            if signal is not None:
                signals.append((instance, signal))
            elif checkpoint_id is not None:
                hints.append((instance, checkpoint_id))
        news = signals, hints
        if news == self._published:
            return  # another's commit that does not concern us
        self._published = news
        if signals or hints:
            self._publish(SignalBatch(signals=tuple(signals), hints=tuple(hints), version=version))

    # ---- opening and closing

    def close(self) -> None:
        """Give up what is held: what this store still had is free at once."""
        file = self.file
        left = True
        if file is not None:
            if self.leases.owner is not None and not file.gone:
                try:
                    self._lock_waits.wait(functools.partial(self.leases.leave, file.db))
                except sqlite3.Error:
                    left = False
            file.db.close()
            self.file = None
        # Where the owner's row could not go, its side file stays, unlocked: it says that
        # this owner is dead.
        self.leases.give_up(keep_file=not left)

    def _prepare(self, job: Job) -> None:
        """Open, and for a register make, whatever ``job`` needs; a lease needs an owner."""
        message = job.message
        makes = message.makes or self.location.path is None
        if self.file is None:
            makes = makes or (self._create and not os.path.exists(self.location.name))
            self.file = StoreFile(self.location, create=makes)
        if self.file.gone:
            self.file.check()
        self._lock_waits.wait(self.file.look_for_our_tables)
        self.listens = self.listens or message.listens
        if self.leases.owner is None:
            if message.takes or self.location.path is None:
                self._become_owner(self.file, job.now)
            elif makes and not self.file.is_ready:
                self.file.make_ready(job.now)
                self._in_transaction(self.file.db, self._create_in)
                self.file.is_ready = True

    def _become_owner(self, file: StoreFile, now: float) -> None:
        file.make_ready(now)
        try:
            dead_files = self._in_transaction(file.db, self._become_owner_in)
        except BaseException:
            self.leases.forget_owner()
            raise
        for path in dead_files:
            leasing.remove_side_file(path)
        file.is_ready = True
        (self._data_version,) = file.db.execute("PRAGMA data_version").fetchone()
        self._next_renewal = time.monotonic() + self.leases.lease_ms / 3000

    def _create_in(self, db: sqlite3.Connection) -> None:
        schema.create(db, self.location.core)

    def _become_owner_in(self, db: sqlite3.Connection) -> list[str]:
        self._create_in(db)
        dead_files = self.leases.bury_the_dead(db)
        self.leases.become_owner(db)
        return dead_files

    def _in_transaction(self, db: sqlite3.Connection, run: Callable[[sqlite3.Connection], T]) -> T:
        def once() -> T:
            with transaction(db):
                return run(db)

        return self._lock_waits.wait(once)

    def give_up_after(self, seconds: float) -> None:
        """The store is to end: whoever has the file locked is waited for no longer."""
        self._lock_waits.give_up_after(seconds)

    def _opened(self) -> StoreFile:
        assert self.file is not None
        return self.file


def _answered(tx: SqliteTables, saving: Saving, message: Request[Any]) -> outcome.Outcome[Any]:
    before = tx.db.total_changes
    try:
        return outcome.Value(_answer(tx, saving, message))
    except sqlite3.Error:
        raise
    except Exception as exc:
        if tx.db.total_changes != before:
            raise _Undo(exc) from exc
        return outcome.Error(exc)


def _answer(tx: SqliteTables, saving: Saving, message: Request[Any]) -> Any:
    if isinstance(message, Checkpoint):
        return saving.checkpoint(message)
    if isinstance(message, GetCheckpoint):
        return saving.get(message)
    reply = drive(dispatch(ANSWERS, tx, message))
    drive(set_off(tx))
    return reply


class _Undo(Exception):
    """A request failed after it may have written: the batch is undone."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason
