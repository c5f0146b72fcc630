"""What concerns people on PostgreSQL: waits that they are to answer, and what they have done."""

from __future__ import annotations

from collections.abc import Sequence

from ...messages import AuditPage, ListAudit, ListOpenSteps, ListWaits, OpenSteps, Waits
from ..noted import audit_page_of, open_steps_of, waits_of
from .history import PostgresHistory

_WAITS = """
SELECT s.started_ms, s.instance_id, s.step, i.tenant_id, r.workflow, s.asks, (
    SELECT min(started_ms) FROM runtara_trio_steps
    WHERE instance_id = s.instance_id AND step = s.step)
FROM runtara_trio_steps s JOIN instances i USING (instance_id)
LEFT JOIN runtara_trio_runs r USING (instance_id)
WHERE s.kind = 'signal' AND (s.outcome IS NULL OR s.outcome = 'unloaded')
    AND i.status IN ('running', 'suspended', 'pending')
    AND NOT EXISTS (SELECT 1 FROM pending_checkpoint_signals p
        WHERE p.instance_id = s.instance_id AND p.checkpoint_id = s.step)
    AND (s.started_ms, s.instance_id, s.step) > ($1::bigint, $2::text, $3::text)
ORDER BY s.started_ms, s.instance_id, s.step LIMIT $4::bigint
"""
_OPEN = (
    "SELECT s.instance_id, l.epoch, s.started_ms, s.step, s.run, s.kind, s.worker, s.parent,"
    " s.started_ms, s.ended_ms, s.outcome, s.attempts, s.summary, s.asks FROM runtara_trio_steps s"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = s.instance_id AND l.owner <> ''"
    " WHERE s.instance_id = ANY ($1::text[]) AND (outcome IS NULL OR outcome = 'unloaded')"
    " ORDER BY s.started_ms, step LIMIT $2::bigint"
)
_NOTE = (
    "INSERT INTO runtara_trio_audit (at_ms, who, what, instance_id, detail)"
    " SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $1::text, $2::text,"
    " NULLIF(one, ''), NULLIF($4::text, '') FROM unnest($3::text[]) AS one"
)
_AUDIT = (
    "SELECT id, at_ms, who, what, instance_id, detail FROM runtara_trio_audit"
    " WHERE id < $1::bigint{} ORDER BY id DESC LIMIT $2::bigint"
)
_NEWEST = 2**63 - 1


class PostgresPeople(PostgresHistory):
    """The part of the port that is about people."""

    async def open_steps_of(self, message: ListOpenSteps) -> OpenSteps:
        if not self._has_runs:
            return OpenSteps(steps=())
        ids = list(message.instance_ids)
        return open_steps_of(await self._connection.run(_OPEN, ids, message.limit))

    async def read_waits(self, message: ListWaits) -> Waits:
        if not self._has_runs:
            return Waits(waits=(), next=None)
        found = await self._connection.run(_WAITS, *message.after, message.limit + 1)
        return waits_of(found, message.limit)

    async def write_audit(
        self, who: str, what: str, instance_ids: Sequence[str | None], detail: str | None
    ) -> None:
        if self._has_runs:
            self._later(_NOTE, who, what, [one or "" for one in instance_ids], detail or "")

    async def read_audit(self, message: ListAudit) -> AuditPage:
        if not self._has_runs:
            return AuditPage(records=(), next=None)
        before = _NEWEST if message.before is None else message.before
        of = () if message.instance_id is None else (message.instance_id,)
        statement = _AUDIT.format(" AND instance_id = $3::text" if of else "")
        found = await self._connection.run(statement, before, message.limit + 1, *of)
        return audit_page_of(found, message.limit)
