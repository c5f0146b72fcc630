"""How far the tables of a file are, and bringing them to this version."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

from ..location import Location
from ..structs import TableVersions
from . import failures, schema
from .file import StoreFile
from .locked import LockWaits
from .run_schema import RUNS_VERSION


def versions(location: Location) -> TableVersions:
    """What there is; nothing is changed.

    Raises:
      StoreError: no file of ours, or of a newer version.
    """
    found = TableVersions(newest=RUNS_VERSION)
    if location.path is None or not os.path.exists(location.path):
        return found
    try:
        with contextlib.closing(sqlite3.connect(location.path)) as db:
            if not schema.check_version(db, location.name):
                return found
            return TableVersions(
                core=True,
                ours=schema.has_ours(db),
                workflows=schema.runs_version(db),
                newest=RUNS_VERSION,
            )
    except sqlite3.Error as exc:
        raise failures.translated(exc, location.name) from exc


def migrate(location: Location) -> None:
    """Make what is missing, in one commit. Programs that have the file open go on.

    Raises:
      StoreError: as :func:`versions`; a runtara-core works on the file; it cannot be written.
    """
    try:
        file = StoreFile(location, create=True)
        with contextlib.closing(file.db):
            LockWaits().wait(lambda: _make(file, location.core))
    except (sqlite3.Error, OSError) as exc:
        raise failures.translated(exc, location.name) from exc


def _make(file: StoreFile, core: str) -> None:
    file.make_ready(time.time())
    with schema.transaction(file.db):
        schema.create(file.db, core)
