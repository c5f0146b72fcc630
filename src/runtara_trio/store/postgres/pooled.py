"""A connection through a pooler in transaction mode: ``?pooler=transaction``.

Each transaction may run in another session, so nothing is left in one: statements have no names,
and settings are those of a transaction. What comes outside of one becomes one.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import pq

from ...errors import ConfigError
from ...urls import without
from .connection import Connection, Statement
from .packing import Row, packed, type_of

_IDLE = pq.TransactionStatus.IDLE


class PooledConnection(Connection):
    """One that has no session of its own."""

    def __init__(self, pgconn: pq.abc.PGconn, local: str) -> None:
        """``local``: a statement that each transaction begins with."""
        super().__init__(pgconn)
        self._begins = [("BEGIN ISOLATION LEVEL READ COMMITTED", ()), (local, ())]

    async def run_all(self, *statements: Statement) -> list[list[Row]]:
        begun = self._later[:1] == self._begins[:1]
        if begun or self._pgconn.transaction_status != _IDLE:
            return await super().run_all(*statements)
        self._later[:0] = self._begins
        try:
            return (await super().run_all(*statements, ("COMMIT", ())))[:-1]
        except psycopg.Error:
            await self.roll_back()
            raise

    def _told(self, error: psycopg.Error) -> psycopg.Error:
        """What the server said of itself when this connection began may be of another one: a write
        that is refused is tried again, as where it is a standby."""
        return error

    def _send_off(self, statements: Sequence[Statement]) -> list[str | None]:
        for statement, parameters in statements:
            values = [packed(one) for one in parameters]
            types = [type_of(one) for one in parameters]
            self._pgconn.send_query_params(
                statement.encode(),
                values,
                types,
                [pq.Format.BINARY] * len(values),
                pq.Format.BINARY,
            )
        self._pgconn.pipeline_sync()
        return [None] * len(statements)


def without_pooler(url: str) -> tuple[str, bool]:
    """A URL as libpq takes it, and whether its pooler hands out sessions by transaction.

    Raises:
      ConfigError: an unknown ``pooler``.
    """
    rest, modes = without(url, "pooler")
    for mode in modes:
        if mode not in ("transaction", "session"):
            raise ConfigError(f"pooler must be transaction or session, not {mode!r}")
    return rest, modes[-1:] == ["transaction"]
