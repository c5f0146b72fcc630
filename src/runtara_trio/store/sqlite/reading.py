"""Reading on SQLite: pages of checkpoints, events and instances."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

import msgspec

from ...messages import CheckpointPage, EventPage, ListEvents, ReadCheckpoints
from ...types import CheckpointRecord, Event, InstanceInfo
from ..structs import Details, Listed
from ..values import as_bytes, event_type, listed_of, run_info_of, status_of
from .schema import parse_time

_LISTED = (
    "SELECT i.rowid, i.instance_id, i.tenant_id, i.status, i.checkpoint_id, i.created_at,"
    " i.started_at, i.finished_at, i.sleep_until, l.owner, s.signal_type,"
    " b.started_at = i.started_at, r.workflow, r.version, r.queue, r.key, r.priority, r.state,"
    " r.due_ms, r.waiting_for, r.recoveries, r.parent_id, r.waits_children,"
    " r.waits, r.wants, r.children, i.attempt,"
    " (SELECT json_group_object(a.name, json(a.value)) FROM runtara_trio_attributes a"
    " WHERE a.instance_id = i.instance_id) FROM instances i"
    " LEFT JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id"
    " LEFT JOIN runtara_trio_starts b ON b.instance_id = i.instance_id"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id AND s.acknowledged_at IS NULL"
)


def listed_in_order(db: sqlite3.Connection, instance_ids: list[str]) -> list[Listed]:
    """Instances that exist, in this order."""
    rows = db.execute(
        f"{_LISTED} JOIN json_each(?) j ON j.value = i.instance_id ORDER BY j.key",
        (msgspec.json.encode(instance_ids).decode(),),
    )
    return [_listed(row) for row in rows.fetchall()]


def listed(db: sqlite3.Connection, instance_id: str) -> Listed | None:
    row = db.execute(f"{_LISTED} WHERE i.instance_id = ?", (instance_id,)).fetchone()
    return None if row is None else _listed(row)


def _listed(row: tuple[Any, ...]) -> Listed:
    _, instance, tenant, status, checkpoint_id, *texts, owner, kind, same_start = row[:12]
    times, run = map(parse_time, texts), run_info_of(*row[12:])
    return listed_of(instance, tenant, status, checkpoint_id, times, owner, kind, same_start, run)


def details(db: sqlite3.Connection, instance_id: str, *, tracks_ends: bool) -> Details:
    why = "i.termination_reason, i.exit_code" if tracks_ends else "NULL, NULL"
    input, output, error, checkpoints, events, reason, code = db.execute(
        "SELECT input, output, error,"
        " (SELECT count(*) FROM checkpoints c WHERE c.instance_id = i.instance_id),"
        " (SELECT count(*) FROM instance_events e WHERE e.instance_id = i.instance_id),"
        f" {why} FROM instances i WHERE i.instance_id = ?",
        (instance_id,),
    ).fetchone()
    return Details(
        input=input,
        output=output,
        error=error,
        checkpoints=checkpoints,
        events=events,
        termination_reason=reason,
        exit_code=code,
    )


def unread(db: sqlite3.Connection, instance_id: str, limit: int) -> list[str]:
    found = db.execute(
        "SELECT checkpoint_id FROM pending_custom_signals WHERE instance_id = ?"
        " ORDER BY checkpoint_id LIMIT ?",
        (instance_id, limit),
    )
    return [checkpoint_id for (checkpoint_id,) in found.fetchall()]


def info(db: sqlite3.Connection, instance_id: str) -> InstanceInfo | None:
    found = db.execute(
        "SELECT status, checkpoint_id, started_at, finished_at, output, error"
        " FROM instances WHERE instance_id = ?",
        (instance_id,),
    ).fetchone()
    if found is None:
        return None
    status, checkpoint_id, started_at, finished_at, output, error = found
    return InstanceInfo(
        instance_id=instance_id,
        status=status_of(status),
        checkpoint_id=checkpoint_id,
        started_at=parse_time(started_at),
        finished_at=parse_time(finished_at),
        output=output,
        error=error,
    )


def events(db: sqlite3.Connection, message: ListEvents) -> EventPage:
    rows = db.execute(
        "SELECT id, event_type, subtype, checkpoint_id, payload, created_at FROM instance_events"
        " WHERE instance_id = ? AND id > ? ORDER BY id LIMIT ?",
        (message.instance_id, message.after, message.limit + 1),
    ).fetchall()
    return EventPage(
        events=tuple(
            Event(
                id=number,
                type=event_type(kind),
                subtype=subtype,
                checkpoint_id=checkpoint_id,
                payload=as_bytes(payload),
                created_at=parse_time(created_at),
            )
            for number, kind, subtype, checkpoint_id, payload, created_at in rows[: message.limit]
        ),
        more=len(rows) > message.limit,
    )


def checkpoints(db: sqlite3.Connection, message: ReadCheckpoints) -> CheckpointPage:
    # Ids alone are read from the index, and no page of a state is touched.
    wanted = "x'', NULL" if message.ids_only else "state, created_at"
    rows = db.execute(
        f"SELECT checkpoint_id, {wanted} FROM checkpoints WHERE instance_id = ?"
        " AND checkpoint_id >= ? AND checkpoint_id IS NOT ?"
        " AND substr(checkpoint_id, 1, ?) = ? ORDER BY checkpoint_id LIMIT ?",
        (
            message.instance_id,
            max(message.prefix, message.after or ""),  # where the index is entered
            message.after,
            len(message.prefix),
            message.prefix,
            message.limit + 1,
        ),
    )
    found: list[CheckpointRecord] = []
    size, more = 0, False
    most = math.inf if message.most_bytes is None else message.most_bytes
    for name, state, created_at in rows:
        if len(found) == message.limit or (found and size >= most):
            more = True
            break
        record = CheckpointRecord(
            checkpoint_id=name, state=as_bytes(state), created_at=parse_time(created_at)
        )
        found.append(record)
        size += len(record.state)
    rows.close()
    return CheckpointPage(checkpoints=tuple(found), more=more)
