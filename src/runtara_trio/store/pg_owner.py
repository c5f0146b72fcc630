"""This process as an owner of leases on PostgreSQL.

One thread with a connection of its own holds a session-level advisory lock and renews the
owner's row: it needs no free Trio loop. Where the connection is lost, the thread connects
again and takes the lock again; until then the renewal is young, and nobody takes over.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

import psycopg

from .. import logs
from .pg_connection import keep_from_children

AGAIN = 0.5
"""Seconds before the server is tried again."""

LOCK_CLASS = "hashtext('runtara_trio owner')"

AGE = "extract(epoch FROM clock_timestamp() - renewed_at)::float8 * 1000"
LOCKED = (
    "EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND classid::bigint = ({LOCK_CLASS}::bigint & 4294967295) AND objid::bigint = o.lock_key)"
)
"""Of an owner ``o``: ms since its renewal, and whether its lock is held."""

_TIDY = (
    f"DELETE FROM runtara_trio_owners o WHERE {AGE} >= lease_ms AND NOT {LOCKED}"
    " AND NOT EXISTS (SELECT 1 FROM runtara_trio_leases l WHERE l.owner = o.owner)"
)
"""What processes that died have left."""

_PATIENCE = {"connect_timeout": "10", "tcp_user_timeout": "10000", "keepalives_idle": "5"}
"""A connection that was cut must be noticed, and made anew, before the lease runs out."""


class Owner:
    """One owner: its row, its lock, and the thread behind them."""

    def __init__(self, url: str, lease_ms: int, lost: Callable[[list[tuple[str, int]]], None]):
        self._url = url
        self._lease_ms = lease_ms
        self._lost = lost
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self.name: str | None = None
        self.who = f"process {os.getpid()} on {socket.gethostname()}"
        self.held: dict[str, int] = {}
        """Instance id to epoch, of what this owner has taken and not released."""
        self._key = 0
        self._locked = False

    def start(self) -> None:
        """Become an owner; blocks until the row is there. In a thread.

        Raises:
          psycopg.Error: the server refuses.
        """
        self._thread = threading.Thread(
            target=self._run, name="runtara-trio postgres owner", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            self._thread = None
            raise self._failure

    def stop(self) -> None:
        """Give up the lock and the row: what is still held is free. Blocks."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as exc:
            self._failure = exc
            self._ready.set()
            return
        self._ready.set()
        while not self._stop.wait(self._lease_ms / 3000):
            try:
                self._renew(connection)
            except psycopg.Error as exc:
                logs.look_failed(error=f"the renewal of leases failed: {exc}")
                with contextlib.suppress(psycopg.Error):
                    connection.close()
                again = self._connect_again()
                if again is None:
                    return
                connection = again
        with contextlib.suppress(psycopg.Error):
            connection.execute("DELETE FROM runtara_trio_owners WHERE owner = %s", (self.name,))
            connection.close()

    def _connect_again(self) -> psycopg.Connection[tuple[object, ...]] | None:
        while not self._stop.wait(AGAIN):
            with contextlib.suppress(psycopg.Error):
                return self._connect()
        return None

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(self._url, autocommit=True, **_PATIENCE)  # type: ignore[arg-type]
        keep_from_children(connection.pgconn)
        try:
            if self.name is None:
                row = connection.execute(
                    "UPDATE runtara_trio_schema SET epoch = epoch + 1 RETURNING epoch"
                ).fetchone()
                assert row is not None
                self._key = int(row[0]) % 2**31
                self.name = f"postgres-{row[0]}"
                connection.execute(_TIDY)
            self._locked = False
            self._renew(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _renew(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        if not self._locked:
            # Not waited for: a session of ours that was cut may hold it for a while yet.
            locked = connection.execute(
                f"SELECT pg_try_advisory_lock({LOCK_CLASS}, %s::int)", (self._key,)
            ).fetchone()
            self._locked = locked == (True,)
        connection.execute(
            "INSERT INTO runtara_trio_owners (owner, holder, lock_key, renewed_at, lease_ms)"
            " VALUES (%s, %s, %s, clock_timestamp(), %s) ON CONFLICT (owner) DO UPDATE"
            " SET renewed_at = excluded.renewed_at, lease_ms = excluded.lease_ms",
            (self.name, self.who, self._key, self._lease_ms),
        )
        believed = dict(self.held)
        rows = connection.execute(
            "SELECT instance_id, epoch FROM runtara_trio_leases WHERE owner = %s", (self.name,)
        ).fetchall()
        valid = {row[0]: row[1] for row in rows}
        lost = [(one, epoch) for one, epoch in believed.items() if valid.get(one) != epoch]
        # What was given up meanwhile is not lost.
        lost = [(one, epoch) for one, epoch in lost if self.held.get(one) == epoch]
        if lost:
            self._lost(lost)
