"""Runs of workflows on SQLite: starting, claiming, placing, recovering them, and their ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...messages import Ends, EndsSince, Existing, LookForWork, NewRun, Result, Work
from ...types import RunState, WorkerInfo
from ..tables import Holder, Kind, Lane, Orphan, Placing, Ready
from ..values import orphan_of, ready_of, result_of, waiting_text
from .leases import Leases
from .schema import started_text, time_text

PROMOTED = 1000
"""Runs that one claim makes ready at most, of those that are due."""

LOCK = (
    "SELECT i.tenant_id, i.status, l.epoch, l.owner, b.started_at = i.started_at,"
    " s.signal_type, s.payload, i.output, i.error, NULL, r.state, r.waiting_for"
)
OF_INSTANCE = (
    " FROM instances i"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id"
    " LEFT JOIN runtara_trio_starts b ON b.instance_id = i.instance_id"
    " LEFT JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id"
    " AND s.acknowledged_at IS NULL"
)
"""What decides about an instance, in the order of ``values.row_of``."""


class SqliteRuns:
    """The part of the port that is about runs; see :class:`runtara_trio.store.tables.Tables`."""

    db: sqlite3.Connection
    leases: Leases
    now: float
    leased: list[tuple[str, int | None]]
    dead_files: list[str]
    runs_changed: bool
    """Whether runs are ready, due or ended now that were not."""

    @property
    def _now_us(self) -> int:
        return int(self.now * 1_000_000)

    # ---- starting

    async def insert_runs(self, tenant_id: str, runs: Sequence[NewRun]) -> list[Existing | None]:
        created = time_text(int(self.now))
        existing: list[Existing | None] = []
        for number, run in enumerate(runs):
            made = self.db.execute(
                "INSERT INTO instances (instance_id, tenant_id, definition_version, status, input,"
                " created_at) VALUES (?, ?, ?, 'pending', ?, ?) ON CONFLICT DO NOTHING",
                (run.instance_id, tenant_id, run.version, run.input, created),
            ).rowcount
            existing.append(None if made == 1 else self._existing(run.instance_id))
            if made == 1:
                self._insert_run(tenant_id, run, self._now_us + number)
                self.runs_changed = True
        return existing

    def _existing(self, instance_id: str) -> Existing:
        found = self.db.execute(
            "SELECT i.tenant_id, r.workflow, i.input FROM instances i LEFT JOIN runtara_trio_runs r"
            " ON r.instance_id = i.instance_id WHERE i.instance_id = ?",
            (instance_id,),
        ).fetchone()
        return Existing(tenant_id=found[0], workflow=found[1], input=found[2] or b"")

    def _insert_run(self, tenant_id: str, run: NewRun, ready_us: int) -> None:
        now_ms = int(self.now * 1000)
        due = run.at_ms if run.at_ms is not None else now_ms + run.delay_ms
        waits = due > now_ms
        self.db.execute(
            "INSERT INTO runtara_trio_runs (instance_id, tenant_id, workflow, version, queue, key,"
            " priority, state, due_ms, ready_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run.instance_id,
                tenant_id,
                run.workflow,
                run.version,
                run.queue,
                run.key,
                run.priority,
                (RunState.TIMED if waits else RunState.READY).value,
                due if waits else None,
                due * 1000 if waits else ready_us,
            ),
        )
        for name, value in run.attributes.items():
            self.db.execute(
                "INSERT INTO runtara_trio_attributes (instance_id, name, value) VALUES (?, ?, ?)",
                (run.instance_id, name, msgspec.json.encode(value).decode()),
            )

    # ---- claiming

    async def promote(self) -> int | None:
        self.db.execute(
            "UPDATE runtara_trio_runs SET state = 'ready', due_ms = NULL WHERE instance_id IN"
            " (SELECT instance_id FROM runtara_trio_runs WHERE state = 'timed' AND due_ms <= ?"
            " ORDER BY due_ms LIMIT ?)",
            (int(self.now * 1000), PROMOTED),
        )
        found = self.db.execute(
            "SELECT due_ms FROM runtara_trio_runs WHERE state = 'timed' ORDER BY due_ms LIMIT 1"
        ).fetchone()
        return None if found is None else found[0] - int(self.now * 1000)

    async def sublanes(
        self,
        lanes: Sequence[tuple[Lane, str]],
        workflows: Sequence[tuple[str, int]],
        limit: int,
    ) -> list[Lane]:
        found: list[Lane] = []
        for lane, after in lanes:
            names = self._names(lane, workflows, after, limit)
            if len(names) < limit:
                names |= self._names(lane, workflows, None, limit - len(names))
            for name in sorted(names):
                tenant = name if lane.tenant_id is None else lane.tenant_id
                key = None if lane.tenant_id is None else name
                found.append(Lane(lane.queue, tenant, key))
        return found

    def _names(
        self, lane: Lane, workflows: Sequence[tuple[str, int]], after: str | None, limit: int
    ) -> set[str]:
        """The next tenants of a queue, or keys of a tenant, behind a name: each is one step in
        the index, whatever lies between."""
        names: set[str] = set()
        column = "tenant_id" if lane.tenant_id is None else "key"
        within = "" if lane.tenant_id is None else " AND tenant_id = ?"
        for workflow, version in workflows:
            place = after
            for _ in range(limit):
                behind = "" if place is None else f" AND {column} > ?"
                row = self.db.execute(
                    f"SELECT {column} FROM runtara_trio_runs WHERE state = 'ready' AND queue = ?"
                    f" AND workflow = ? AND version = ?{within}{behind}"
                    f" ORDER BY {column} LIMIT 1",
                    (
                        lane.queue,
                        workflow,
                        version,
                        *(() if lane.tenant_id is None else (lane.tenant_id,)),
                        *(() if place is None else (place,)),
                    ),
                ).fetchone()
                if row is None:
                    break
                place = row[0]
                names.add(row[0])
        return names

    async def ready_in(
        self, lanes: Sequence[Lane], workflows: Sequence[tuple[str, int]], limit: int
    ) -> list[list[str]]:
        return [self._ready_in(lane, workflows, limit) for lane in lanes]

    def _ready_in(self, lane: Lane, workflows: Sequence[tuple[str, int]], limit: int) -> list[str]:
        rows: list[tuple[int, int, str]] = []
        for workflow, version in workflows:
            rows += self.db.execute(
                "SELECT -priority, ready_us, instance_id FROM runtara_trio_runs"
                " WHERE state = 'ready' AND queue = ? AND workflow = ? AND version = ?"
                " AND tenant_id = ? AND key = ? ORDER BY priority DESC, ready_us LIMIT ?",
                (lane.queue, workflow, version, lane.tenant_id, lane.key, limit),
            ).fetchall()
        return [instance for _, _, instance in sorted(rows)[:limit]]

    async def ready_kinds(self) -> list[Kind]:
        kinds: list[Kind] = []
        place: tuple[Any, ...] = ("", "", 0)
        while True:  # each is one step in the index, however many are ready
            found = self.db.execute(
                "SELECT queue, workflow, version FROM runtara_trio_runs WHERE state = 'ready'"
                " AND (queue, workflow, version) > (?, ?, ?)"
                " ORDER BY queue, workflow, version LIMIT 1",
                place,
            ).fetchone()
            if found is None:
                return kinds
            kinds.append(Kind(*found))
            place = found

    async def suspects(
        self, queues: Sequence[str], workflows: Sequence[tuple[str, int]], limit: int
    ) -> list[str]:
        rows = self.db.execute(
            "SELECT instance_id, queue, workflow, version FROM runtara_trio_runs"
            " WHERE state = 'suspect' ORDER BY ready_us"
        ).fetchall()
        return [
            instance
            for instance, queue, workflow, version in rows
            if queue in queues and (workflow, version) in workflows
        ][:limit]

    async def strays(self) -> list[str]:
        return []  # no answer is lost between a thread and its loop

    async def lock_ready(self, instance_ids: Sequence[str], *, suspect: bool) -> list[Ready]:
        found: list[Ready] = []
        for instance in instance_ids:
            row = self.db.execute(
                f"{LOCK}, r.workflow, r.version, i.input, i.attempt, r.recoveries,"
                f" i.started_at IS NOT NULL{OF_INSTANCE} WHERE i.instance_id = ?",
                (instance,),
            ).fetchone()
            found.append(ready_of(instance, row))
        return found

    async def take_runs(self, taken: Sequence[tuple[str, Holder | None]]) -> dict[str, int]:
        started, now_text = started_text(self.now), time_text(int(self.now))
        epoch = self.leases.next_epochs(self.db, len(taken))
        leases = {instance: epoch + number for number, (instance, _) in enumerate(taken)}
        owner = self.leases.owner
        self.db.executemany(
            "INSERT OR REPLACE INTO runtara_trio_leases (instance_id, owner, epoch)"
            " VALUES (?, ?, ?)",
            [(instance, owner, lease) for instance, lease in leases.items()],
        )
        self.db.executemany(
            "UPDATE instances SET status = 'running', started_at = ?, sleep_until = NULL"
            " WHERE instance_id = ?",
            [(started, instance) for instance in leases],
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO runtara_trio_starts (instance_id, started_at) VALUES (?, ?)",
            [(instance, started) for instance in leases],
        )
        self.db.executemany(
            "INSERT INTO instance_events (instance_id, event_type, created_at)"
            " VALUES (?, 'started', ?)",
            [(instance, now_text) for instance in leases],
        )
        self.db.executemany(
            "UPDATE runtara_trio_runs SET state = 'running', due_ms = NULL, waiting_for = NULL,"
            " waits = 0 WHERE instance_id = ?",
            [(instance,) for instance in leases],
        )
        for dead in {one.owner for _, one in taken if one is not None}:
            dead_file = self.leases.bury(self.db, dead)
            if dead_file is not None:
                self.dead_files.append(dead_file)
        self.leased += leases.items()
        return leases

    # ---- placing

    async def place_run(self, instance_id: str, placing: Placing) -> None:
        ended, due = placing.state is RunState.ENDED, placing.due_ms
        if placing.after_ms is not None:
            due = int(self.now * 1000) + placing.after_ms
        self.db.execute(
            "UPDATE runtara_trio_runs SET state = ?, due_ms = ?, waiting_for = ?, waits = 0,"
            " ready_us = CASE WHEN ? THEN COALESCE(? * 1000, ?) ELSE ready_us END,"
            " recoveries = CASE WHEN ? THEN 0 ELSE recoveries END, ended = CASE WHEN ? THEN"
            " (SELECT ended + 1 FROM runtara_trio_runs_schema) END WHERE instance_id = ?",
            (
                placing.state.value,
                due,
                waiting_text(placing.waiting_for),
                placing.anew,
                due,
                self._now_us,
                placing.forgives,
                ended,
                instance_id,
            ),
        )
        if ended:
            self.db.execute("UPDATE runtara_trio_runs_schema SET ended = ended + 1")
        if placing.counts:
            self.db.execute(
                "UPDATE instances SET attempt = attempt + 1,"
                " max_attempts = MAX(max_attempts, attempt + 1) WHERE instance_id = ?",
                (instance_id,),
            )
        self.runs_changed = True

    # ---- recovering

    async def orphans(self, owner: str, limit: int) -> list[Orphan]:
        rows = self.db.execute(
            "SELECT r.instance_id, l.epoch, r.waits, r.recoveries, r.progress,"
            " COALESCE((SELECT MAX(c.id) FROM checkpoints c"
            " WHERE c.instance_id = r.instance_id), 0) FROM runtara_trio_leases l"
            " JOIN runtara_trio_runs r ON r.instance_id = l.instance_id"
            " WHERE l.owner = ? AND r.state = 'running' LIMIT ?",
            (owner, limit),
        ).fetchall()
        return [orphan_of(row) for row in rows]

    async def recover(
        self, orphans: Sequence[tuple[Orphan, RunState, int]], reasons: dict[str, str]
    ) -> None:
        self.db.executemany(
            "UPDATE runtara_trio_runs SET state = ?, recoveries = ?, progress = ?, waits = 0"
            " WHERE instance_id = ?",
            [
                (state.value, recoveries, orphan.newest, orphan.instance_id)
                for orphan, state, recoveries in orphans
            ],
        )
        for instance, reason in reasons.items():
            self.db.execute(
                "UPDATE instances SET status = 'suspended' WHERE instance_id = ?", (instance,)
            )
            self.db.execute("DELETE FROM runtara_trio_leases WHERE instance_id = ?", (instance,))
            self.db.execute(
                "INSERT INTO instance_events (instance_id, event_type, payload, created_at)"
                " VALUES (?, 'suspended', ?, ?)",
                (instance, reason.encode(), time_text(int(self.now))),
            )
        self.runs_changed = True

    async def mark_runs(self, waiting: Sequence[str], working: Sequence[str]) -> None:
        self.db.executemany(
            "UPDATE runtara_trio_runs SET waits = ? WHERE instance_id = ? AND EXISTS"
            " (SELECT 1 FROM runtara_trio_leases l WHERE l.instance_id ="
            " runtara_trio_runs.instance_id AND l.owner = ?)",
            [
                (waits, instance, self.leases.owner)
                for waits, instances in ((1, waiting), (0, working))
                for instance in instances
            ],
        )

    # ---- looking, workers, ends

    async def look(self, message: LookForWork) -> Work:
        queues, workflows = _json(message.queues), _json(message.workflows)
        rows = self.db.execute(
            "WITH RECURSIVE leasing (owner) AS (SELECT MIN(owner) FROM runtara_trio_leases"
            " UNION ALL SELECT (SELECT MIN(l.owner) FROM runtara_trio_leases l"
            " WHERE l.owner > leasing.owner) FROM leasing WHERE leasing.owner IS NOT NULL)"
            " SELECT leasing.owner, o.holder, o.renewed_ms, o.lease_ms,"
            # CROSS: in this order; else all that is ready of somebody else's would be read
            " EXISTS (SELECT 1 FROM json_each(?) q CROSS JOIN json_each(?) w"
            " CROSS JOIN runtara_trio_runs r"
            " WHERE r.state = 'ready' AND r.queue = q.value"
            " AND r.workflow = json_extract(w.value, '$[0]')"
            " AND r.version = json_extract(w.value, '$[1]')),"
            " EXISTS (SELECT 1 FROM runtara_trio_runs WHERE state = 'suspect'),"
            " (SELECT MIN(due_ms) FROM runtara_trio_runs WHERE state = 'timed')"
            " FROM leasing LEFT JOIN runtara_trio_owners o ON o.owner = leasing.owner",
            (queues, workflows),
        ).fetchall()
        dead = [
            owner
            for owner, who, renewed_ms, lease_ms, *_ in rows
            if owner is not None
            and not self.leases.judge(owner, who, renewed_ms, lease_ms, now=self.now).alive
        ]
        *_, ready, suspect, due_ms = rows[-1]
        return Work(
            ready=bool(ready),
            suspect=bool(suspect),
            dead=tuple(dead),
            due_in_ms=None if due_ms is None else due_ms - int(self.now * 1000),
        )

    async def announce(self, info: WorkerInfo) -> None:
        assert self.leases.owner is not None
        whole = msgspec.structs.replace(info, owner=self.leases.owner, holder=self.leases.who)
        self.db.execute(
            "INSERT OR REPLACE INTO runtara_trio_workers (owner, name, info) VALUES (?, ?, ?)",
            (self.leases.owner, info.name, msgspec.json.encode(whole).decode()),
        )
        self.db.execute(
            "DELETE FROM runtara_trio_workers WHERE owner NOT IN"
            " (SELECT owner FROM runtara_trio_owners)"
        )

    async def retire(self, name: str) -> None:
        self.db.execute(
            "DELETE FROM runtara_trio_workers WHERE owner = ? AND name = ?",
            (self.leases.owner, name),
        )

    async def workers(self) -> list[WorkerInfo]:
        rows = self.db.execute("SELECT info FROM runtara_trio_workers ORDER BY name, owner")
        return [msgspec.json.decode(info, type=WorkerInfo) for (info,) in rows.fetchall()]

    async def ends_since(self, message: EndsSince) -> Ends:
        (last,) = self.db.execute("SELECT MAX(ended) FROM runtara_trio_runs_schema").fetchone()
        rows: list[tuple[int, str]] = []
        if message.after is not None:
            rows = self.db.execute(
                "SELECT ended, instance_id FROM runtara_trio_runs WHERE ended > ?"
                " ORDER BY ended LIMIT ?",
                (message.after, message.limit),
            ).fetchall()
        return Ends(last=last or 0, ended=tuple(rows))

    async def results(self, instance_ids: Sequence[str]) -> dict[str, Result]:
        rows = self.db.execute(
            "SELECT i.instance_id, i.status, i.tenant_id, r.workflow, i.output, i.error"
            " FROM json_each(?) j JOIN instances i ON i.instance_id = j.value"
            " LEFT JOIN runtara_trio_runs r ON r.instance_id = i.instance_id",
            (_json(instance_ids),),
        )
        return {row[0]: result_of(*row[1:]) for row in rows.fetchall()}


def _json(values: Iterable[Any]) -> str:
    return msgspec.json.encode(list(values)).decode()
