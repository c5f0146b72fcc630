"""What goes wrong with files, in our terms: each error names the file and the remedy."""

from __future__ import annotations

import sqlite3

from ...errors import StoreError

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another writer."""


def translated(exc: BaseException, name: str) -> BaseException:
    """An error of SQLite or the file system as a StoreError; others as they are.

    Args:
      exc: what was raised.
      name: what the store is called, its path.
    """
    if isinstance(exc, StoreError):  # each waiter raises an exception of its own
        return StoreError(str(exc), transient=exc.transient)
    if isinstance(exc, sqlite3.Error):
        text, transient = REMEDIES.get(primary_code(exc), (f"{exc}", False))
        error = StoreError(f"{name}: {text}", transient=transient)
    elif isinstance(exc, OSError):
        error = StoreError(f"{name}: {exc.strerror}; {exc.filename} must be writable")
    else:
        return exc
    error.__cause__ = exc
    return error


def is_busy(exc: BaseException) -> bool:
    """Whether another connection has the file locked."""
    return isinstance(exc, sqlite3.Error) and primary_code(exc) == sqlite3.SQLITE_BUSY


def primary_code(exc: sqlite3.Error) -> int:
    """SQLite's primary error code; its extended ones say more than we ask."""
    return getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


REMEDIES: dict[int, tuple[str, bool]] = {
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
