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
from .lent import LentConnection
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
        self._db: LentConnection | None = None
        self._ends = Ends()

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
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def interrupt(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.take_back()


class Ends:
    """Who may end a transaction: nobody but us."""

    def __init__(self) -> None:
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


def connected(path: str) -> LentConnection:
    """A connection whose commits are as safe as the store's."""
    db = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        factory=LentConnection,
    )
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
    ends = Ends()
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
