"""Runs of workflows on PostgreSQL: placing and recovering them, workers, ends.

Each operation is one statement, however many runs it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...messages import Ends, EndsSince, LookForWork, Result, Work
from ...types import RunState, WorkerInfo
from ..structs import Orphan, Placing
from ..values import awaited_text, orphan_of, result_of, waiting_text
from . import outcomes
from .claims import NOW_MS, NOW_US, PostgresClaims, columns
from .connection import Connection
from .liveness import AGE, LOCKED
from .schema import NEXT_EPOCH

_PLACE = f"""
WITH input AS MATERIALIZED (
    SELECT t.*, CASE WHEN after_ms > 0 THEN {NOW_MS} + after_ms ELSE NULLIF(at_ms, 0) END AS due
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::text[])
    AS t (instance_id, state, at_ms, after_ms, waiting_for, counts, anew, forgives, awaited)
), locked AS MATERIALIZED (  -- in the order in which everybody locks runs
    SELECT instance_id FROM runtara_trio_runs WHERE instance_id = ANY ($1::text[])
    ORDER BY instance_id FOR NO KEY UPDATE
), placed AS (
    UPDATE runtara_trio_runs r SET state = input.state, due_ms = due,
        waiting_for = NULLIF(input.waiting_for, ''), waits_children = NULLIF(awaited, ''),
        waits = false, place = false, wants = false,
        ready_us = CASE WHEN anew = 1 THEN COALESCE(due * 1000, {NOW_US}) ELSE ready_us END,
        recoveries = CASE WHEN forgives = 1 THEN 0 ELSE recoveries END,
        ended = CASE WHEN input.state = 'ended' THEN nextval('runtara_trio_ends') END,
        ended_ms = CASE WHEN input.state = 'ended' THEN {NOW_MS} END
    FROM input JOIN locked USING (instance_id) WHERE r.instance_id = input.instance_id
)
UPDATE instances i SET attempt = attempt + 1, max_attempts = GREATEST(max_attempts, attempt + 1)
FROM input WHERE i.instance_id = input.instance_id AND counts = 1
"""

_ORPHANS = (
    "SELECT i.instance_id, r.waits, r.recoveries, r.progress,"
    " COALESCE((SELECT max(c.id) FROM checkpoints c WHERE c.instance_id = i.instance_id), 0),"
    " i.checkpoint_id"
    " FROM runtara_trio_leases l"
    " JOIN runtara_trio_runs r USING (instance_id) JOIN instances i USING (instance_id)"
    " WHERE l.owner = $1 AND r.state = 'running' LIMIT $2::bigint"
    # The lease as well: a row that is locked is looked at again, and another sweep may have made
    # the run ready meanwhile, and another worker taken it.
    " FOR NO KEY UPDATE OF i, r, l SKIP LOCKED"
)

_RECOVER = f"""
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
    AS t (instance_id, state, recoveries, progress, reason)
), parked AS (
    UPDATE instances i SET status = 'suspended' FROM input
    WHERE i.instance_id = input.instance_id AND input.state = 'parked'
), freed AS (
    DELETE FROM runtara_trio_leases l USING input
    WHERE l.instance_id = input.instance_id AND input.state = 'parked'
), fenced AS ( -- who had them may come back
    UPDATE runtara_trio_leases l SET owner = '', epoch = {NEXT_EPOCH} FROM input
    WHERE l.instance_id = input.instance_id AND input.state <> 'parked'
), event AS (
    INSERT INTO instance_events (instance_id, event_type, payload)
    SELECT instance_id, 'suspended', convert_to(reason, 'UTF8') FROM input WHERE state = 'parked'
)
UPDATE runtara_trio_runs r SET state = input.state, recoveries = input.recoveries,
    progress = input.progress, waits = false, place = false, wants = false
FROM input WHERE r.instance_id = input.instance_id
"""

_LOOK = f"""
WITH RECURSIVE leasing (owner) AS (
    SELECT min(owner) FROM runtara_trio_leases
    UNION ALL
    SELECT (SELECT min(l.owner) FROM runtara_trio_leases l WHERE l.owner > leasing.owner)
    FROM leasing WHERE leasing.owner IS NOT NULL
)
SELECT EXISTS (SELECT 1 FROM unnest($1::text[]) AS q (queue)
        CROSS JOIN unnest($2::text[], $3::bigint[]) AS s (workflow, version)
        CROSS JOIN LATERAL (SELECT 1 FROM runtara_trio_runs r WHERE r.state = 'ready'
            AND r.queue = q.queue AND r.workflow = s.workflow AND r.version = s.version LIMIT 1
        ) one),
    EXISTS (SELECT 1 FROM runtara_trio_runs JOIN
        unnest($2::text[], $3::bigint[]) AS s (workflow, version) USING (workflow, version)
        WHERE state = 'suspect' AND queue = ANY ($1::text[])
        AND ($5::bigint = 1 OR tenant_id = ANY ($6::text[]))),
    (SELECT min(due_ms) FROM runtara_trio_runs WHERE state = 'timed') - {NOW_MS},
    (SELECT string_agg(leasing.owner, ',') FROM leasing
        LEFT JOIN runtara_trio_owners o ON o.owner = leasing.owner
        WHERE leasing.owner IS NOT NULL AND leasing.owner <> $4
        AND (o.owner IS NULL OR NOT ({AGE} < lease_ms AND {LOCKED}))
        AND EXISTS (SELECT 1 FROM runtara_trio_leases l JOIN runtara_trio_runs r USING (instance_id)
            WHERE l.owner = leasing.owner AND r.state = 'running'))
"""


class PostgresRuns(PostgresClaims):
    """The part of the port that is about runs; see :class:`runtara_trio.store.tables.Tables`."""

    _connection: Connection
    _tracks_ends: bool

    # ---- placing

    async def place_run(self, instance_id: str, placing: Placing) -> None:
        await self.place_runs([(instance_id, placing)])

    async def place_runs(self, placings: Sequence[tuple[str, Placing]]) -> None:
        """Put many runs somewhere."""
        if not placings:
            return
        columns = zip(*(_placed(instance, one) for instance, one in placings), strict=True)
        self._later(_PLACE, *(list(column) for column in columns))
        self.runs_changed = True

    # ---- recovering

    async def orphans(self, owner: str, limit: int) -> list[Orphan]:
        return [orphan_of(row) for row in await self._run(_ORPHANS, owner, limit)]

    async def recover(
        self, orphans: Sequence[tuple[Orphan, RunState, int]], reasons: dict[str, str]
    ) -> None:
        self._later(
            _RECOVER,
            [orphan.instance_id for orphan, _, _ in orphans],
            [state.value for _, state, _ in orphans],
            [recoveries for _, _, recoveries in orphans],
            [orphan.newest for orphan, _, _ in orphans],
            [reasons.get(orphan.instance_id, "") for orphan, _, _ in orphans],
        )
        self._note_terminations([(instance, "crashed", None) for instance in reasons])
        self.runs_changed = True

    def _note_terminations(self, ends: Iterable[tuple[str, str | None, int | None]]) -> None:
        """Why instances do not run any more, and with which exit code, where there are columns."""
        if self._tracks_ends:
            outcomes.note_terminations(self._connection, ends)

    async def mark_runs(self, waiting: Sequence[str], working: Sequence[str]) -> None:
        had_place = await self._run(
            # in the order in which all lock them, see ``answers/children.py``
            "WITH mine AS MATERIALIZED (SELECT r.instance_id, r.place FROM runtara_trio_runs r"
            " JOIN runtara_trio_leases l USING (instance_id) WHERE l.owner = $3"
            " AND r.instance_id = ANY ($1::text[] || $2::text[])"
            " ORDER BY r.instance_id FOR NO KEY UPDATE OF r)"
            " UPDATE runtara_trio_runs r SET waits = r.instance_id = ANY ($1::text[]),"
            " place = r.instance_id <> ALL ($1::text[]), wants = false"
            " FROM mine WHERE mine.instance_id = r.instance_id"
            " RETURNING r.waits AND mine.place",
            list(waiting),
            list(working),
            self._owner.name,
        )
        self.runs_changed = self.runs_changed or any(frees for (frees,) in had_place)

    # ---- looking, workers, ends

    async def look(self, message: LookForWork) -> Work:
        ((ready, suspect, due, dead),) = await self._run(
            _LOOK,
            list(message.queues),
            *columns(message.workflows),
            self._owner.name or "",
            int(message.tenant_ids is None),
            list(message.tenant_ids or ()),
        )
        return Work(
            ready=ready,
            suspect=suspect,
            due_in_ms=None if due is None else int(due),
            dead=tuple(dead.split(",")) if dead else (),
        )

    async def announce(self, info: WorkerInfo) -> None:
        assert self._owner.name is not None
        whole = msgspec.structs.replace(info, owner=self._owner.name, holder=self._owner.who)
        self._later(
            "WITH gone AS (DELETE FROM runtara_trio_workers WHERE owner NOT IN"
            " (SELECT owner FROM runtara_trio_owners))"
            " INSERT INTO runtara_trio_workers (owner, name, info) VALUES ($1, $2, $3)"
            " ON CONFLICT (owner, name) DO UPDATE SET info = excluded.info",
            self._owner.name,
            info.name,
            msgspec.json.encode(whole).decode(),
        )

    async def retire(self, name: str) -> None:
        self._later(
            "DELETE FROM runtara_trio_workers WHERE owner = $1 AND name = $2",
            self._owner.name,
            name,
        )

    async def workers(self) -> list[WorkerInfo]:
        if not self._has_runs:
            return []
        found = await self._run("SELECT info FROM runtara_trio_workers ORDER BY name, owner")
        return [msgspec.json.decode(info, type=WorkerInfo) for (info,) in found]

    async def ends_since(self, message: EndsSince) -> Ends:
        found: list[tuple[Any, ...]] = []
        if message.after is not None:
            found = await self._run(
                "SELECT ended, instance_id FROM runtara_trio_runs WHERE ended > $1::bigint"
                " ORDER BY ended LIMIT $2::bigint",
                message.after,
                message.limit,
            )
            return Ends(last=message.after, ended=tuple((n, instance) for n, instance in found))
        ((last,),) = await self._run(
            "SELECT COALESCE((SELECT max(ended) FROM runtara_trio_runs WHERE ended IS NOT NULL),"
            # Read by its function, for which the right to draw from it suffices.
            " pg_sequence_last_value('runtara_trio_ends'), 0)"
        )
        return Ends(last=last, ended=())

    async def results(self, instance_ids: Sequence[str]) -> dict[str, Result]:
        found = await self._run(
            "SELECT i.instance_id, i.status::text, i.tenant_id, r.workflow, i.output, i.error,"
            " r.ended, r.ended_ms, r.by_parent FROM instances i"
            " LEFT JOIN runtara_trio_runs r USING (instance_id)"
            " WHERE i.instance_id = ANY ($1::text[])",
            list(instance_ids),
        )
        return {row[0]: result_of(*row[1:]) for row in found}


def _placed(instance_id: str, placing: Placing) -> tuple[Any, ...]:
    return (
        instance_id,
        placing.state.value,
        placing.due_ms or 0,
        placing.after_ms or 0,
        waiting_text(placing.waiting_for) or "",
        int(placing.counts),
        int(placing.anew),
        int(placing.forgives),
        awaited_text(placing.awaited) or "",
    )
