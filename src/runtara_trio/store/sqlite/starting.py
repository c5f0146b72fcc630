"""A start in a transaction of somebody else's, on a connection of ``sqlite3``."""

from __future__ import annotations

import sqlite3

from ...errors import StoreError
from ...messages import Existing, NewRun
from ..driving import drive
from . import schema
from .claims import SqliteClaims
from .run_schema import RUNS_VERSION


def start(db: sqlite3.Connection, tenant_id: str, run: NewRun, now: float) -> Existing | None:
    """Make a run; it exists if and only if the transaction commits. What had the id, or None.

    Raises:
      StoreError: the database has no tables of runs.
      sqlite3.Error: as SQLite says.
    """
    if schema.runs_version(db) != RUNS_VERSION:
        raise StoreError(
            "this database has no tables of workflows of this version yet; open a client or a "
            "worker on it once"
        )
    tx = SqliteClaims()
    tx.db, tx.now = db, now
    (existing,) = drive(tx.insert_runs(tenant_id, [run]))
    return existing
