"""``sdk.transact`` on SQLite: a connection of its own beside the store's, or the store's own in
memory."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator

from ...messages import CheckpointReply, Transact
from ..answers import rules
from ..noted import row_of_transaction
from ..transacting import Transacting, ended_by_function
from . import history, rows
from .failures import BUSY_TIMEOUT, translated
from .schema import time_text

_DECIDES = (
    "SELECT i.status, l.epoch FROM instances i"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id WHERE i.instance_id = ?"
)


class SqliteTransacting(Transacting):
    """A transaction on a file. Nobody else can write while it runs."""

    limited = True

    def __init__(self, message: Transact, path: str, now: float, who: str) -> None:
        """``who``: the name of this owner."""
        super().__init__(message)
        self._path = path
        self._now = now
        self._who = who
        self._db: sqlite3.Connection | None = None
        self._closing = threading.Lock()
        """Python's sqlite3 crashes where one thread closes a connection while another one executes
        on it: only the function's thread closes, and not while another one interrupts."""
        self._ends = Ends(self._closing)

    def run(self) -> CheckpointReply:
        try:
            db = self._db = connected(self._path)
        except sqlite3.Error as exc:
            raise translated(exc, self._path) from exc
        try:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as exc:
                raise translated(exc, self._path) from exc
            self.begins()
            reply = in_transaction(db, self.message, self._ends, self._now, self._who)
            self.commits()
            with self._ends.allowed():
                db.execute("ROLLBACK" if reply.found else "COMMIT")
            return reply
        except BaseException:
            self.check()  # what it raises once it was given up says nothing
            raise
        finally:
            with self._closing, contextlib.suppress(sqlite3.Error):
                self._db = None
                db.close()

    def interrupt(self) -> None:
        with self._closing:
            if (db := self._db) is None:
                return
            with contextlib.suppress(sqlite3.Error), self._ends.allowed():
                db.interrupt()
                # Before the ROLLBACK: what comes behind that would be committed by itself.
                db.execute("PRAGMA query_only = ON")
                db.execute("ROLLBACK")


class Ends:
    """Who may end a transaction: nobody but us."""

    def __init__(self, calm: threading.Lock) -> None:
        """``calm``: held while another thread executes on the connection. To take the authorizer
        away then would wait for that thread with the GIL, which it needs to ask the authorizer."""
        self.calm = calm
        self._thread: int | None = None
        self.tried = False
        """Somebody else has tried."""

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """In this thread, and no other."""
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    def authorize(self, action: int, *_: object) -> int:
        if action == sqlite3.SQLITE_TRANSACTION and self._thread != threading.get_ident():
            self.tried = True
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK


def connected(path: str) -> sqlite3.Connection:
    """A connection whose commits are as safe as the store's."""
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    for pragma in ("foreign_keys = ON", "synchronous = FULL", "fullfsync = ON"):
        db.execute(f"PRAGMA {pragma}")
    return db


def in_transaction(
    db: sqlite3.Connection, message: Transact, ends: Ends, now: float, who: str
) -> CheckpointReply:
    """Call the function in a transaction that has begun, and save what it returns."""
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    began = time.monotonic()
    db.set_authorizer(ends.authorize)
    try:
        state = message.run(db)
    except sqlite3.Error as exc:
        if ends.tried:
            raise ended_by_function(checkpoint_id) from exc
        raise
    finally:
        with ends.calm:
            db.set_authorizer(None)
    status, epoch = db.execute(_DECIDES, (instance,)).fetchone() or ("unknown", None)
    rules.check_lease(instance, message.lease, epoch)
    rules.check_running(message.verb, instance, status)
    if not rows.save(db, instance, checkpoint_id, state, time_text(int(now))):
        stored = rows.stored(db, instance, checkpoint_id) or b""
        return CheckpointReply(found=True, state=stored)
    db.execute(
        "UPDATE instances SET checkpoint_id = ? WHERE instance_id = ?", (checkpoint_id, instance)
    )
    row = row_of_transaction(message, began, who)
    if row is not None:
        history.write(db, [row])
    return CheckpointReply(found=False, state=b"")


def in_memory(db: sqlite3.Connection, message: Transact, now: float, who: str) -> CheckpointReply:
    """The same on the store's own connection, which no other thread may use meanwhile."""
    ends = Ends(threading.Lock())
    factories = db.row_factory, db.text_factory
    db.execute("BEGIN IMMEDIATE")
    try:
        reply = in_transaction(db, message, ends, now, who)
        db.execute("ROLLBACK" if reply.found else "COMMIT")
        return reply
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    finally:  # what the function has set is not the store's
        db.row_factory, db.text_factory = factories
