"""What queues allow, on PostgreSQL; see ``answers/queues.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ...types import Queue, QueueInfo
from ..structs import Lane, Stored
from ..values import queue_info_of, stored_of
from .children import PostgresChildren
from .claims import KINDS, NOW_US

MOVED = 1000
"""Runs of one key that are put behind at once."""

COUNTED = 10_000
"""Rows that are counted for a list at most."""

_PUT_BEHIND = f"""{KINDS}
UPDATE runtara_trio_runs SET state = 'behind' WHERE instance_id IN (
    SELECT found.instance_id FROM kind CROSS JOIN LATERAL (
        SELECT r.instance_id FROM runtara_trio_runs r
        WHERE r.state = 'ready' AND r.queue = kind.queue AND r.workflow = kind.workflow
        AND r.version = kind.version AND r.tenant_id = $2 AND r.key = $3 AND NOT r.has_turn
        LIMIT {MOVED} FOR NO KEY UPDATE SKIP LOCKED
    ) found WHERE kind.queue = $1
)
"""

_BEGUN = f"""
WITH gone AS (
    DELETE FROM runtara_trio_begins WHERE queue = $1 AND began_us <= {NOW_US} - $2::bigint
), set_back AS ( -- a clock that was set back must not close the queue until then
    UPDATE runtara_trio_begins SET began_us = {NOW_US} WHERE queue = $1 AND began_us > {NOW_US}
)
SELECT count(*), min(least(began_us, {NOW_US})) - ({NOW_US} - $2::bigint) FROM runtara_trio_begins
WHERE queue = $1 AND began_us > {NOW_US} - $2::bigint
"""

_FREE = """
WITH freed AS (
    UPDATE runtara_trio_runs SET has_turn = false
    WHERE has_turn AND instance_id = ANY ($1::text[])
)
SELECT DISTINCT queue, tenant_id, key FROM runtara_trio_runs
WHERE key <> '' AND instance_id = ANY ($1::text[])
"""

_COUNT = (
    "SELECT "
    + "".join(
        f"(SELECT count(*) FROM (SELECT 1 FROM runtara_trio_runs WHERE {which} AND queue = $1"
        f" LIMIT {COUNTED}) AS counted), "
        for which in ("state = 'ready'", "state = 'behind'", "place", "wants")
    )
    + "(SELECT min(ready_us) FROM runtara_trio_runs WHERE state = 'ready' AND queue || '' = $1)"
)


class PostgresQueues(PostgresChildren):
    """The part of the port that is about queues."""

    async def lock_queues(self, names: Iterable[str]) -> dict[str, Stored]:
        wanted = list(names)
        if self._no_queues:
            return {}
        found = await self._run(
            "SELECT name, info, paused FROM runtara_trio_queues WHERE name = ANY ($1::text[])",
            wanted,
        )
        stored = {name: stored_of(info, paused) for name, info, paused in found}
        if any(one.queue != Queue(name) for name, one in stored.items()):
            found = await self._run(
                "SELECT name, info, paused FROM runtara_trio_queues WHERE name = ANY ($1::text[])"
                " ORDER BY name FOR NO KEY UPDATE",
                wanted,
            )
            stored = {name: stored_of(info, paused) for name, info, paused in found}
        return stored

    async def places(self, queues: Sequence[str]) -> dict[str, tuple[int, int]]:
        if not queues:
            return {}
        found = await self._run(
            "SELECT q,"
            " (SELECT count(*) FROM runtara_trio_runs r WHERE r.place AND r.queue = q),"
            " (SELECT count(*) FROM runtara_trio_runs r WHERE r.wants AND r.queue = q)"
            " FROM unnest($1::text[]) AS q",
            list(queues),
        )
        return {queue: (held, wanted) for queue, held, wanted in found}

    async def begun_since(self, queue: str, per: float) -> tuple[int, int | None]:
        ((count, left_us),) = await self._run(_BEGUN, queue, int(per * 1_000_000))
        return count, None if left_us is None else int(left_us) // 1000 + 1

    async def note_begins(self, queues: Sequence[str]) -> None:
        self._later(
            f"INSERT INTO runtara_trio_begins SELECT q, {NOW_US} FROM unnest($1::text[]) AS q",
            list(queues),
        )

    async def turns(self, lanes: Sequence[Lane]) -> dict[Lane, int]:
        found = await self._run(
            "SELECT t.queue, t.tenant, t.key, (SELECT count(*) FROM runtara_trio_runs r"
            " WHERE r.has_turn AND r.queue = t.queue AND r.tenant_id = t.tenant AND r.key = t.key)"
            " FROM unnest($1::text[], $2::text[], $3::text[]) AS t (queue, tenant, key)",
            [lane.queue for lane in lanes],
            [lane.tenant_id for lane in lanes],
            [lane.key for lane in lanes],
        )
        return {Lane(queue, tenant, key): count for queue, tenant, key, count in found}

    async def put_behind(self, lane: Lane) -> None:
        self._later(_PUT_BEHIND, lane.queue, lane.tenant_id, lane.key)

    async def free_turns(self, instance_ids: Sequence[str]) -> list[Lane]:
        freed = [Lane(*row) for row in await self._run(_FREE, sorted(instance_ids))]
        await self.lock_queues(sorted({lane.queue for lane in freed}))
        return freed

    async def advance(self, lane: Lane, count: int) -> None:
        moved = await self._run(
            "UPDATE runtara_trio_runs SET state = 'ready' WHERE instance_id IN (SELECT instance_id"
            " FROM runtara_trio_runs WHERE state = 'behind' AND queue = $1 AND tenant_id = $2"
            " AND key = $3 ORDER BY priority DESC, ready_us LIMIT $4::bigint"
            " FOR NO KEY UPDATE) RETURNING 1",
            lane.queue,
            lane.tenant_id,
            lane.key,
            count,
        )
        self.runs_changed = self.runs_changed or bool(moved)

    async def queues_of(self, instance_ids: Sequence[str]) -> dict[str, str]:
        found = await self._run(
            "SELECT r.instance_id, r.queue FROM runtara_trio_runs r"
            " JOIN runtara_trio_leases l USING (instance_id)"
            " WHERE l.owner = $2 AND NOT r.place AND r.instance_id = ANY ($1::text[])",
            list(instance_ids),
            self._owner.name,
        )
        return dict(found)

    async def want_places(self, instance_ids: Sequence[str]) -> None:
        self._later(
            "UPDATE runtara_trio_runs SET wants = true WHERE instance_id = ANY ($1::text[])",
            list(instance_ids),
        )

    async def set_queues(self, queues: Sequence[Queue]) -> None:
        names = [queue.name for queue in queues]
        # A claim that read the queues before this has ended then: its runs are seen below.
        self._later("LOCK TABLE runtara_trio_queues IN EXCLUSIVE MODE")
        self._later(
            "INSERT INTO runtara_trio_queues (name, info)"
            " SELECT * FROM unnest($1::text[], $2::text[]) AS t (name, info) ORDER BY name"
            " ON CONFLICT (name) DO UPDATE SET info = excluded.info",
            names,
            [msgspec.json.encode(queue).decode() for queue in queues],
        )
        self._later(  # who holds a place was not noted while there was no limit
            "UPDATE runtara_trio_runs SET place = true WHERE instance_id IN (SELECT r.instance_id"
            " FROM runtara_trio_leases l JOIN runtara_trio_runs r USING (instance_id)"
            " WHERE r.state = 'running' AND NOT r.waits AND r.queue = ANY ($1::text[])"
            # one that somebody has locked ends or is marked: that says what it holds
            " FOR NO KEY UPDATE OF r SKIP LOCKED)",
            names,
        )
        self._later(
            "UPDATE runtara_trio_runs SET state = 'ready' WHERE instance_id IN (SELECT instance_id"
            " FROM runtara_trio_runs WHERE state = 'behind' AND queue = ANY ($1::text[])"
            " FOR NO KEY UPDATE SKIP LOCKED)",
            names,
        )
        self.runs_changed = True

    async def pause_queue(self, name: str, *, paused: bool) -> None:
        self._later(
            "INSERT INTO runtara_trio_queues (name, info, paused) VALUES ($1, $2, $3::bigint = 1)"
            " ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
            name,
            msgspec.json.encode(Queue(name)).decode(),
            int(paused),
        )
        self.runs_changed = True

    async def list_queues(self) -> list[QueueInfo]:
        if not self._has_runs:
            return []
        found = await self._run("SELECT name, info, paused FROM runtara_trio_queues")
        stored = {name: stored_of(info, paused) for name, info, paused in found}
        names = {*stored, *(kind.queue for kind in await self.ready_kinds())}
        infos: list[QueueInfo] = []
        for name in sorted(names):
            (counts,) = await self._run(_COUNT, name)
            infos.append(queue_info_of(name, stored.get(name), *counts))
        return infos
