"""``sdk.transact`` on PostgreSQL: a connection of psycopg's, of its own.

While the function runs nothing of ours is locked. Then the instance is locked, its lease looked at,
the result saved, and all of it committed.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import threading
import time
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from ...messages import CheckpointReply, Transact
from ..answers import rules
from ..noted import row_of_transaction
from ..transacting import Transacting, ended_by_function
from . import history, limits
from .failures import is_lost, translated
from .hosts import Hosts

CANCEL = 5.0
"""Seconds for a server to hear that a statement is to end."""

_TOKEN = "runtara_trio.transact"
"""A setting of the transaction: with another one it is gone."""

_BEGIN = (
    f"SELECT set_config('{_TOKEN}', %s, true), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
    " ELSE current_setting('synchronous_commit') END, true)"
)

_LOCK = "SELECT 1 FROM instances WHERE instance_id = $1 FOR NO KEY UPDATE"
_DECIDES = (
    "SELECT i.status::text, l.epoch, c.state FROM instances i"
    " LEFT JOIN runtara_trio_leases l USING (instance_id)"
    " LEFT JOIN checkpoints c ON c.instance_id = i.instance_id AND c.checkpoint_id = $2"
    " WHERE i.instance_id = $1"
)
_SAVE = (
    "WITH newest AS (UPDATE instances SET checkpoint_id = $2 WHERE instance_id = $1)"
    " INSERT INTO checkpoints (instance_id, checkpoint_id, state) VALUES ($1, $2, $3)"
)

_NOTE = history.insert_from(1, "runtara_trio_leases")

_CONFLICTS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
"""After which the whole transaction is tried again."""


class PostgresTransacting(Transacting):
    """A transaction of its own."""

    def __init__(self, message: Transact, hosts: Hosts, name: str, who: str | None) -> None:
        """``who``: the name of this owner; None: the tables have no room for steps."""
        super().__init__(message)
        self._who = who
        self._began_at = time.monotonic()
        self._hosts = hosts
        self._name = name
        self._connection: psycopg.Connection[Any] | None = None
        self._closing = threading.Lock()
        """Held while it is closed, and interrupted: the number of its socket is another's then."""
        self._unsure = False
        """The answer to a commit was lost."""

    def run(self) -> CheckpointReply:
        tries = 0
        until: float | None = None
        while True:
            try:
                self.check()
                return self._once()
            except _CONFLICTS:
                tries += 1
                time.sleep(random.uniform(0, min(0.01 * 2**tries, 1.0)))
            except _Lost as exc:
                until = time.monotonic() + limits.AWAY if until is None else until
                if time.monotonic() >= until:
                    raise translated(exc.reason, self._name) from exc.reason
                time.sleep(limits.RETRY)

    def _once(self) -> CheckpointReply:
        try:
            connection = self._connection = self._hosts.connect_blocking()
            connection.autocommit = False
        except psycopg.Error as exc:
            raise (_Lost(exc) if is_lost(exc) else translated(exc, self._name)) from exc
        try:
            return self._in_transaction(connection)
        except psycopg.Error as exc:
            if isinstance(exc, _CONFLICTS) or not connection.broken:
                raise
            raise _Lost(exc) from exc
        finally:
            with self._closing:
                self._connection = None
                connection.close()

    def _in_transaction(self, connection: psycopg.Connection[Any]) -> CheckpointReply:
        message = self.message
        if self._unsure and (stored := self._decide(connection)) is not None:
            return CheckpointReply(found=False, state=b"")  # that commit was made
        token = secrets.token_hex(8)
        connection.execute(_BEGIN, (token,))
        self.begins()
        state = message.run(connection)
        self._check_is_open(connection, token)
        stored = self._decide(connection)
        if stored is not None:
            connection.rollback()
            return CheckpointReply(found=True, state=stored)
        cursor = psycopg.RawCursor(connection)
        cursor.execute(_SAVE, (message.instance_id, message.checkpoint_id, state))
        if self._who is not None:
            row = row_of_transaction(message, self._began_at, self._who)
            if row is not None:
                cursor.execute(_NOTE, history.columns_of([row]))
        self.commits()
        try:
            connection.commit()
        except psycopg.Error:
            self._unsure = connection.broken
            self.goes_on()
            raise
        return CheckpointReply(found=False, state=b"")

    def _decide(self, connection: psycopg.Connection[Any]) -> bytes | None:
        """Lock the instance, which must be ours. What stands under the id; None: nothing."""
        message = self.message
        instance = message.instance_id
        cursor = psycopg.RawCursor(connection)
        cursor.execute(_LOCK, (instance,))
        cursor.execute(_DECIDES, (instance, message.checkpoint_id))
        status, epoch, stored = cursor.fetchone() or ("unknown", None, None)
        rules.check_lease(instance, message.lease, epoch)
        rules.check_running(message.verb, instance, status)
        return None if stored is None else bytes(stored)

    def _check_is_open(self, connection: psycopg.Connection[Any], token: str) -> None:
        """Raises SdkError where the function has ended the transaction that it was given."""
        if connection.info.transaction_status is TransactionStatus.INTRANS:
            (found,) = connection.execute(
                f"SELECT current_setting('{_TOKEN}', true)"
            ).fetchone() or ("",)
            if found == token:
                return
        elif connection.info.transaction_status is TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction(
                "a statement of the function has failed, and it went on"
            )
        raise ended_by_function(self.message.checkpoint_id)

    def interrupt(self) -> None:
        with self._closing:
            if self._connection is None:
                return
            with contextlib.suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=CANCEL)
            # A function that hangs elsewhere would keep its locks: the server, or its pooler, ends
            # the transaction of a client that has gone. No commit follows in any case.
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(self._connection.fileno())) as connected,
            ):
                connected.shutdown(socket.SHUT_RDWR)


class _Lost(Exception):
    """The connection was lost."""

    def __init__(self, reason: psycopg.Error) -> None:
        super().__init__(str(reason))
        self.reason = reason
