"""Starting and claiming runs of workflows on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from ...messages import Existing, NewRun
from ...types import RunState
from ..structs import Holder, Kind, Lane, Parent, Ready
from ..values import ready_of
from .leases import Leases
from .schema import started_text, time_text

PROMOTED = 1000
"""Runs that one claim makes ready at most, of those that are due."""

LOCK = (
    "SELECT i.tenant_id, i.status, l.epoch, l.owner, b.started_at = i.started_at,"
    " s.signal_type, s.payload, i.output, i.error, NULL, r.state, r.waiting_for,"
    " r.waits_children, r.parent_id, r.block, r.by_parent, r.children, r.has_turn,"
    " r.key <> ''"
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


class SqliteClaims:
    """Starts and claims; see :class:`runtara_trio.store.tables.Tables`."""

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

    async def insert_runs(
        self, tenant_id: str, runs: Sequence[NewRun], parent: Parent | None = None
    ) -> list[Existing | None]:
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
                self._insert_run(tenant_id, run, self._now_us + number, parent)
                self.runs_changed = True
        if parent is not None:
            self.db.execute(
                "UPDATE runtara_trio_runs SET children = children + ? WHERE instance_id = ?",
                (existing.count(None), parent.instance_id),
            )
        return existing

    def _existing(self, instance_id: str) -> Existing:
        found = self.db.execute(
            "SELECT i.tenant_id, r.workflow, i.input, r.parent_id FROM instances i"
            " LEFT JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
            " WHERE i.instance_id = ?",
            (instance_id,),
        ).fetchone()
        return Existing(
            tenant_id=found[0], workflow=found[1], input=found[2] or b"", parent_id=found[3]
        )

    def _insert_run(
        self, tenant_id: str, run: NewRun, ready_us: int, parent: Parent | None
    ) -> None:
        now_ms = int(self.now * 1000)
        due = run.at_ms if run.at_ms is not None else now_ms + run.delay_ms
        waits = due > now_ms
        self.db.execute(
            "INSERT INTO runtara_trio_runs (instance_id, tenant_id, workflow, version, queue, key,"
            " priority, state, due_ms, ready_us, parent_id, block, depth)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                None if parent is None else parent.instance_id,
                None if parent is None else parent.block,
                0 if parent is None else parent.depth,
            ),
        )
        if run.trace is not None:
            self.db.execute(
                "INSERT INTO runtara_trio_traces (instance_id, started) VALUES (?, ?)",
                (run.instance_id, run.trace),
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
        self,
        queues: Sequence[str],
        workflows: Sequence[tuple[str, int]],
        tenant_ids: Sequence[str] | None,
        limit: int,
    ) -> list[str]:
        rows = self.db.execute(
            "SELECT instance_id, tenant_id, queue, workflow, version FROM runtara_trio_runs"
            " WHERE state = 'suspect' ORDER BY ready_us"
        ).fetchall()
        return [
            instance
            for instance, tenant, queue, workflow, version in rows
            if queue in queues and (workflow, version) in workflows
            if tenant_ids is None or tenant in tenant_ids
        ][:limit]

    async def strays(self) -> list[tuple[str, int]]:
        return []  # no answer is lost between a thread and its loop

    async def lock_ready(self, instance_ids: Sequence[str], *, suspect: bool) -> list[Ready]:
        found: list[Ready] = []
        for instance in instance_ids:
            row = self.db.execute(
                f"{LOCK}, r.workflow, r.version, i.input, i.attempt, r.recoveries,"
                f" i.started_at IS NOT NULL, b.started_at IS NULL, r.queue, r.key,"
                f" ? - r.ready_us{OF_INSTANCE} WHERE i.instance_id = ?",
                (self._now_us, instance),
            ).fetchone()
            found.append(ready_of(instance, row))
        return found

    async def take_runs(
        self, taken: Sequence[tuple[str, Holder | None]], placed: Collection[str]
    ) -> dict[str, int]:
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
            " waits_children = NULL, waits = 0, place = ?, has_turn = key <> ''"
            " WHERE instance_id = ?",
            [(instance in placed, instance) for instance in leases],
        )
        for dead in {one.owner for _, one in taken if one is not None}:
            dead_file = self.leases.bury(self.db, dead)
            if dead_file is not None:
                self.dead_files.append(dead_file)
        self.leased += leases.items()
        return leases
