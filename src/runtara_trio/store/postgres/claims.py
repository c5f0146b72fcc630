"""Starting and claiming runs of workflows on PostgreSQL.

Each operation is one statement, however many runs it is about. A claim waits for no lock: what
somebody else has locked is skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from ...messages import Existing, NewRun
from ...types import RunState
from ..structs import Holder, Kind, Lane, Parent, Ready
from ..values import ready_of
from . import rows
from .connection import Connection
from .owner import Owner
from .schema import NEXT_EPOCH

PROMOTED = 1000
"""Runs that one claim makes ready at most, of those that are due."""

NOW_US = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
NOW_MS = "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"

_INSERT = f"""
WITH input AS MATERIALIZED (
    SELECT t.*, CASE WHEN at_ms > 0 THEN at_ms ELSE {NOW_MS} + delay_ms END AS due
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[],
        $8::bytea[], $9::bigint[], $10::bigint[])
    WITH ORDINALITY AS t (instance_id, workflow, version, queue, key, priority, input, delay_ms,
        at_ms, n)
), first AS (
    SELECT DISTINCT ON (instance_id) * FROM input ORDER BY instance_id, n
), made AS (
    INSERT INTO instances (instance_id, tenant_id, definition_version, status, input)
    SELECT instance_id, $1, version, 'pending', input FROM first ORDER BY instance_id
    ON CONFLICT DO NOTHING RETURNING instance_id
)
INSERT INTO runtara_trio_runs (instance_id, tenant_id, workflow, version, queue, key, priority,
    state, due_ms, ready_us, parent_id, block, depth)
SELECT first.instance_id, $1, workflow, version, queue, key, priority,
    CASE WHEN due > {NOW_MS} THEN 'timed' ELSE 'ready' END,
    CASE WHEN due > {NOW_MS} THEN due END,
    CASE WHEN due > {NOW_MS} THEN due * 1000 ELSE {NOW_US} + n END,
    NULLIF($11, ''), NULLIF($12, ''), $13::bigint
FROM first JOIN made ON made.instance_id = first.instance_id
RETURNING instance_id
"""

_PROMOTE = f"""
WITH due AS (
    SELECT instance_id FROM runtara_trio_runs WHERE state = 'timed' AND due_ms <= {NOW_MS}
    ORDER BY due_ms LIMIT {PROMOTED} FOR NO KEY UPDATE SKIP LOCKED
), promoted AS (
    UPDATE runtara_trio_runs r SET state = 'ready', due_ms = NULL FROM due
    WHERE r.instance_id = due.instance_id
)
SELECT (SELECT due_ms - {NOW_MS} FROM runtara_trio_runs
    WHERE state = 'timed' AND due_ms > {NOW_MS} ORDER BY due_ms LIMIT 1),
    NOT EXISTS (SELECT 1 FROM runtara_trio_queues)
"""

_SERVED = "served AS (SELECT * FROM unnest($4::text[], $5::bigint[]) AS s (workflow, version))"


def _sublanes(column: str) -> str:
    """The query for names below lanes: each is one step in the index, whatever lies between.
    First those behind the last one, then those up to it."""

    def next_name(lane: str, served: str, bounds: str) -> str:
        below = f" AND r.tenant_id = {lane}.tenant" if column == "key" else ""
        return (
            f"SELECT r.{column} AS name FROM runtara_trio_runs r WHERE r.state = 'ready'"
            f" AND r.queue = {lane}.queue AND r.workflow = {served}.workflow"
            f" AND r.version = {served}.version{below} AND {bounds} ORDER BY r.{column} LIMIT 1"
        )

    behind = next_name("lane", "served", f"r.{column} > lane.after")
    up_to = next_name("lane", "served", f"r.{column} <= lane.after")
    further = next_name(
        "step",
        "step",
        f"r.{column} > step.name AND (step.upto IS NULL OR r.{column} <= step.upto)",
    )
    return f"""
WITH RECURSIVE lane AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
    WITH ORDINALITY AS t (queue, tenant, after, n)
), {_SERVED}, step AS (
    SELECT first.* FROM lane CROSS JOIN served CROSS JOIN LATERAL (
        SELECT lane.n, lane.queue, lane.tenant, served.workflow, served.version,
            NULL::text COLLATE "C" AS upto, f.name, 1 AS number
        FROM ({behind}) f
        UNION ALL
        SELECT lane.n, lane.queue, lane.tenant, served.workflow, served.version,
            lane.after COLLATE "C", f.name, 1
        FROM ({up_to}) f
    ) first
    UNION ALL
    SELECT step.n, step.queue, step.tenant, step.workflow, step.version, step.upto, f.name,
        step.number + 1
    FROM step CROSS JOIN LATERAL ({further}) f
    WHERE step.number < $6::bigint
)
SELECT DISTINCT n, queue, tenant, name FROM step ORDER BY n, name
"""


_TENANTS = _sublanes("tenant_id")
_KEYS = _sublanes("key")

_READY_IN = f"""
WITH lane AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
    WITH ORDINALITY AS t (queue, tenant, key, n)
), {_SERVED}
SELECT lane.n, f.instance_id FROM lane CROSS JOIN LATERAL (
    SELECT r.* FROM served CROSS JOIN LATERAL (
        SELECT instance_id, priority, ready_us FROM runtara_trio_runs
        WHERE state = 'ready' AND queue = lane.queue AND workflow = served.workflow
        AND version = served.version AND tenant_id = lane.tenant AND key = lane.key
        ORDER BY priority DESC, ready_us LIMIT $6::bigint FOR NO KEY UPDATE SKIP LOCKED
    ) r ORDER BY r.priority DESC, r.ready_us LIMIT $6::bigint
) f ORDER BY lane.n, f.priority DESC, f.ready_us
"""

_LOCK_READY = (
    "SELECT i.instance_id FROM instances i JOIN runtara_trio_runs r USING (instance_id)"
    " WHERE i.instance_id = ANY ($1::text[]) AND r.state = $2"
    " FOR NO KEY UPDATE OF i, r SKIP LOCKED"
)
_READ_READY = (
    f"SELECT {rows.COLUMNS}{rows.RUN_COLUMNS}, r.workflow, r.version, i.input, i.attempt,"
    " r.recoveries, i.started_at IS NOT NULL, b.started_at IS NULL, r.queue, r.key,"
    f" {NOW_US} - r.ready_us{rows.OF_INSTANCE.format(runs=rows.OF_RUN)}"
)

_TAKE = f"""
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::text[]) WITH ORDINALITY AS t (instance_id, n)
), leased AS (
    INSERT INTO runtara_trio_leases (instance_id, owner, epoch)
    SELECT instance_id, $2, {NEXT_EPOCH} FROM input ORDER BY n
    ON CONFLICT (instance_id) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch
    RETURNING instance_id, epoch
), started AS (
    UPDATE instances i SET status = 'running', started_at = now(), sleep_until = NULL
    FROM input WHERE i.instance_id = input.instance_id RETURNING i.instance_id, i.started_at
), event AS (
    INSERT INTO instance_events (instance_id, event_type)
    SELECT instance_id, 'started' FROM input ORDER BY n
), noted AS (
    INSERT INTO runtara_trio_starts (instance_id, started_at) SELECT * FROM started
    ON CONFLICT (instance_id) DO UPDATE SET started_at = excluded.started_at
), placed AS (
    UPDATE runtara_trio_runs r SET state = 'running', due_ms = NULL, waiting_for = NULL,
        waits_children = NULL, waits = false, place = r.instance_id = ANY ($3::text[]),
        has_turn = r.key <> ''
    FROM input WHERE r.instance_id = input.instance_id
)
SELECT instance_id, epoch FROM leased
"""

_NEXT_KIND = (
    "SELECT r.queue, r.workflow, r.version FROM runtara_trio_runs r WHERE r.state = 'ready'{} "
    "ORDER BY r.queue, r.workflow, r.version LIMIT 1"
)
KINDS = f"""
WITH RECURSIVE kind AS (
    ({_NEXT_KIND.format("")})
    UNION ALL
    SELECT f.* FROM kind CROSS JOIN LATERAL ({
    _NEXT_KIND.format(
        " AND (r.queue, r.workflow, r.version) > (kind.queue, kind.workflow, kind.version)"
    )
}) f
)
"""
"""Each is one step in the index, however many are ready."""


class PostgresClaims:
    """Starts and claims; see :class:`runtara_trio.store.tables.Tables`."""

    leased: list[tuple[str, int | None]]
    runs_changed: bool
    """Whether runs are ready, due or ended now that were not."""
    _connection: Connection
    _owner: Owner
    _has_runs: bool
    _no_queues = False
    """It is known that no queue is stored."""

    async def _run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return await self._connection.run(statement, *parameters)

    def _later(self, statement: str, *parameters: Any) -> None:
        """One whose rows nobody needs: it goes out with the next."""
        self._connection.later(statement, *parameters)

    # ---- starting

    async def insert_runs(
        self, tenant_id: str, runs: Sequence[NewRun], parent: Parent | None = None
    ) -> list[Existing | None]:
        ids = [run.instance_id for run in runs]
        made = await self._run(
            _INSERT,
            tenant_id,
            ids,
            [run.workflow for run in runs],
            [run.version for run in runs],
            [run.queue for run in runs],
            [run.key for run in runs],
            [run.priority for run in runs],
            [run.input for run in runs],
            [run.delay_ms for run in runs],
            [run.at_ms or 0 for run in runs],
            "" if parent is None else parent.instance_id,
            "" if parent is None else parent.block,
            0 if parent is None else parent.depth,
        )
        new = {instance for (instance,) in made}
        if new:
            self.runs_changed = True
            await self._insert_attributes([run for run in runs if run.instance_id in new])
            self._insert_traces([run for run in runs if run.instance_id in new])
        if new and parent is not None:
            self._later(
                "UPDATE runtara_trio_runs SET children = children + $2::bigint"
                " WHERE instance_id = $1",
                parent.instance_id,
                len(new),
            )
        old: dict[str, Existing] = {}
        if len(new) < len(runs):
            found = await self._run(
                "SELECT i.instance_id, i.tenant_id, r.workflow, i.input, r.parent_id"
                " FROM instances i"
                " LEFT JOIN runtara_trio_runs r USING (instance_id)"
                " WHERE i.instance_id = ANY ($1::text[])",
                ids,
            )
            old = {
                instance: Existing(
                    tenant_id=tenant, workflow=workflow, input=given or b"", parent_id=parent_id
                )
                for instance, tenant, workflow, given, parent_id in found
            }
        existing: list[Existing | None] = []
        for instance in ids:
            existing.append(None if instance in new else old[instance])
            new.discard(instance)  # the same id twice: the second one exists
        return existing

    async def _insert_attributes(self, runs: Sequence[NewRun]) -> None:
        values = [
            (run.instance_id, name, msgspec.json.encode(value).decode())
            for run in runs
            for name, value in run.attributes.items()
        ]
        if values:
            self._later(
                "INSERT INTO runtara_trio_attributes (instance_id, name, value)"
                " SELECT * FROM unnest($1::text[], $2::text[], $3::text[])",
                *(list(column) for column in zip(*values, strict=True)),
            )

    def _insert_traces(self, runs: Sequence[NewRun]) -> None:
        traces = {run.instance_id: run.trace for run in runs if run.trace is not None}
        if traces:
            self._later(
                "INSERT INTO runtara_trio_traces (instance_id, started)"
                " SELECT * FROM unnest($1::text[], $2::text[])",
                list(traces),
                list(traces.values()),
            )

    # ---- claiming

    async def promote(self) -> int | None:
        ((due, self._no_queues),) = await self._run(_PROMOTE)
        return None if due is None else int(due)

    async def sublanes(
        self,
        lanes: Sequence[tuple[Lane, str]],
        workflows: Sequence[tuple[str, int]],
        limit: int,
    ) -> list[Lane]:
        of_tenants = lanes[0][0].tenant_id is None
        found = await self._run(
            _TENANTS if of_tenants else _KEYS,
            [lane.queue for lane, _ in lanes],
            [lane.tenant_id or "" for lane, _ in lanes],
            [after for _, after in lanes],
            *columns(workflows),
            limit,
        )
        return [
            Lane(queue, name) if of_tenants else Lane(queue, tenant, name)
            for _, queue, tenant, name in found
        ]

    async def ready_in(
        self, lanes: Sequence[Lane], workflows: Sequence[tuple[str, int]], limit: int
    ) -> list[list[str]]:
        found = await self._run(
            _READY_IN,
            [lane.queue for lane in lanes],
            [lane.tenant_id or "" for lane in lanes],
            [lane.key or "" for lane in lanes],
            *columns(workflows),
            limit,
        )
        ids: list[list[str]] = [[] for _ in lanes]
        for number, instance in found:
            ids[number - 1].append(instance)
        return ids

    async def ready_kinds(self) -> list[Kind]:
        if not self._has_runs:
            return []
        found = await self._run(KINDS + "SELECT * FROM kind")
        return [Kind(queue, workflow, version) for queue, workflow, version in found]

    async def suspects(
        self,
        queues: Sequence[str],
        workflows: Sequence[tuple[str, int]],
        tenant_ids: Sequence[str] | None,
        limit: int,
    ) -> list[str]:
        found = await self._run(
            "SELECT instance_id FROM runtara_trio_runs JOIN"
            " unnest($2::text[], $3::bigint[]) AS s (workflow, version) USING (workflow, version)"
            " WHERE state = 'suspect' AND queue = ANY ($1::text[])"
            " AND ($4::bigint = 1 OR tenant_id = ANY ($5::text[]))"
            " ORDER BY ready_us LIMIT $6::bigint",
            list(queues),
            *columns(workflows),
            int(tenant_ids is None),
            list(tenant_ids or ()),
            limit,
        )
        return [instance for (instance,) in found]

    async def strays(self) -> list[tuple[str, int]]:
        found = await self._run(
            "SELECT instance_id, l.epoch FROM runtara_trio_leases l"
            " JOIN runtara_trio_runs r USING (instance_id)"
            " WHERE l.owner = $1 AND r.state = 'running'",
            self._owner.name,
        )
        heard = self._owner.leased
        return [(instance, epoch) for instance, epoch in found if heard.get(instance) != epoch]

    async def lock_ready(self, instance_ids: Sequence[str], *, suspect: bool) -> list[Ready]:
        state = RunState.SUSPECT if suspect else RunState.READY
        ids = sorted(instance_ids)
        locked, read = await self._connection.run_all(
            (_LOCK_READY, (ids, state.value)), (_READ_READY, (ids,))
        )
        found = {row[0]: ready_of(row[0], row[1:]) for row in read if row[:1] in locked}
        return [found[instance] for instance in instance_ids if instance in found]

    async def take_runs(
        self, taken: Sequence[tuple[str, Holder | None]], placed: Collection[str]
    ) -> dict[str, int]:
        ids = [instance for instance, _ in taken]
        found = await self._run(_TAKE, ids, self._owner.name, list(placed))
        leases = {instance: int(epoch) for instance, epoch in found}
        self.leased += leases.items()
        return leases


def columns(workflows: Sequence[tuple[str, int]]) -> tuple[list[str], list[int]]:
    """Names and versions, as a query takes them."""
    return [name for name, _ in workflows], [version for _, version in workflows]
