"""A start in a transaction of somebody else's, on a connection of ``psycopg``."""

from __future__ import annotations

from typing import Any

import psycopg

from ...errors import StoreError
from ...messages import Existing, NewRun
from ..driving import drive
from .claims import PostgresClaims


class _Runs(PostgresClaims):
    """The operations on runs, over a connection that waits."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._cursor = psycopg.RawCursor(connection)
        self._has_runs = True

    async def _run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, parameters)
        return self._cursor.fetchall() if self._cursor.description is not None else []

    def _later(self, statement: str, *parameters: Any) -> None:
        self._cursor.execute(statement, parameters)


def start(connection: psycopg.Connection[Any], tenant_id: str, run: NewRun) -> Existing | None:
    """Make a run; it exists if and only if the transaction commits. What had the id, or None.

    Raises:
      StoreError: the database has no tables of runs.
      psycopg.Error: as the server says.
    """
    try:
        (existing,) = drive(_Runs(connection).insert_runs(tenant_id, [run]))
    except psycopg.errors.UndefinedTable as exc:
        raise StoreError(
            "this database has no tables of workflows on the connection's search_path; open a "
            "client or a worker on it once"
        ) from exc
    return existing
