"""What queues allow, on SQLite; see ``answers/queues.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ...types import Queue, QueueInfo
from ..structs import Lane, Stored
from ..values import queue_info_of, stored_of
from .children import SqliteChildren
from .runs import as_json

MOVED = 1000
"""Runs of one key that are put behind at once."""

COUNTED = 10_000
"""Rows that are counted for a list at most."""


class SqliteQueues(SqliteChildren):
    """The part of the port that is about queues."""

    async def lock_queues(self, names: Iterable[str]) -> dict[str, Stored]:
        rows = self.db.execute(
            "SELECT name, info, paused FROM json_each(?) j JOIN runtara_trio_queues"
            " ON name = j.value",
            (as_json(names),),
        ).fetchall()
        return {name: stored_of(info, paused) for name, info, paused in rows}

    async def places(self, queues: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {
            queue: self.db.execute(
                "SELECT (SELECT count(*) FROM runtara_trio_runs WHERE place = 1 AND queue = ?),"
                " (SELECT count(*) FROM runtara_trio_runs WHERE wants = 1 AND queue = ?)",
                (queue, queue),
            ).fetchone()
            for queue in queues
        }

    async def begun_since(self, queue: str, per: float) -> tuple[int, int | None]:
        since = self._now_us - int(per * 1_000_000)
        self.db.execute(
            "DELETE FROM runtara_trio_begins WHERE queue = ? AND began_us <= ?", (queue, since)
        )
        self.db.execute(  # a clock that was set back must not close the queue until then
            "UPDATE runtara_trio_begins SET began_us = ? WHERE queue = ? AND began_us > ?",
            (self._now_us, queue, self._now_us),
        )
        count, first = self.db.execute(
            "SELECT count(*), MIN(began_us) FROM runtara_trio_begins WHERE queue = ?", (queue,)
        ).fetchone()
        return count, None if first is None else (first - since) // 1000 + 1

    async def note_begins(self, queues: Sequence[str]) -> None:
        self.db.executemany(
            "INSERT INTO runtara_trio_begins (queue, began_us) VALUES (?, ?)",
            [(queue, self._now_us) for queue in queues],
        )

    async def turns(self, lanes: Sequence[Lane]) -> dict[Lane, int]:
        return {
            lane: self.db.execute(
                "SELECT count(*) FROM runtara_trio_runs"
                " WHERE has_turn = 1 AND queue = ? AND tenant_id = ? AND key = ?",
                (lane.queue, lane.tenant_id, lane.key),
            ).fetchone()[0]
            for lane in lanes
        }

    async def put_behind(self, lane: Lane) -> None:
        for kind in await self.ready_kinds():
            if kind.queue == lane.queue:
                self.db.execute(
                    "UPDATE runtara_trio_runs SET state = 'behind' WHERE instance_id IN"
                    " (SELECT instance_id FROM runtara_trio_runs WHERE state = 'ready'"
                    " AND queue = ? AND workflow = ? AND version = ? AND tenant_id = ?"
                    " AND key = ? AND has_turn = 0 LIMIT ?)",
                    (lane.queue, kind.workflow, kind.version, lane.tenant_id, lane.key, MOVED),
                )

    async def free_turns(self, instance_ids: Sequence[str]) -> list[Lane]:
        ids = (as_json(instance_ids),)
        which = "instance_id IN (SELECT value FROM json_each(?))"
        lanes = self.db.execute(
            "SELECT DISTINCT queue, tenant_id, key FROM runtara_trio_runs"
            f" WHERE key <> '' AND {which}",
            ids,
        ).fetchall()
        self.db.execute(
            f"UPDATE runtara_trio_runs SET has_turn = 0 WHERE has_turn = 1 AND {which}", ids
        )
        return [
            Lane(*lane)
            for lane in lanes
            if self.db.execute(
                "SELECT 1 FROM runtara_trio_runs WHERE state = 'behind' AND queue = ?"
                " AND tenant_id = ? AND key = ? LIMIT 1",
                lane,
            ).fetchone()
        ]

    async def advance(self, lane: Lane, count: int) -> None:
        self.db.execute(
            "UPDATE runtara_trio_runs SET state = 'ready' WHERE instance_id IN (SELECT instance_id"
            " FROM runtara_trio_runs WHERE state = 'behind' AND queue = ? AND tenant_id = ?"
            " AND key = ? ORDER BY priority DESC, ready_us LIMIT ?)",
            (lane.queue, lane.tenant_id, lane.key, count),
        )
        self.runs_changed = True

    async def queues_of(self, instance_ids: Sequence[str]) -> dict[str, str]:
        rows = self.db.execute(
            "SELECT r.instance_id, r.queue FROM json_each(?) j"
            " JOIN runtara_trio_runs r ON r.instance_id = j.value"
            " JOIN runtara_trio_leases l ON l.instance_id = r.instance_id"
            " WHERE l.owner = ? AND r.place = 0",
            (as_json(instance_ids), self.leases.owner),
        )
        return dict(rows.fetchall())

    async def want_places(self, instance_ids: Sequence[str]) -> None:
        self.db.executemany(
            "UPDATE runtara_trio_runs SET wants = 1 WHERE instance_id = ?",
            [(instance,) for instance in instance_ids],
        )

    async def set_queues(self, queues: Sequence[Queue]) -> None:
        for queue in queues:
            self.db.execute(
                "INSERT INTO runtara_trio_queues (name, info) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET info = excluded.info",
                (queue.name, msgspec.json.encode(queue).decode()),
            )
            self.db.execute(  # who holds a place was not noted while there was no limit
                "UPDATE runtara_trio_runs SET place = 1 WHERE instance_id IN (SELECT instance_id"
                " FROM runtara_trio_leases) AND state = 'running' AND waits = 0 AND queue = ?",
                (queue.name,),
            )
            self.db.execute(
                "UPDATE runtara_trio_runs SET state = 'ready' WHERE state = 'behind' AND queue = ?",
                (queue.name,),
            )
        self.runs_changed = True

    async def pause_queue(self, name: str, *, paused: bool) -> None:
        self.db.execute(
            "INSERT INTO runtara_trio_queues (name, info, paused) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
            (name, msgspec.json.encode(Queue(name)).decode(), paused),
        )
        self.runs_changed = True

    async def list_queues(self) -> list[QueueInfo]:
        stored = {
            name: stored_of(info, paused)
            for name, info, paused in self.db.execute(
                "SELECT name, info, paused FROM runtara_trio_queues"
            ).fetchall()
        }
        names = {*stored, *(kind.queue for kind in await self.ready_kinds())}
        return [self._info(name, stored.get(name)) for name in sorted(names)]

    def _info(self, name: str, stored: Stored | None) -> QueueInfo:
        counts = [
            self.db.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM runtara_trio_runs WHERE {which}"
                " AND queue = ? LIMIT ?)",
                (name, COUNTED),
            ).fetchone()[0]
            for which in ("state = 'ready'", "state = 'behind'", "place = 1", "wants = 1")
        ]
        (ready_us,) = self.db.execute(
            "SELECT min(ready_us) FROM runtara_trio_runs WHERE state = 'ready' AND queue || '' = ?",
            (name,),
        ).fetchone()
        return queue_info_of(name, stored, *[*counts, ready_us])
