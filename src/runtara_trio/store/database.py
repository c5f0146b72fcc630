"""The connection of a SQLite store, whichever thread it lives on.

Opening is lazy and careful: a file is made, switched to WAL and given tables by the
first register alone. An operator's commands and questions open what is there and leave
its journal mode and tables as they are.

All that is queued goes into one commit, and a reply is given only after it. A request
that fails alone would take the others with it, so a batch in which one failed for
SQLite's reasons is undone and run again one by one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import outcome

from ..backend import SignalBatch, dispatch
from ..errors import SdkError, StoreError
from ..messages import Register, Request
from . import leases as leasing
from . import operating, schema, verbs
from .leases import Leases
from .location import Location
from .transaction import Transaction, signal_of

logger = logging.getLogger("runtara_trio.store")

HANDLERS = {**verbs.HANDLERS, **operating.HANDLERS}

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another writer."""

WATCH_INTERVAL = 0.04
"""Seconds between two looks for other processes' signals."""

_UNKNOWN = -1

CORE_IS_ALIVE = 120
"""Seconds since a core's newest sign of life in which it is taken to be running."""


class Job:
    """One message on its way through a batch."""

    __slots__ = ("message", "now", "result", "waiter")

    def __init__(self, message: Request[Any], now: float) -> None:
        self.message = message
        self.now = now
        self.result: outcome.Outcome[Any] = _UNANSWERED
        self.waiter: Any = None


_UNANSWERED: outcome.Outcome[Any] = outcome.Error(StoreError("the store was closed"))


class Database:
    """The file, or the memory, behind a store. Used by one thread at a time."""

    def __init__(
        self, location: Location, lease_ms: int, publish: Callable[[SignalBatch], None]
    ) -> None:
        self.location = location
        self.leases = Leases(location.path, lease_ms)
        self.connection: sqlite3.Connection | None = None
        self._publish = publish
        self._identity: tuple[int, int] | None = None
        self._gone: str | None = None
        self._stand_ins = False
        self._data_version = 0
        self._next_watch = self._next_look = self._next_renewal = 0.0

    # ---- batches

    def run(self, jobs: Sequence[Job]) -> None:
        """Answer all of ``jobs``; afterwards each has its result."""
        ready: list[Job] = []
        for job in jobs:
            try:
                self._prepare(job)
            except (SdkError, sqlite3.Error, OSError) as exc:
                job.result = outcome.Error(self._translated(exc))
            else:
                ready.append(job)
        if ready:
            self._run_ready(ready)

    def _run_ready(self, jobs: Sequence[Job]) -> None:
        db = self._connected()
        writes = any(job.message.writes for job in jobs)
        done: list[Transaction] = []
        try:
            if writes:
                db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:  # nobody got a turn: trying one by one would not help
            for job in jobs:
                job.result = outcome.Error(self._translated(exc))
            return
        try:
            for job in jobs:
                tx = Transaction(db, self.leases, job.now)
                job.result = self._answer(tx, job.message)
                done.append(tx)
            if writes:
                db.execute("COMMIT")
            self._check_file()
        except (_Undo, sqlite3.Error, StoreError) as exc:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if len(jobs) > 1 and self._gone is None:
                for job in jobs:
                    self._run_ready([job])
            else:
                reason = exc.reason if isinstance(exc, _Undo) else exc
                for job in jobs:
                    job.result = outcome.Error(self._translated(reason))
        else:
            self._after_commit(done)

    def _answer(self, tx: Transaction, message: Request[Any]) -> outcome.Outcome[Any]:
        before = tx.db.total_changes
        try:
            return outcome.Value(dispatch(HANDLERS, tx, message))
        except sqlite3.Error as exc:
            raise _Undo(exc) from exc
        except Exception as exc:
            if tx.db.total_changes != before:
                raise _Undo(exc) from exc
            return outcome.Error(exc)

    def _after_commit(self, done: Sequence[Transaction]) -> None:
        changed = False
        for tx in done:
            self.leases.held.update(tx.acquired)
            for instance in tx.released:
                self.leases.held.pop(instance, None)
            for path in tx.dead_files:
                leasing.remove_side_file(path)
            changed = changed or tx.signals_changed
        if changed:
            try:
                self._publish_pending()
            except sqlite3.Error:  # what was committed stays; the next tick looks again
                self._data_version = _UNKNOWN

    # ---- signals, renewal, the file under us: what has to be done between batches

    def tick(self) -> float | None:
        """Do what is due. Seconds until the next thing is; None: nothing ever."""
        if self.leases.owner is None or self.connection is None or self._gone is not None:
            return None
        now = time.monotonic()
        try:
            if now >= self._next_watch:
                self._next_watch = now + WATCH_INTERVAL
                if self.leases.held:
                    self._watch(now)
            if now >= self._next_renewal:
                self._next_renewal = now + self.leases.lease_ms / 3000
                self._renew()
        except (sqlite3.Error, StoreError) as exc:
            # whoever asks next is told; a lock or a full disk may pass by itself
            logger.warning("%s", self._translated(exc))
        return max(0.0, min(self._next_watch, self._next_renewal) - time.monotonic())

    def _watch(self, now: float) -> None:
        if now >= self._next_look:
            self._next_look = now + 0.5
            self._check_file()
        (version,) = self._connected().execute("PRAGMA data_version").fetchone()
        if version != self._data_version:  # another connection has committed
            self._publish_pending()
            self._data_version = version

    def _renew(self) -> None:
        db = self._connected()
        with _transaction(db):
            self.leases.renew(db)
            lost = self.leases.lost(db)
        for instance, _ in lost:
            self.leases.held.pop(instance, None)
        if lost:
            self._publish(SignalBatch(lost=lost))

    def _publish_pending(self) -> None:
        rows = (
            self._connected()
            .execute(
                "SELECT s.instance_id, s.signal_type, s.payload, NULL FROM pending_signals s"
                " JOIN runtara_trio_leases l ON l.instance_id = s.instance_id"
                " WHERE l.owner = ? AND s.acknowledged_at IS NULL UNION ALL"
                " SELECT c.instance_id, NULL, NULL, c.checkpoint_id FROM pending_custom_signals c"
                " JOIN runtara_trio_leases l ON l.instance_id = c.instance_id WHERE l.owner = ?",
                (self.leases.owner, self.leases.owner),
            )
            .fetchall()
        )
        signals = []
        hints = []
        for instance, kind, payload, checkpoint_id in rows:
            signal = signal_of(kind, payload)
            if signal is not None:
                signals.append((instance, signal))
            elif checkpoint_id is not None:
                hints.append((instance, checkpoint_id))
        if signals or hints:
            self._publish(SignalBatch(signals=tuple(signals), hints=tuple(hints)))

    # ---- opening and closing

    def close(self) -> None:
        """Give up what is held: what this store still had is free at once."""
        if self.connection is not None:
            try:
                if self.leases.owner is not None and self._gone is None:
                    self.leases.leave(self.connection)
            except sqlite3.Error:
                pass  # the lock on the side file goes with it; that is enough
            self.connection.close()
            self.connection = None
        self.leases.remove_file()

    def _prepare(self, job: Job) -> None:
        """Open, and for a register make, whatever ``job`` needs."""
        if self._gone is not None:
            raise StoreError(self._gone)
        registers = isinstance(job.message, Register)
        if self.connection is None:
            self._connect(create=registers or self.location.path is None)
        if self._stand_ins:
            self._look_again()
        if self.leases.owner is None and (registers or self.location.path is None):
            self._found(job.now)

    def _connected(self) -> sqlite3.Connection:
        assert self.connection is not None
        return self.connection

    def _connect(self, *, create: bool) -> None:
        path = self.location.path
        if path is not None and not os.path.exists(path):
            if not (create and self.location.create):
                raise StoreError(
                    f"there is no store at {path}; start a program on it first, or check the path"
                )
            folder = os.path.dirname(path)
            if not os.path.isdir(folder):
                raise StoreError(f"cannot create {path}: make the folder {folder} first")
        db = sqlite3.connect(
            path or ":memory:",
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,  # the thread that uses it is not the one that opens it
        )
        try:
            for pragma in _PRAGMAS:
                db.execute(f"PRAGMA {pragma}")
            has_tables = schema.check_version(db, self.location.name)
            if not create and not has_tables:
                raise StoreError(
                    f"{path} is a database, but not a runtara store; check the path, "
                    "or start a program on it first"
                )
            if path is not None:
                status = os.stat(path)
                self._identity = (status.st_dev, status.st_ino)
            if has_tables and "runtara_trio_schema" not in schema.tables(db):
                schema.stand_in(db)
                self._stand_ins = True
        except BaseException:
            db.close()
            raise
        self.connection = db

    def _look_again(self) -> None:
        """Our tables may have come since: another process has registered."""
        db = self._connected()
        if "runtara_trio_schema" in schema.tables(db):
            schema.drop_stand_ins(db)
            self._stand_ins = False

    def _found(self, now: float) -> None:
        """Become an owner: what only the first register does to a file."""
        db = self._connected()
        path = self.location.path
        schema.check_version(db, self.location.name)
        if path is not None:
            self._refuse_living_core(db, now)
            self._switch_to_wal(db)
        if self._stand_ins:
            schema.drop_stand_ins(db)
            self._stand_ins = False
        try:
            with _transaction(db):
                schema.create(db)
                buried = self.leases.bury_the_dead(db)
                self.leases.become_owner(db)
        except BaseException:
            self.leases.forget_owner()
            raise
        for file in buried:
            leasing.remove_side_file(file)
        (self._data_version,) = db.execute("PRAGMA data_version").fetchone()
        self._next_renewal = time.monotonic() + self.leases.lease_ms / 3000

    def _refuse_living_core(self, db: sqlite3.Connection, now: float) -> None:
        if "instances" not in schema.tables(db):
            return
        newest = "MAX(CAST(strftime('%s', created_at) AS INTEGER))"
        found = db.execute(
            "SELECT i.instance_id FROM instances i WHERE i.status = 'running'"
            " AND NOT EXISTS (SELECT 1 FROM runtara_trio_leases l JOIN runtara_trio_starts b"
            " ON b.instance_id = l.instance_id WHERE l.instance_id = i.instance_id"
            " AND b.started_at = i.started_at) AND MAX("
            "COALESCE(CAST(strftime('%s', i.started_at) AS INTEGER), 0),"
            f" COALESCE((SELECT {newest} FROM checkpoints c"
            " WHERE c.instance_id = i.instance_id), 0),"
            f" COALESCE((SELECT {newest} FROM instance_events e"
            " WHERE e.instance_id = i.instance_id), 0)) > ? LIMIT 1",
            (now - CORE_IS_ALIVE,),
        ).fetchone()
        if found is not None:
            raise StoreError(
                f"a runtara-core works on {self.location.name} (instance {found[0]!r} ran there "
                f"less than {CORE_IS_ALIVE} s ago); stop that server first"
            )

    def _switch_to_wal(self, db: sqlite3.Connection) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as exc:
                # SQLite does not wait by itself where others hold the file open
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() >= deadline:
                    raise StoreError(
                        f"{self.location.name} is in use by a program that keeps it in another "
                        "journal mode; stop that server or program first",
                        transient=True,
                    ) from exc
                time.sleep(0.01)
            else:
                if mode == "wal":
                    return
                raise StoreError(
                    f"{self.location.name} cannot be switched to WAL (it stays in {mode}); "
                    "put it on a local disk"
                )

    # ---- what goes wrong

    def _check_file(self) -> None:
        path = self.location.path
        if path is None or self._identity is None:
            return
        try:
            status = os.stat(path)
        except FileNotFoundError:
            what = "was deleted"
        else:
            if (status.st_dev, status.st_ino) == self._identity:
                return
            what = "was replaced by another file"
        self._gone = (
            f"{path} {what} while it was open: nothing that is written reaches it; "
            "put the file back and start the program again"
        )
        raise StoreError(self._gone)

    def _translated(self, exc: BaseException) -> BaseException:
        """An error of SQLite or the file system in our terms; others as they are."""
        if isinstance(exc, StoreError):  # each waiter raises an exception of its own
            return StoreError(str(exc), transient=exc.transient)
        name = self.location.name
        if isinstance(exc, sqlite3.Error):
            code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            text, transient = _REMEDIES.get(code, (f"{exc}", False))
            error = StoreError(f"{name}: {text}", transient=transient)
        elif isinstance(exc, OSError):
            error = StoreError(f"{name}: {exc.strerror}; {exc.filename} must be writable")
        else:
            return exc
        error.__cause__ = exc
        return error


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class _Undo(Exception):
    """A request failed after it may have written: the batch is undone."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


_PRAGMAS = (
    "foreign_keys = ON",
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: fsync alone does not reach the platter
    "checkpoint_fullfsync = ON",
    "temp_store = MEMORY",
)

_REMEDIES: dict[int, tuple[str, bool]] = {
    sqlite3.SQLITE_BUSY: (
        f"locked by another writer for {BUSY_TIMEOUT:g} s; end that program or transaction "
        "and try again",
        True,
    ),
    sqlite3.SQLITE_LOCKED: ("locked by another connection of this process", True),
    sqlite3.SQLITE_FULL: (
        "the disk is full; make room and try again, nothing that was saved is lost",
        True,
    ),
    sqlite3.SQLITE_READONLY: (
        "read-only; give this user the right to write the file and its folder",
        False,
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened; check that it is a file that this user may read and write, "
        "in a folder that this user may write",
        False,
    ),
    sqlite3.SQLITE_PERM: ("this user may not open it", False),
    sqlite3.SQLITE_NOTADB: ("not a SQLite database; check the path", False),
    sqlite3.SQLITE_CORRUPT: (
        "damaged; restore it from a backup, or rescue it with sqlite3's .recover",
        False,
    ),
    sqlite3.SQLITE_IOERR: ("the disk failed to read or write it; check the disk", True),
    sqlite3.SQLITE_TOOBIG: ("a value is larger than SQLite stores", False),
}
"""SQLite's primary error code: what it means for the file, and whether waiting may help."""
