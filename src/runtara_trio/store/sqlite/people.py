"""What concerns people on SQLite: waits that they are to answer, and what they have done."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...messages import AuditPage, ListAudit, ListOpenSteps, ListWaits, OpenSteps, Waits
from ..noted import audit_page_of, open_steps_of, waits_of
from .history import SqliteHistory

_WAITS = """
SELECT s.started_ms, s.instance_id, s.step, i.tenant_id, r.workflow, s.asks, (
    SELECT min(started_ms) FROM runtara_trio_steps
    WHERE instance_id = s.instance_id AND step = s.step)
FROM runtara_trio_steps s INDEXED BY runtara_trio_open_waits
JOIN instances i ON i.instance_id = s.instance_id
LEFT JOIN runtara_trio_runs r ON r.instance_id = s.instance_id
WHERE s.kind = 'signal' AND (s.outcome IS NULL OR s.outcome = 'unloaded')
    AND i.status IN ('running', 'suspended', 'pending')
    AND NOT EXISTS (SELECT 1 FROM pending_custom_signals p
        WHERE p.instance_id = s.instance_id AND p.checkpoint_id = s.step)
    AND (s.started_ms, s.instance_id, s.step) > (?, ?, ?)
ORDER BY s.started_ms, s.instance_id, s.step LIMIT ?
"""
_OPEN = (
    "SELECT s.instance_id, l.epoch, s.started_ms, s.step, s.run, s.kind, s.worker, s.parent,"
    " s.started_ms, s.ended_ms, s.outcome, s.attempts, s.summary, s.asks FROM json_each(?) j"
    " CROSS JOIN runtara_trio_steps s INDEXED BY runtara_trio_current_steps_of"
    " ON s.instance_id = j.value"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = s.instance_id AND l.owner <> ''"
    " WHERE s.outcome IS NULL OR s.outcome = 'unloaded' ORDER BY s.started_ms, s.step LIMIT ?"
)
_AUDIT = (
    "SELECT id, at_ms, who, what, instance_id, detail FROM runtara_trio_audit"
    " WHERE id < ?{} ORDER BY id DESC LIMIT ?"
)
_NEWEST = 2**63 - 1


class SqlitePeople(SqliteHistory):
    """The part of the port that is about people."""

    async def open_steps_of(self, message: ListOpenSteps) -> OpenSteps:
        ids = msgspec.json.encode(message.instance_ids).decode()
        return open_steps_of(self.db.execute(_OPEN, (ids, message.limit)).fetchall())

    async def read_waits(self, message: ListWaits) -> Waits:
        found = self.db.execute(_WAITS, (*message.after, message.limit + 1)).fetchall()
        return waits_of(found, message.limit)

    async def write_audit(
        self, who: str, what: str, instance_ids: Sequence[str | None], detail: str | None
    ) -> None:
        now_ms = int(self.now * 1000)
        self.db.executemany(
            "INSERT INTO runtara_trio_audit (at_ms, who, what, instance_id, detail)"
            " VALUES (?, ?, ?, ?, ?)",
            [(now_ms, who, what, instance, detail) for instance in instance_ids],
        )

    async def read_audit(self, message: ListAudit) -> AuditPage:
        before = _NEWEST if message.before is None else message.before
        of = () if message.instance_id is None else (message.instance_id,)
        statement = _AUDIT.format(" AND instance_id = ?" if of else "")
        found = self.db.execute(statement, (before, *of, message.limit + 1)).fetchall()
        return audit_page_of(found, message.limit)
