"""Upkeep on PostgreSQL: what says that programs live, and what clears up."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import StoreError
from ...types import FINISHED
from .connection import Connection
from .reading import PLAN_FOR_VALUES
from .schema import from_ms

_TABLES = (
    "instances",
    "checkpoints",
    "instance_events",
    "pending_signals",
    "pending_checkpoint_signals",
    "runtara_trio_leases",
    "runtara_trio_starts",
)
_SIZES = " + ".join(f"pg_total_relation_size('{name}')" for name in _TABLES)
_SIZE = f"SELECT {_SIZES}"


_NO_PARENT = (  # a replay of a parent that has not ended needs its children
    " AND NOT EXISTS (SELECT 1 FROM runtara_trio_runs r JOIN instances p"
    " ON p.instance_id = r.parent_id WHERE r.instance_id = instances.instance_id"
    " AND p.status NOT IN ({finished}))"
)


async def heartbeat(
    connection: Connection, owner: str | None, instance_ids: tuple[str, ...]
) -> None:
    """Where a runtara-environment works, one fresh event an instance, which it looks for."""
    await connection.run(
        "WITH beating AS (SELECT instance_id FROM instances"
        " WHERE to_regclass('container_registry') IS NOT NULL"
        " AND instance_id = ANY ($1::text[]) AND status = 'running'),"
        " old AS (SELECT e.instance_id, max(e.id) AS id FROM instance_events e"
        " JOIN beating USING (instance_id) WHERE e.event_type = 'heartbeat'"
        " AND e.subtype = 'runtara_trio' GROUP BY e.instance_id),"
        " fresh AS (UPDATE instance_events e SET created_at = now() FROM old"
        " WHERE e.id = old.id RETURNING e.instance_id),"
        " first AS (INSERT INTO instance_events (instance_id, event_type, subtype)"
        " SELECT instance_id, 'heartbeat', 'runtara_trio' FROM beating"
        " WHERE instance_id NOT IN (SELECT instance_id FROM old))"
        " UPDATE runtara_trio_owners SET heartbeat_at = now() WHERE owner = $2",
        list(instance_ids),
        owner,
    )


async def prune(
    connection: Connection,
    before_ms: int,
    limit: int,
    instance_ids: Sequence[str] | None,
    *,
    runs: bool,
) -> int:
    """``runs``: the tables of workflows are there."""
    finished = ", ".join(f"'{status.value}'" for status in sorted(FINISHED))
    ended = "COALESCE(finished_at, started_at, created_at)"  # a core's cancel leaves it empty
    connection.later(PLAN_FOR_VALUES)
    removed = await connection.run(
        # Locked where it is looked at: one that is revived meanwhile is not removed.
        "DELETE FROM instances WHERE instance_id = ANY (ARRAY(SELECT instance_id FROM instances"
        f" WHERE status IN ({finished}) AND {ended} < $1::text::timestamptz"
        + (_NO_PARENT.format(finished=finished) if runs else "")
        + ("" if instance_ids is None else " AND instance_id = ANY ($3::text[])")
        + f" ORDER BY {ended} LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING 1",
        from_ms(before_ms),
        limit,
        *(() if instance_ids is None else (list(instance_ids),)),
    )
    return len(removed)


async def size(connection: Connection) -> int:
    ((size,),) = await connection.run(_SIZE)
    return int(size)


async def vacuum(connection: Connection) -> None:
    skipped = await connection.warnings_of(f"VACUUM (ANALYZE) {', '.join(_TABLES)}")
    if skipped:
        raise StoreError(
            f"{skipped[0]}; the tables' owner may vacuum them, and whoever has MAINTAIN on them"
        )
