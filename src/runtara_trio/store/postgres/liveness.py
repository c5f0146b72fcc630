"""Which owners on PostgreSQL live.

An owner holds a session-level advisory lock, which the server drops with its connection, and
renews its row. One that has lost its connection takes its lock again within a second. So an
owner whose lock is free is dead for whoever has seen it free for three seconds, on
connections that were not lost meanwhile: a server that starts again has dropped all locks.
One that holds its lock and does not renew is stopped: dead, once its lease is over. So is one that
has no session for a lock, behind a pooler.

The key of the lock is made of the schema and of a number there, so that two schemas of one
database never share one. Owners of 0.1, whose name says so by nothing but their short key,
have it in a class that all schemas share.
"""

from __future__ import annotations

import trio

FREE_FOR = 3.0
"""Seconds for which a lock must be seen free."""

NEW_KEY = (
    "(hashtext('runtara_trio ' || 'runtara_trio_owners'::regclass::oid)::bigint << 32)"
    " | (currval('runtara_trio_epochs') & 2147483647) | (1::bigint << 31)"
)
"""A lock's key for a new owner, whose number was just drawn: never one of 0.1's, which are
less than 2^31 and not negative."""

NO_KEY = -1
"""Of an owner that has no lock."""

AGE = "extract(epoch FROM clock_timestamp() - renewed_at)::float8 * 1000"
_OF_0_1 = "hashtext('runtara_trio owner')::bigint"
LOCKED = (
    f"CASE WHEN o.lock_key = {NO_KEY} THEN {AGE} < lease_ms ELSE"
    " EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND objid::bigint = (o.lock_key & 4294967295) AND classid::bigint = 4294967295 &"
    f" CASE WHEN o.lock_key BETWEEN 0 AND 2147483647 THEN {_OF_0_1} ELSE o.lock_key >> 32 END) END"
)
"""Of an owner ``o``: ms since its renewal, and whether its lock is held."""

ALIVE = f"({AGE} < lease_ms AND ({LOCKED} OR {AGE} < lease_ms / 2))"
"""Whether an owner ``o`` lives, as far as one reading can tell."""

LIVING = f"SELECT owner FROM runtara_trio_owners o WHERE {ALIVE}"

TIDY = (
    f"DELETE FROM runtara_trio_owners o WHERE {AGE} >= lease_ms AND NOT {LOCKED}"
    " AND NOT EXISTS (SELECT 1 FROM runtara_trio_leases l WHERE l.owner = o.owner)"
)
"""Remove what processes that died have left."""


class Liveness:
    """What one store has seen of the locks of other owners."""

    def __init__(self) -> None:
        self._free: dict[str, tuple[float, int]] = {}

    def is_dead(self, owner: str, *, losses: int) -> bool:
        """Whether an owner whose lock was just seen free has been seen so for long enough.

        Args:
          owner: its name.
          losses: how many connections this store has lost so far.
        """
        now = trio.current_time()
        since, before = self._free.get(owner, (now, losses))
        if before != losses:
            since = now
        self._free[owner] = since, losses
        return now - since >= FREE_FOR

    def is_locked(self, owner: str) -> None:
        """Its lock was seen taken."""
        self._free.pop(owner, None)
