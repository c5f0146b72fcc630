"""Reading on PostgreSQL: pages of checkpoints, events and instances."""

from __future__ import annotations

from typing import Any

from ...messages import CheckpointPage, EventPage, ListEvents, ReadCheckpoints
from ...types import CheckpointRecord, Event, InstanceInfo
from ..structs import Details, Listed
from ..values import event_type, listed_of, run_info_of, status_of
from .connection import Connection

PLAN_FOR_VALUES = "SET LOCAL plan_cache_mode = force_custom_plan"
"""Which plan is best depends on the values: how many are of a status, how many are wanted."""

_LISTED = (
    "SELECT i.instance_id, i.tenant_id, i.status::text, i.checkpoint_id, i.created_at,"
    " i.started_at, i.finished_at, i.sleep_until, l.owner, s.signal_type::text,"
    " b.started_at = i.started_at{columns} FROM instances i{runs}"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id"
    " LEFT JOIN runtara_trio_starts b ON b.instance_id = i.instance_id"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id AND s.acknowledged_at IS NULL"
)
_RUN = (
    ", r.workflow, r.version, r.queue, r.key, r.priority, r.state, r.due_ms, r.waiting_for,"
    " r.recoveries, r.parent_id, r.waits_children,"
    " r.waits, r.wants, r.children, i.attempt,"
    " (SELECT json_object_agg(a.name, a.value::json)::text FROM runtara_trio_attributes a"
    " WHERE a.instance_id = i.instance_id)"
)
_OF_RUN = " LEFT JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"


def _select(*, runs: bool) -> str:
    """``runs``: the tables of workflows are there."""
    return _LISTED.format(columns=_RUN if runs else "", runs=_OF_RUN if runs else "")


async def listed_in(
    connection: Connection, ids: str, values: list[Any], *, runs: bool
) -> list[Listed]:
    """The instances that a query of ids gives, the newest first."""
    rows = await connection.run(
        f"{_select(runs=runs)} WHERE i.instance_id IN ({ids})"
        " ORDER BY i.created_at DESC, i.instance_id DESC",
        *values,
    )
    return [_listed(row) for row in rows]


async def listed(connection: Connection, instance_id: str, *, runs: bool) -> Listed | None:
    found = await connection.run(f"{_select(runs=runs)} WHERE i.instance_id = $1", instance_id)
    return _listed(found[0]) if found else None


def _listed(row: tuple[Any, ...]) -> Listed:
    instance, tenant, status, checkpoint_id, *times, owner, kind, same_start = row[:11]
    run = run_info_of(*row[11:]) if len(row) > 11 else None
    return listed_of(instance, tenant, status, checkpoint_id, times, owner, kind, same_start, run)


async def details(connection: Connection, instance_id: str, *, tracks_ends: bool) -> Details:
    why = "termination_reason::text, exit_code" if tracks_ends else "NULL::text, NULL::int"
    ((input, output, error, checkpoints, events, reason, code),) = await connection.run(
        "SELECT input, output, error,"
        " (SELECT count(*) FROM checkpoints c WHERE c.instance_id = i.instance_id),"
        " (SELECT count(*) FROM instance_events e WHERE e.instance_id = i.instance_id),"
        f" {why} FROM instances i WHERE i.instance_id = $1",
        instance_id,
    )
    return Details(
        input=input,
        output=output,
        error=error,
        checkpoints=checkpoints,
        events=events,
        termination_reason=reason,
        exit_code=code,
    )


async def unread(connection: Connection, instance_id: str, limit: int) -> list[str]:
    found = await connection.run(
        "SELECT checkpoint_id FROM pending_checkpoint_signals WHERE instance_id = $1"
        ' ORDER BY checkpoint_id COLLATE "C" LIMIT $2',
        instance_id,
        limit,
    )
    return [checkpoint_id for (checkpoint_id,) in found]


async def info(connection: Connection, instance_id: str) -> InstanceInfo | None:
    found = await connection.run(
        "SELECT status::text, checkpoint_id, started_at, finished_at, output, error"
        " FROM instances WHERE instance_id = $1",
        instance_id,
    )
    if not found:
        return None
    ((status, checkpoint_id, started_at, finished_at, output, error),) = found
    return InstanceInfo(
        instance_id=instance_id,
        status=status_of(status),
        checkpoint_id=checkpoint_id,
        started_at=started_at,
        finished_at=finished_at,
        output=output,
        error=error,
    )


async def events(connection: Connection, message: ListEvents) -> EventPage:
    rows = await connection.run(
        "SELECT id, event_type::text, subtype, checkpoint_id, payload, created_at"
        " FROM instance_events WHERE instance_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        message.instance_id,
        message.after,
        message.limit + 1,
    )
    return EventPage(
        events=tuple(
            Event(
                id=number,
                type=event_type(kind),
                subtype=subtype,
                checkpoint_id=checkpoint_id,
                payload=payload or b"",
                created_at=created_at,
            )
            for number, kind, subtype, checkpoint_id, payload, created_at in rows[: message.limit]
        ),
        more=len(rows) > message.limit,
    )


async def checkpoints(connection: Connection, message: ReadCheckpoints) -> CheckpointPage:
    rows = await connection.run(
        _IDS if message.ids_only else _STATES,
        message.instance_id,
        message.prefix,
        message.after,
        message.limit + 1,
        *(() if message.ids_only else (message.most_bytes,)),
    )
    found = [row for row in rows[: message.limit] if row[1] is not None]
    return CheckpointPage(
        checkpoints=tuple(
            CheckpointRecord(checkpoint_id=name, state=state, created_at=created_at)
            for name, state, created_at in found
        ),
        more=len(rows) > len(found),
    )


_PAGE = """
    FROM checkpoints WHERE instance_id = $1 AND checkpoint_id COLLATE "C" >= $2
    AND ($3::text IS NULL OR checkpoint_id COLLATE "C" > $3)
    AND left(checkpoint_id, length($2)) = $2
    ORDER BY checkpoint_id COLLATE "C" LIMIT $4
"""
_IDS = f"SELECT checkpoint_id, ''::bytea, NULL::timestamptz {_PAGE}"
_STATES = f"""
WITH page AS (SELECT id, checkpoint_id, octet_length(state) AS size {_PAGE}), sized AS (
    SELECT *, sum(size) OVER (ORDER BY checkpoint_id COLLATE "C") - size AS before FROM page
)
SELECT s.checkpoint_id, c.state, c.created_at FROM sized s LEFT JOIN checkpoints c
ON c.id = s.id AND ($5::bigint IS NULL OR s.before < $5) ORDER BY s.checkpoint_id COLLATE "C"
"""
"""States of no more than so many bytes, and the first in any case; the rest without theirs."""
