"""Attributes of runs, and copies of instances, on SQLite."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...ids import WORKFLOW_TIMEOUT, deadline_id, signal_id
from .schema import started_text, time_text
from .signals import SqliteSignals


class SqliteCopies(SqliteSignals):
    """The part of the port that is about what an instance has besides its checkpoints."""

    async def set_attributes(
        self, instance_id: str, attributes: Mapping[str, str | int | float | bool]
    ) -> int:
        self.db.executemany(
            "INSERT OR REPLACE INTO runtara_trio_attributes (instance_id, name, value)"
            " VALUES (?, ?, ?)",
            [
                (instance_id, name, msgspec.json.encode(value).decode())
                for name, value in attributes.items()
            ],
        )
        (count,) = self.db.execute(
            "SELECT count(*) FROM runtara_trio_attributes WHERE instance_id = ?", (instance_id,)
        ).fetchone()
        return int(count)

    async def copy(
        self, instance_id: str, new_id: str, until: str | None, input: bytes | None
    ) -> bool:
        last: int | None = None
        if until is not None:
            (last,) = self.db.execute(
                "SELECT MAX(id) FROM checkpoints WHERE instance_id = ? AND checkpoint_id IN (?, ?)",
                (instance_id, until, signal_id(until)),
            ).fetchone()
            if last is None:
                return False
        self.db.execute(
            "INSERT INTO instances (instance_id, tenant_id, definition_version, status, input,"
            " created_at, started_at)"  # it has a past: its first run looks for what is stored
            " SELECT ?, tenant_id, definition_version, 'pending', COALESCE(?, input), ?, ?"
            " FROM instances WHERE instance_id = ?",
            (new_id, input, time_text(int(self.now)), started_text(self.now), instance_id),
        )
        self.db.execute(
            "INSERT INTO runtara_trio_runs (instance_id, tenant_id, workflow, version, queue, key,"
            " priority, state, ready_us) SELECT ?, tenant_id, workflow, version, queue, key,"
            " priority, 'ready', ? FROM runtara_trio_runs WHERE instance_id = ?",
            (new_id, self._now_us, instance_id),
        )
        self.db.execute(
            "INSERT INTO runtara_trio_attributes (instance_id, name, value)"
            " SELECT ?, name, value FROM runtara_trio_attributes WHERE instance_id = ?",
            (new_id, instance_id),
        )
        self.db.execute(
            "INSERT INTO checkpoints (instance_id, checkpoint_id, state, created_at)"
            " SELECT ?, checkpoint_id, state, created_at FROM checkpoints WHERE instance_id = ?"
            " AND (? IS NULL OR id <= ?) AND checkpoint_id <> ? ORDER BY id",
            (new_id, instance_id, last, last, deadline_id(WORKFLOW_TIMEOUT)),
        )
        self.runs_changed = True
        return True
