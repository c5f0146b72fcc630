"""This process as an owner of leases on PostgreSQL.

One thread with a connection of its own renews the owner's row, and holds a session-level advisory
lock where it has a session: it needs no free Trio loop. It listens to its connection, and where
that is lost it connects again at once and takes the lock again; who finds the lock free waits for
that (``liveness``).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

import psycopg
from psycopg import pq

from ... import logs
from . import settings
from .connection import keep_from_children, told_apart
from .hosts import Hosts
from .liveness import NEW_KEY, NO_KEY, TIDY
from .schema import NEXT_EPOCH

RECONNECT = 0.5
"""Seconds before the server is tried again, or the lock."""

RECONNECT_AT_MOST = 2.0
"""What the first grows to while there is no server."""

LAST_WORDS = 5.0
"""Seconds for the end of the thread."""


class Owner:
    """One owner: its row, its lock, and the thread behind them."""

    def __init__(self, hosts: Hosts, lease_ms: int, lost: Callable[[list[tuple[str, int]]], None]):
        self._hosts = hosts
        self._lease_ms = lease_ms
        self._lost = lost
        self._stop = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self.name: str | None = None
        self.who = f"process {os.getpid()} on {socket.gethostname()}"
        self.leased: dict[str, int] = {}
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

    def stop(self, patience: float) -> None:
        """Give up the lock and the row: what is still leased is free. Blocks, for no longer than
        there is patience: then the lease runs out by itself."""
        self._stop.set()
        with contextlib.suppress(OSError):  # the thread may have ended already
            self._wake.send(b"\0")
        if self._thread is not None:
            self._thread.join(min(LAST_WORDS, patience))
        else:
            self._close_wake()

    def _close_wake(self) -> None:
        self._wake.close()
        self._woken.close()

    def _run(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        away = logs.Outage(logs.renewal_failed, "the renewal of leases")
        try:
            while not self._stop.is_set():
                try:
                    self._listen(connection)
                    if not self._stop.is_set():
                        self._renew(connection)
                        away.over()
                except (psycopg.Error, OSError) as exc:
                    away.goes_on(error=str(exc))
                    with contextlib.suppress(psycopg.Error):
                        connection.close()
                    again = self._connect_again()
                    if again is None:
                        return
                    connection = again
            with contextlib.suppress(psycopg.Error):
                statement = "DELETE FROM runtara_trio_owners WHERE owner = %s"
                connection.execute(statement, (self.name,))
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.close()
            self._close_wake()

    def _listen(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Wait until it is time to renew, or to take the lock again.

        Raises:
          psycopg.OperationalError: the connection was lost.
        """
        pgconn = connection.pgconn
        with selectors.DefaultSelector() as selector:
            selector.register(pgconn.socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            settled = self._locked or self._hosts.pooled
            until = time.monotonic() + (self._lease_ms / 3000 if settled else RECONNECT)
            while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
                if any(key.fileobj == pgconn.socket for key, _ in selector.select(left)):
                    pgconn.consume_input()
                    if pgconn.status != pq.ConnStatus.OK:
                        raise psycopg.OperationalError("the server closed the connection")

    def _connect_again(self) -> psycopg.Connection[tuple[object, ...]] | None:
        wait = RECONNECT
        while not self._stop.wait(wait):
            with contextlib.suppress(psycopg.Error):
                return self._connect()
            wait = min(2 * wait, RECONNECT_AT_MOST)
        return None

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        connection = self._hosts.connect_blocking()
        keep_from_children(connection.pgconn)
        try:
            if self._hosts.pooled:
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            else:
                connection.execute(settings.OWNER.session)
            if self.name is None:
                key = NO_KEY if self._hosts.pooled else NEW_KEY
                row = connection.execute(f"SELECT {NEXT_EPOCH}, {key}").fetchone()
                assert row is not None
                self._key = int(str(row[1]))
                self.name = f"postgres-{row[0]}"
                connection.execute(TIDY)
            self._locked = False
            self._renew(connection)
        except psycopg.Error as exc:
            error = exc if self._hosts.pooled else told_apart(exc, connection.pgconn)
            connection.close()
            raise error from error.__cause__
        except BaseException:
            connection.close()
            raise
        return connection

    def _renew(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        if not self._hosts.pooled:
            self._renew_row(connection)
            return
        with connection.transaction():
            connection.execute(settings.OWNER.local)
            self._renew_row(connection)

    def _renew_row(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        if not self._locked and not self._hosts.pooled:
            # Not waited for: a session of ours that was cut may hold it for a while yet.
            locked = connection.execute(
                "SELECT pg_try_advisory_lock(%s::bigint)", (self._key,)
            ).fetchone()
            self._locked = locked == (True,)
        connection.execute(
            "INSERT INTO runtara_trio_owners (owner, holder, lock_key, renewed_at, lease_ms)"
            " VALUES (%s, %s, %s, clock_timestamp(), %s) ON CONFLICT (owner) DO UPDATE"
            " SET renewed_at = excluded.renewed_at, lease_ms = excluded.lease_ms",
            (self.name, self.who, self._key, self._lease_ms),
        )
        believed = dict(self.leased)
        rows = connection.execute(
            "SELECT instance_id, epoch FROM runtara_trio_leases WHERE owner = %s", (self.name,)
        ).fetchall()
        valid = {row[0]: row[1] for row in rows}
        lost = [(one, epoch) for one, epoch in believed.items() if valid.get(one) != epoch]
        # What was given up meanwhile is not lost.
        lost = [(one, epoch) for one, epoch in lost if self.leased.get(one) == epoch]
        if lost:
            self._lost(lost)
