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
from collections.abc import Callable, Iterable, Iterator
from typing import Any

AGAIN = 0.05
"""Seconds before a call is interrupted again: one that was just about to begin has not heard."""


class LentConnection(sqlite3.Connection):
    """An ordinary connection, which raises OperationalError once it was taken back."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._calls = threading.RLock()
        self._taken_back = False
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, factory: Any = None) -> Any:
        if isinstance(factory, type) and not issubclass(factory, _Cursor):
            factory = type(factory.__name__, (factory, _Cursor), {})
        with self._calls:
            self.check()
            made = super().cursor(factory or _Cursor)
            self._cursors.add(made)
        return made

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)

    def backup(self, *args: Any, progress: Any = None, **options: Any) -> None:
        def checked(*numbers: int) -> None:
            self.check()
            if progress is not None:
                progress(*numbers)

        with self._calls:
            self.check()
            super().backup(*args, progress=checked, **options)

    def close(self) -> None:
        """Undo what is not committed, and give the file back.

        By the thread of the function only: Python's sqlite3 crashes where another one is inside.
        """
        with self._calls:
            self._end_statements()
            super().close()

    def take_back(self) -> None:
        """End the call that the function is in, undo its transaction, and let it write no more.

        In another thread. It waits for a call that is in Python, as a function of the user's is.
        """
        self._taken_back = True
        while not self._calls.acquire(timeout=AGAIN):
            self.interrupt()
        try:
            for ask in (
                lambda: super(LentConnection, self).set_authorizer(None),
                lambda: super(LentConnection, self).set_progress_handler(None, 0),
                lambda: super(LentConnection, self).set_trace_callback(None),
                self._end_statements,
                # Before the ROLLBACK: what comes behind that would be committed by itself.
                lambda: sqlite3.Cursor(self).execute("PRAGMA query_only = ON"),
                lambda: sqlite3.Cursor(self).execute("ROLLBACK"),
            ):
                with contextlib.suppress(sqlite3.Error):
                    ask()
        finally:
            self._calls.release()

    def check(self) -> None:
        """Raises OperationalError: it was taken back."""
        if self._taken_back:
            raise sqlite3.OperationalError("the transaction is over: it was undone")

    def _end_statements(self) -> None:
        """One that is half read keeps a closed connection, and its locks, as long as an exception
        keeps the cursor, and an interrupt stands until its end."""
        for cursor in list(self._cursors):
            with contextlib.suppress(sqlite3.Error):
                sqlite3.Cursor.close(cursor)


class _Cursor(sqlite3.Cursor):
    """Its methods that call into SQLite do so one at a time."""

    connection: LentConnection

    def executemany(self, sql: str, rows: Iterable[Any], /) -> Any:
        with self.connection._calls:
            return super().executemany(sql, self._checked(rows))

    def _checked(self, rows: Iterable[Any]) -> Iterator[Any]:
        for row in rows:
            self.connection.check()
            yield row


def _alone(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        connection = self if isinstance(self, LentConnection) else self.connection
        with connection._calls:
            connection.check()
            return method(self, *args, **options)

    return call


_OF_CONNECTION = (
    *("commit", "rollback", "__exit__", "blobopen", "serialize", "deserialize"),
    *("create_function", "create_aggregate", "create_window_function", "create_collation"),
    *("set_authorizer", "set_progress_handler", "set_trace_callback"),
)
_OF_CURSOR = ("execute", "executescript", "fetchone", "fetchmany", "fetchall", "__next__")

for _class, _base, _names in (
    (LentConnection, sqlite3.Connection, _OF_CONNECTION),
    (_Cursor, sqlite3.Cursor, _OF_CURSOR),
):
    for _name in _names:
        if hasattr(_base, _name):  # what there is depends on the SQLite that Python was built with
            setattr(_class, _name, _alone(getattr(_base, _name)))
