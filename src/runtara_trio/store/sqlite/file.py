"""The file under a store: opening it, the switch to WAL, whether it is still there.

Opening is careful: a file is made, switched to WAL and given tables by the first register
alone. An operator's commands and questions open what is there and leave its journal mode
and tables as they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sqlite3
import time

from ...errors import StoreError
from ..location import Location
from . import failures, owners, schema
from .locked import WHILE_MS

LARGEST_LOG = 16 * 2**20
"""Bytes that the log keeps once a long reader has let it shrink."""

LONGEST_NAME = 255
"""Bytes of a file's name, on most file systems."""

OLDEST = (3, 26, 0)
"""The oldest SQLite that the tests are run with (``nox -s oldest_sqlite``): RHEL 8's."""

CORE_IS_ALIVE = 120
"""Seconds since a core's newest sign of life in which it is taken to be running."""


class StoreFile:
    """A connection to the file, or the memory, of a location."""

    def __init__(self, location: Location, *, create: bool) -> None:
        """Open it; ``create``: it may be missing, and may lack tables.

        Raises:
          StoreError: there is no file, its version is unknown, or this
            Python's SQLite is too old.
        """
        self.path = location.path
        self.name = location.name
        self.gone = False
        self.is_ready = False
        """It is in WAL mode and has all tables."""
        _check_sqlite(self.name)
        if self.path is not None:
            if os.path.exists(self.path):
                _check_has_its_folder(self.path)
            else:
                _check_may_make(self.path, create and location.create)
        self.db = sqlite3.connect(
            self.path or ":memory:",
            timeout=failures.BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,  # the thread that uses it is not the one that opens it
        )
        try:
            for pragma in _PRAGMAS:
                self.db.execute(f"PRAGMA {pragma}")
            has_tables = schema.check_version(self.db, self.name)
            if not create and not has_tables:
                raise StoreError(
                    f"{self.name} is a database, but not a runtara store; check the path, "
                    "or start a program on it first"
                )
            self._identity = None if self.path is None else _identity(self.path)
            schema.upgrade_runs(self.db)
            self._stand_ins = has_tables and not self._has_all()
            if self._stand_ins:
                schema.stand_in(self.db)
            self.db.execute(f"PRAGMA busy_timeout = {WHILE_MS}")
        except BaseException:
            self.db.close()
            raise

    def look_for_our_tables(self) -> None:
        """Where a core or 0.1 made the file: another process may have added ours since."""
        if self._stand_ins and self._has_all():
            self._drop_stand_ins()

    def _has_all(self) -> bool:
        return schema.has_ours(self.db) and schema.runs_version(self.db) > 0

    def make_ready(self, now: float) -> None:
        """What a register needs, outside of a transaction: no core at work, and WAL.

        Raises:
          StoreError: a runtara-core works on the file, or the switch is not granted.
        """
        schema.check_version(self.db, self.name)
        if self.path is not None:
            self._refuse_living_core(now)
            self._switch_to_wal()
        self._drop_stand_ins()

    @functools.cached_property
    def tracks_ends(self) -> bool:
        """Whether instances have columns that say why they ended. Asked once there are tables."""
        return schema.tracks_ends(self.db)

    def size(self) -> int:
        """Bytes that the file and its log take."""
        if self.path is None:
            (size,) = self.db.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
            return int(size)
        log = f"{self.path}-wal"
        return os.path.getsize(self.path) + (os.path.getsize(log) if os.path.exists(log) else 0)

    def vacuum(self) -> None:
        """Give the room that is free back to the disk. On a connection of its own: this one
        would hold all of the file in memory for it."""
        if self.path is None:
            self.db.execute("VACUUM")
            return
        with contextlib.closing(
            sqlite3.connect(self.path, timeout=failures.BUSY_TIMEOUT, isolation_level=None)
        ) as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def check(self) -> None:
        """Raises StoreError where the path does not lead to the open file any more."""
        if self.path is None:
            return
        try:
            found = _identity(self.path)
        except OSError:
            found = None
        self.gone = found != self._identity
        if self.gone:
            what = "deleted" if found is None else "replaced by another file"
            raise StoreError(
                f"{self.path} was {what} while it was open: nothing that is written reaches "
                "it; put the file back and start the program again"
            )

    def _drop_stand_ins(self) -> None:
        if self._stand_ins:
            schema.drop_stand_ins(self.db)
            self._stand_ins = False

    def _refuse_living_core(self, now: float) -> None:
        if "instances" not in schema.tables(self.db):
            return
        newest = "MAX(CAST(strftime('%s', created_at) AS INTEGER))"
        found = self.db.execute(
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
                f"a runtara-core works on {self.name} (instance {found[0]!r} ran there "
                f"less than {CORE_IS_ALIVE} s ago); stop that server first"
            )

    def _switch_to_wal(self) -> None:
        deadline = time.monotonic() + failures.BUSY_TIMEOUT
        while True:
            try:
                (mode,) = self.db.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as exc:
                # SQLite does not wait by itself where others hold the file open
                if failures.primary_code(exc) != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() >= deadline:
                    raise StoreError(
                        f"{self.name} is in use by a program that keeps it in another "
                        "journal mode; stop that server or program first",
                        transient=True,
                    ) from exc
                time.sleep(0.01)
            else:
                if mode == "wal":
                    return
                raise StoreError(
                    f"{self.name} cannot be switched to WAL (it stays in {mode}); "
                    "put it on a local disk"
                )


def _check_has_its_folder(path: str) -> None:
    """Raises StoreError where the file alone is mounted, as a container's volume: its log would
    lie outside, and go with the container."""
    if os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev or path in _mounts():
        raise StoreError(
            f"{path} is mounted by itself: its log {os.path.basename(path)}-wal would not lie on "
            "that volume, and be lost; mount the folder, not the file"
        )


def _mounts() -> set[str]:
    """Where something is mounted, on Linux."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            return {_unescaped(line.split(" ")[4]) for line in lines}
    except OSError:
        return set()


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _check_sqlite(name: str) -> None:
    if sqlite3.sqlite_version_info < OLDEST:
        raise StoreError(
            f"{name} needs SQLite {'.'.join(map(str, OLDEST))} or newer, and this Python has "
            f"{sqlite3.sqlite_version}; run the program on a Python with a newer SQLite"
        )


def _check_may_make(path: str, create: bool) -> None:
    if not create:
        raise StoreError(
            f"there is no store at {path}; start a program on it first, or check the path"
        )
    folder, name = os.path.split(path)
    longest = len(os.fsencode(owners.side_file(name, "0" * 16)))
    if longest > LONGEST_NAME:
        raise StoreError(
            f"cannot create {path}: its name is too long; at most "
            f"{LONGEST_NAME - longest + len(os.fsencode(name))} bytes, or the names of the files "
            "beside it have no room"
        )
    if not os.path.isdir(folder):
        raise StoreError(f"cannot create {path}: make the folder {folder} first")


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


_PRAGMAS = (
    "foreign_keys = ON",
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: fsync alone does not reach the platter
    "checkpoint_fullfsync = ON",
    "temp_store = MEMORY",
    f"journal_size_limit = {LARGEST_LOG}",
)
