"""The steps of instances on PostgreSQL: what is noted of them, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...messages import ListSteps, StepNote, Steps, Trace
from ..noted import row_of_note, steps_of
from .owner import Owner
from .schedules import PostgresSchedules

_TYPES = (
    "text",
    "text",
    "bigint",
    "text",
    "text",
    "text",
    "bigint",
    "bigint",
    "text",
    "text",
    "text",
    "text",
)


def insert_from(first: int, source: str) -> str:
    """The statement that writes steps of runs whose leases are in ``source``, a table or a query;
    its parameters, the columns, begin with this number. A note may be late: that a step runs says
    nothing once its end is noted."""
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_TYPES, first))
    return f"""
INSERT INTO runtara_trio_steps (instance_id, step, run, kind, worker, parent, started_ms, ended_ms,
    outcome, attempts, summary, asks)
SELECT t.instance_id, step, run, kind, worker, NULLIF(parent, ''), started_ms, NULLIF(ended_ms, 0),
    NULLIF(outcome, ''), NULLIF(attempts, ''), NULLIF(summary, ''),
    NULLIF(asks, '')
FROM unnest({arrays})
AS t (instance_id, step, run, kind, worker, parent, started_ms, ended_ms, outcome, attempts,
    summary, asks)
JOIN {source} i ON i.instance_id = t.instance_id AND i.epoch = t.run
ON CONFLICT (instance_id, step, run) DO UPDATE SET kind = excluded.kind,
    parent = excluded.parent, started_ms = excluded.started_ms, ended_ms = excluded.ended_ms,
    outcome = excluded.outcome, attempts = excluded.attempts, summary = excluded.summary,
    asks = excluded.asks
WHERE runtara_trio_steps.outcome IS NULL OR excluded.outcome IS NOT NULL
    OR excluded.started_ms > runtara_trio_steps.started_ms
"""


_WRITE = insert_from(1, "runtara_trio_leases")

_READ = """
WITH stored AS (
    SELECT CASE WHEN starts_with(checkpoint_id, 'runtara_trio::')
            THEN substr(checkpoint_id, strpos(substr(checkpoint_id, 15), '::') + 16)
            ELSE checkpoint_id END AS step,
        CASE WHEN starts_with(checkpoint_id, 'runtara_trio::signal::') THEN 'signal'
            WHEN starts_with(checkpoint_id, 'runtara_trio::received::') THEN 'message'
            WHEN starts_with(checkpoint_id, 'runtara_trio::') THEN ''
            ELSE 'checkpoint' END AS kind,
        (extract(epoch FROM created_at) * 1000)::bigint AS ms
    FROM checkpoints WHERE instance_id = $1 AND NOT is_retry_attempt
), all_steps AS (
    SELECT started_ms AS at_ms, step, run, kind, worker, parent, started_ms, ended_ms, outcome,
        attempts, summary, asks
    FROM runtara_trio_steps WHERE instance_id = $1
    UNION ALL
    SELECT ms, step, 0, kind, '', NULL, NULL, ms, 'done', NULL, NULL, NULL
    FROM stored WHERE kind <> '' AND NOT EXISTS (
        SELECT 1 FROM runtara_trio_steps s WHERE s.instance_id = $1 AND s.step = stored.step)
    UNION ALL
    SELECT (extract(epoch FROM r.created_at) * 1000)::bigint, i.instance_id, 0, 'child', '',
        NULL, (extract(epoch FROM r.created_at) * 1000)::bigint, r.ended_ms,
        CASE i.status WHEN 'completed' THEN 'done' WHEN 'failed' THEN 'failed'
            WHEN 'cancelled' THEN 'interrupted' END, NULL, r.workflow, NULL
    FROM runtara_trio_runs r JOIN instances i USING (instance_id) WHERE r.parent_id = $1
)
SELECT at_ms, step, run, kind, worker, parent, started_ms, ended_ms, outcome, attempts, summary,
    asks
FROM all_steps WHERE (at_ms, step, run) > ($2::bigint, $3::text, $4::bigint)
ORDER BY at_ms, step, run LIMIT $5::bigint
"""
"""Steps as they were noted; of what nobody has noted, the checkpoint; and children."""

_OPEN = (
    "SELECT started_ms, step, run, kind, worker, parent, started_ms, ended_ms, outcome, attempts,"
    " summary, asks FROM runtara_trio_steps"
    " WHERE instance_id = $1 AND (outcome IS NULL OR outcome = 'unloaded')"
    " ORDER BY started_ms, step LIMIT $2::bigint"
)
_LEASE = (
    "SELECT l.epoch FROM runtara_trio_leases l JOIN instances i USING (instance_id)"
    " WHERE l.instance_id = $1 AND l.owner <> '' AND i.status = 'running'"
)


def columns_of(steps: Iterable[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    """Steps as columns. Of each the last ones count: one statement writes a row once."""
    last = {row[:3]: row for row in steps}
    nothing: tuple[Any, ...] = ("", "", 0, "", "", "", 0, 0, "", "", "", "")
    return tuple(
        [empty if value is None else value for value in column]
        for column, empty in zip(zip(*last.values(), strict=True), nothing, strict=True)
    )


class PostgresHistory(PostgresSchedules):
    """The part of the port that is about the steps of instances."""

    _owner: Owner

    async def write_steps(self, instance_id: str, lease: int, steps: Sequence[StepNote]) -> None:
        if self._has_runs:
            who = self._owner.who
            rows = (row_of_note(instance_id, lease, one, who) for one in steps)
            self._later(_WRITE, *columns_of(rows))

    async def lose_steps(self, instance_ids: Sequence[str]) -> None:
        if self._has_runs:
            self._later(
                "UPDATE runtara_trio_steps SET outcome ="
                " CASE WHEN outcome IS NULL THEN 'lost' ELSE 'interrupted' END"
                " WHERE instance_id = ANY ($1::text[])"
                " AND (outcome IS NULL OR outcome = 'unloaded')",
                list(instance_ids),
            )

    async def write_traces(self, runs: Sequence[tuple[str, int, str]]) -> None:
        if self._has_runs:
            last = {instance: one for instance, *one in runs}
            self._later(
                "INSERT INTO runtara_trio_traces (instance_id, run)"
                " SELECT l.instance_id, t.context FROM unnest($1::text[], $2::bigint[], $3::text[])"
                " AS t (instance_id, epoch, context)"
                " JOIN runtara_trio_leases l USING (instance_id, epoch)"
                " ON CONFLICT (instance_id) DO UPDATE SET run = excluded.run",
                list(last),
                *(list(column) for column in zip(*last.values(), strict=True)),
            )

    async def traces(self, instance_ids: Sequence[str]) -> dict[str, Trace]:
        if not self._has_runs:
            return {}
        rows = await self._run(
            "SELECT instance_id, started, run FROM runtara_trio_traces"
            " WHERE instance_id = ANY ($1::text[])",
            list(instance_ids),
        )
        return {instance: Trace(started=started, run=run) for instance, started, run in rows}

    async def open_steps(self, instance_id: str, limit: int) -> Steps:
        if not self._has_runs:
            return Steps(steps=(), next=None)
        found, lease = await self._connection.run_all(
            (_OPEN, (instance_id, limit + 1)), (_LEASE, (instance_id,))
        )
        return steps_of(found, lease[0][0] if lease else None, limit)

    async def read_steps(self, message: ListSteps) -> Steps:
        if not self._has_runs:
            return Steps(steps=(), next=None)
        wanted = (message.instance_id, *message.after, message.limit + 1)
        found, lease = await self._connection.run_all(
            (_READ, wanted), (_LEASE, (message.instance_id,))
        )
        return steps_of(found, lease[0][0] if lease else None, message.limit)
