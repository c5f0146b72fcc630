"""The steps of instances on SQLite: what is noted of them, and how they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from ...messages import ListSteps, StepNote, Steps, Trace
from ..noted import row_of_note, steps_of
from .runs import as_json
from .schedules import SqliteSchedules

_WRITE = """
INSERT INTO runtara_trio_steps (instance_id, step, run, kind, worker, parent, started_ms,
    ended_ms, outcome, attempts, summary, asks) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (instance_id, step, run) DO UPDATE SET kind = excluded.kind,
    parent = excluded.parent, started_ms = excluded.started_ms, ended_ms = excluded.ended_ms,
    outcome = excluded.outcome, attempts = excluded.attempts, summary = excluded.summary,
    asks = excluded.asks
WHERE runtara_trio_steps.outcome IS NULL OR excluded.outcome IS NOT NULL
    OR excluded.started_ms > runtara_trio_steps.started_ms
"""
"""A note may be late: that a step runs says nothing once its end is noted."""

_READ = """
WITH stored AS (
    SELECT CASE WHEN checkpoint_id LIKE 'runtara\\_trio::%' ESCAPE '\\'
            THEN substr(checkpoint_id, instr(substr(checkpoint_id, 15), '::') + 16)
            ELSE checkpoint_id END AS step,
        CASE WHEN checkpoint_id LIKE 'runtara\\_trio::signal::%' ESCAPE '\\' THEN 'signal'
            WHEN checkpoint_id LIKE 'runtara\\_trio::received::%' ESCAPE '\\' THEN 'message'
            WHEN checkpoint_id LIKE 'runtara\\_trio::%' ESCAPE '\\' THEN ''
            ELSE 'checkpoint' END AS kind,
        CAST(strftime('%s', created_at) AS INTEGER) * 1000 AS ms
    FROM checkpoints
    WHERE instance_id = :instance AND checkpoint_id NOT GLOB '*::retry::[0-9]*'
), all_steps AS (
    SELECT started_ms AS at_ms, step, run, kind, worker, parent, started_ms, ended_ms, outcome,
        attempts, summary, asks
    FROM runtara_trio_steps WHERE instance_id = :instance
    UNION ALL
    SELECT ms + 999, step, 0, kind, '', NULL, NULL, ms, 'done', NULL, NULL, NULL
    FROM stored WHERE kind <> '' AND NOT EXISTS (
        SELECT 1 FROM runtara_trio_steps s WHERE s.instance_id = :instance AND s.step = stored.step)
    UNION ALL
    SELECT CAST(strftime('%s', i.created_at) AS INTEGER) * 1000, i.instance_id, 0, 'child', '',
        NULL, CAST(strftime('%s', i.created_at) AS INTEGER) * 1000, r.ended_ms,
        CASE i.status WHEN 'completed' THEN 'done' WHEN 'failed' THEN 'failed'
            WHEN 'cancelled' THEN 'interrupted' END, NULL, r.workflow, NULL
    FROM runtara_trio_runs r JOIN instances i ON i.instance_id = r.instance_id
    WHERE r.parent_id = :instance
)
SELECT * FROM all_steps WHERE (at_ms, step, run) > (:at_ms, :step, :run)
ORDER BY at_ms, step, run LIMIT :limit
"""
"""Steps as they were noted; of what nobody has noted, the checkpoint; and children. Of a checkpoint
the second is known: it stands behind the steps of that second."""

_OPEN = (
    "SELECT started_ms, step, run, kind, worker, parent, started_ms, ended_ms, outcome, attempts,"
    " summary, asks FROM runtara_trio_steps INDEXED BY runtara_trio_current_steps_of"
    " WHERE instance_id = ? AND (outcome IS NULL OR outcome = 'unloaded')"
    " ORDER BY started_ms, step"
)
_LEASE = (
    "SELECT l.epoch FROM runtara_trio_leases l JOIN instances i ON i.instance_id = l.instance_id"
    " WHERE l.instance_id = ? AND l.owner <> '' AND i.status = 'running'"
)


def write(db: sqlite3.Connection, steps: Iterable[tuple[Any, ...]]) -> None:
    """Write the columns of steps, of each its last ones."""
    db.executemany(_WRITE, steps)


class SqliteHistory(SqliteSchedules):
    """The part of the port that is about the steps of instances."""

    async def write_steps(self, instance_id: str, lease: int, steps: Sequence[StepNote]) -> None:
        held = self.db.execute(
            "SELECT 1 FROM runtara_trio_leases WHERE instance_id = ? AND epoch = ?",
            (instance_id, lease),
        )
        if held.fetchone() is None:
            return
        who = self.leases.who
        write(self.db, (row_of_note(instance_id, lease, one, who) for one in steps))

    async def lose_steps(self, instance_ids: Sequence[str]) -> None:
        self.db.executemany(
            "UPDATE runtara_trio_steps INDEXED BY runtara_trio_current_steps_of"
            " SET outcome = iif(outcome IS NULL, 'lost', 'interrupted')"
            " WHERE instance_id = ? AND (outcome IS NULL OR outcome = 'unloaded')",
            [(instance,) for instance in instance_ids],
        )

    async def write_traces(self, runs: Sequence[tuple[str, int, str]]) -> None:
        self.db.executemany(
            "INSERT INTO runtara_trio_traces (instance_id, run) SELECT instance_id, ?3"
            " FROM runtara_trio_leases WHERE instance_id = ?1 AND epoch = ?2"
            " ON CONFLICT (instance_id) DO UPDATE SET run = excluded.run",
            runs,
        )

    async def traces(self, instance_ids: Sequence[str]) -> dict[str, Trace]:
        rows = self.db.execute(
            "SELECT t.instance_id, t.started, t.run FROM json_each(?) j"
            " JOIN runtara_trio_traces t ON t.instance_id = j.value",
            (as_json(instance_ids),),
        )
        return {instance: Trace(started=started, run=run) for instance, started, run in rows}

    async def open_steps(self, instance_id: str, limit: int) -> Steps:
        found = self.db.execute(f"{_OPEN} LIMIT ?", (instance_id, limit + 1)).fetchall()
        return steps_of(found, self._lease_of(instance_id), limit)

    def _lease_of(self, instance_id: str) -> int | None:
        found = self.db.execute(_LEASE, (instance_id,)).fetchone()
        return None if found is None else int(found[0])

    async def read_steps(self, message: ListSteps) -> Steps:
        at_ms, step, run = message.after
        found = self.db.execute(
            _READ,
            {
                "instance": message.instance_id,
                "at_ms": at_ms,
                "step": step,
                "run": run,
                "limit": message.limit + 1,
            },
        ).fetchall()
        return steps_of(found, self._lease_of(message.instance_id), message.limit)
