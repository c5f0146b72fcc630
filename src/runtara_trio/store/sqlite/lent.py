"""A connection that is lent to a user's function, and can be taken back while the function runs.

SQLite asks an authorizer in Python with its mutex held, and Python's sqlite3 waits for that mutex
with the GIL held, to read a row or to drop a cursor: of two threads inside, each may wait for what
the other one has. So another one comes in only between two calls of the function, and what it
executes asks nobody.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any


class LentConnection(sqlite3.Connection):
    """An ordinary connection, which raises OperationalError once it was taken back."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._calls = threading.RLock()
        self._taken_back = False
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, factory: Any = None) -> Any:
        made = super().cursor(factory or _Cursor)
        self._cursors.add(made)
        return made

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)

    def close(self) -> None:
        """Undo what is not committed, and give the file back.

        By the thread of the function only: Python's sqlite3 crashes where another one is inside.
        """
        with self._calls:
            self._end_statements()
            super().close()

    def take_back(self) -> None:
        """End the call that the function is in, undo its transaction, and let it write no more.

        In another thread.

        Raises:
          sqlite3.Error: it is closed, or has no transaction.
        """
        self._taken_back = True
        if not self._calls.acquire(blocking=False):
            self.interrupt()
            self._calls.acquire()
        try:
            super().set_authorizer(None)
            self._end_statements()
            ours = sqlite3.Cursor(self)
            # Before the ROLLBACK: what comes behind that would be committed by itself.
            ours.execute("PRAGMA query_only = ON")
            ours.execute("ROLLBACK")
        finally:
            self._calls.release()

    def _end_statements(self) -> None:
        """One that is half read keeps a closed connection, and its locks, as long as an exception
        keeps the cursor, and an interrupt stands until its end."""
        for cursor in list(self._cursors):
            with contextlib.suppress(sqlite3.Error):
                sqlite3.Cursor.close(cursor)

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """One call into SQLite."""
        with self._calls:
            if self._taken_back:
                raise sqlite3.OperationalError("the transaction is over: it was undone")
            yield


class _Cursor(sqlite3.Cursor):
    """Its methods that call into SQLite do so one at a time."""


def _alone(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        connection = self if isinstance(self, LentConnection) else self.connection
        with connection._call():
            return method(self, *args, **options)

    return call


for _name in (
    *("commit", "rollback", "__exit__", "blobopen", "backup", "serialize", "deserialize"),
    *("create_function", "create_aggregate", "create_window_function", "create_collation"),
    *("set_authorizer", "set_progress_handler", "set_trace_callback"),
):
    setattr(LentConnection, _name, _alone(getattr(sqlite3.Connection, _name)))
for _name in (
    *("execute", "executemany", "executescript"),
    *("fetchone", "fetchmany", "fetchall", "__next__"),
):
    setattr(_Cursor, _name, _alone(getattr(sqlite3.Cursor, _name)))
