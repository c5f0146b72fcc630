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
from typing import Any

import psycopg

from .. import logs
from .pg_connection import CONNECT_TIMEOUT, keep_from_children, parameters_of
from .pg_schema import NEXT_EPOCH

AGAIN = 0.5
"""Seconds before the server is tried again."""

LAST_WORDS = 5.0
"""Seconds for the end of the thread: without it the lease runs out by itself."""

_SETTINGS = (
    "SET statement_timeout = 5000",
    # A session whose client has gone gives its lock up.
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
)

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


class Owner:
    """One owner: its row, its lock, and the thread behind them."""

    def __init__(self, url: str, lease_ms: int, lost: Callable[[list[tuple[str, int]]], None]):
        self._url = url
        self._lease_ms = lease_ms
        self._lost = lost
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
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
        with self._starting:  # also where an earlier try was given up, and goes on
            if self._thread is not None:
                return
            connection = self._connect()
            self._thread = threading.Thread(
                target=self._run,
                args=(connection,),
                name="runtara-trio postgres owner",
                daemon=True,
            )
            self._thread.start()

    def stop(self) -> None:
        """Give up the lock and the row: what is still held is free. Blocks, but not for long."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(LAST_WORDS)

    def _run(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
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
        with contextlib.suppress(psycopg.Error):
            connection.close()

    def _connect_again(self) -> psycopg.Connection[tuple[object, ...]] | None:
        while not self._stop.wait(AGAIN):
            with contextlib.suppress(psycopg.Error):
                return self._connect()
        return None

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        parameters: dict[str, Any] = {
            "connect_timeout": int(CONNECT_TIMEOUT),
            **parameters_of(self._url),
        }
        connection = psycopg.connect("", autocommit=True, **parameters)
        keep_from_children(connection.pgconn)
        try:
            for setting in _SETTINGS:
                connection.execute(setting)
            if self.name is None:
                row = connection.execute(f"SELECT {NEXT_EPOCH}").fetchone()
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
