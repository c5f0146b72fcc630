"""Runs of workflows on SQLite: placing and recovering them, workers, ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...messages import Ends, EndsSince, LookForWork, Result, Work
from ...types import RunState, WorkerInfo
from ..structs import Orphan, Placing
from ..values import awaited_text, orphan_of, result_of, waiting_text
from .claims import SqliteClaims
from .file import StoreFile
from .schema import time_text


class SqliteRuns(SqliteClaims):
    """The part of the port that is about runs; see :class:`runtara_trio.store.tables.Tables`."""

    _file: StoreFile

    def _note_termination(
        self, instance_ids: Iterable[str], reason: str | None, exit_code: int | None = None
    ) -> None:
        """Why instances do not run any more, where there are columns for it."""
        if self._file.tracks_ends:
            self.db.executemany(
                "UPDATE instances SET exit_code = ?, termination_reason = COALESCE(?, CASE WHEN"
                " status = 'suspended' AND sleep_until > ? THEN 'sleeping' END)"
                " WHERE instance_id = ?",
                [(exit_code, reason, time_text(int(self.now)), one) for one in instance_ids],
            )

    # ---- placing

    async def place_run(self, instance_id: str, placing: Placing) -> None:
        ended, due = placing.state is RunState.ENDED, placing.due_ms
        if placing.after_ms is not None:
            due = int(self.now * 1000) + placing.after_ms
        self.db.execute(
            "UPDATE runtara_trio_runs SET state = ?, due_ms = ?, waiting_for = ?,"
            " waits_children = ?, waits = 0, place = 0, wants = 0,"
            " ready_us = CASE WHEN ? THEN COALESCE(? * 1000, ?) ELSE ready_us END,"
            " recoveries = CASE WHEN ? THEN 0 ELSE recoveries END, ended = CASE WHEN ? THEN"
            " (SELECT ended + 1 FROM runtara_trio_runs_schema) END, ended_ms = ?"
            " WHERE instance_id = ?",
            (
                placing.state.value,
                due,
                waiting_text(placing.waiting_for),
                awaited_text(placing.awaited),
                placing.anew,
                due,
                self._now_us,
                placing.forgives,
                ended,
                int(self.now * 1000) if ended else None,
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
            "SELECT r.instance_id, r.waits, r.recoveries, r.progress,"
            " COALESCE((SELECT MAX(c.id) FROM checkpoints c"
            " WHERE c.instance_id = r.instance_id), 0), i.checkpoint_id"
            " FROM runtara_trio_leases l"
            " JOIN runtara_trio_runs r ON r.instance_id = l.instance_id"
            " JOIN instances i ON i.instance_id = l.instance_id"
            " WHERE l.owner = ? AND r.state = 'running' LIMIT ?",
            (owner, limit),
        ).fetchall()
        return [orphan_of(row) for row in rows]

    async def recover(
        self, orphans: Sequence[tuple[Orphan, RunState, int]], reasons: dict[str, str]
    ) -> None:
        self.db.executemany(
            "UPDATE runtara_trio_runs SET state = ?, recoveries = ?, progress = ?, waits = 0,"
            " place = 0, wants = 0"
            " WHERE instance_id = ?",
            [
                (state.value, recoveries, orphan.newest, orphan.instance_id)
                for orphan, state, recoveries in orphans
            ],
        )
        self._fence([orphan.instance_id for orphan, _, _ in orphans])
        for instance, reason in reasons.items():
            self.db.execute(
                "UPDATE instances SET status = 'suspended' WHERE instance_id = ?", (instance,)
            )
            self._note_termination([instance], "crashed")
            self.db.execute("DELETE FROM runtara_trio_leases WHERE instance_id = ?", (instance,))
            self.db.execute(
                "INSERT INTO instance_events (instance_id, event_type, payload, created_at)"
                " VALUES (?, 'suspended', ?, ?)",
                (instance, reason.encode(), time_text(int(self.now))),
            )
        self.runs_changed = True

    def _fence(self, instance_ids: Sequence[str]) -> None:
        """Give leases to nobody, under new numbers: who had them may come back."""
        ids = as_json(instance_ids)
        which = "instance_id IN (SELECT value FROM json_each(?))"
        for (owner,) in self.db.execute(
            f"SELECT DISTINCT owner FROM runtara_trio_leases WHERE {which}", (ids,)
        ).fetchall():
            dead_file = self.leases.bury(self.db, owner)
            if dead_file is not None:
                self.dead_files.append(dead_file)
        epoch = self.leases.next_epochs(self.db, len(instance_ids))
        self.db.executemany(
            "UPDATE runtara_trio_leases SET owner = '', epoch = ? WHERE instance_id = ?",
            [(epoch + number, instance) for number, instance in enumerate(instance_ids)],
        )

    async def mark_runs(self, waiting: Sequence[str], working: Sequence[str]) -> None:
        frees = (
            waiting
            and self.db.execute(
                "SELECT 1 FROM json_each(?) j JOIN runtara_trio_runs r ON r.instance_id = j.value"
                " WHERE r.place = 1 LIMIT 1",
                (as_json(waiting),),
            ).fetchone()
        )
        self.runs_changed = self.runs_changed or bool(frees)
        self.db.executemany(
            "UPDATE runtara_trio_runs SET waits = ?, place = ?, wants = 0"
            " WHERE instance_id = ? AND EXISTS"
            " (SELECT 1 FROM runtara_trio_leases l WHERE l.instance_id ="
            " runtara_trio_runs.instance_id AND l.owner = ?)",
            [
                (waits, not waits, instance, self.leases.owner)
                for waits, instances in ((1, waiting), (0, working))
                for instance in instances
            ],
        )

    # ---- looking, workers, ends

    async def look(self, message: LookForWork) -> Work:
        queues, workflows = as_json(message.queues), as_json(message.workflows)
        rows = self.db.execute(
            "WITH RECURSIVE leasing (owner) AS (SELECT MIN(owner) FROM runtara_trio_leases"
            " UNION ALL SELECT (SELECT MIN(l.owner) FROM runtara_trio_leases l"
            " WHERE l.owner > leasing.owner) FROM leasing WHERE leasing.owner IS NOT NULL)"
            " SELECT leasing.owner, o.holder, o.renewed_ms, o.lease_ms,"
            # CROSS: in this order; else all that is ready of somebody else's would be read
            " EXISTS (SELECT 1 FROM json_each(?1) q CROSS JOIN json_each(?2) w"
            " CROSS JOIN runtara_trio_runs r"
            " WHERE r.state = 'ready' AND r.queue = q.value"
            " AND r.workflow = json_extract(w.value, '$[0]')"
            " AND r.version = json_extract(w.value, '$[1]')),"
            " EXISTS (SELECT 1 FROM runtara_trio_runs r WHERE r.state = 'suspect'"
            " AND r.queue IN (SELECT value FROM json_each(?1)) AND EXISTS (SELECT 1 FROM"
            " json_each(?2) w WHERE r.workflow = json_extract(w.value, '$[0]')"
            " AND r.version = json_extract(w.value, '$[1]'))"
            " AND (?3 = 'null' OR r.tenant_id IN (SELECT value FROM json_each(?3)))),"
            " (SELECT MIN(due_ms) FROM runtara_trio_runs WHERE state = 'timed')"
            ", EXISTS (SELECT 1 FROM runtara_trio_leases l JOIN runtara_trio_runs r"
            " ON r.instance_id = l.instance_id WHERE l.owner = leasing.owner"
            " AND r.state = 'running')"
            " FROM leasing LEFT JOIN runtara_trio_owners o ON o.owner = leasing.owner",
            (queues, workflows, msgspec.json.encode(message.tenant_ids).decode()),
        ).fetchall()
        dead = [
            owner
            for owner, who, renewed_ms, lease_ms, *_, has_runs in rows
            if owner is not None
            and has_runs
            and not self.leases.judge(owner, who, renewed_ms, lease_ms, now=self.now).alive
        ]
        *_, ready, suspect, due_ms, _ = rows[-1]
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
            "SELECT i.instance_id, i.status, i.tenant_id, r.workflow, i.output, i.error, r.ended,"
            " r.ended_ms, r.by_parent"
            " FROM json_each(?) j JOIN instances i ON i.instance_id = j.value"
            " LEFT JOIN runtara_trio_runs r ON r.instance_id = i.instance_id",
            (as_json(instance_ids),),
        )
        return {row[0]: result_of(*row[1:]) for row in rows.fetchall()}


def as_json(values: Iterable[Any]) -> str:
    return msgspec.json.encode(list(values)).decode()
