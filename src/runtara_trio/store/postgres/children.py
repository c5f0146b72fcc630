"""Instances that belong together, on PostgreSQL; see ``answers/children.py``.

Each operation is one statement, however many instances it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...types import RunState
from ..structs import Awaited, Placing, Row
from ..values import awaited_of
from . import rows
from .runs import PostgresRuns

_BELOW = (
    "WITH RECURSIVE below (instance_id) AS (SELECT instance_id FROM runtara_trio_runs r"
    " WHERE r.parent_id = $1{first} UNION ALL SELECT r.instance_id FROM below"
    " JOIN runtara_trio_runs r ON r.parent_id = below.instance_id{each})"
    " SELECT instance_id FROM below"
)
_UNENDED = " AND r.ended IS NULL"
_FAILED = (
    " AND (SELECT i.status FROM instances i WHERE i.instance_id = r.instance_id)"
    " IN ('failed', 'cancelled')"
)
_CANCEL = """
WITH told AS (
    INSERT INTO pending_signals (instance_id, signal_type, payload)
    SELECT t, 'cancel', '' FROM unnest($1::text[]) AS t ORDER BY t
    ON CONFLICT (instance_id) DO UPDATE SET signal_type = excluded.signal_type,
        payload = excluded.payload, created_at = now(), acknowledged_at = NULL
), freed AS (
    DELETE FROM runtara_trio_leases WHERE instance_id = ANY ($2::text[])
), dropped AS (
    DELETE FROM pending_signals WHERE instance_id = ANY ($2::text[])
)
UPDATE instances SET status = 'cancelled', finished_at = now(), sleep_until = NULL
WHERE instance_id = ANY ($2::text[])
"""
_AGAIN = """
WITH dropped AS (
    DELETE FROM pending_signals WHERE instance_id = ANY ($1::text[])
), mine AS (
    UPDATE runtara_trio_runs SET by_parent = false WHERE instance_id = ANY ($1::text[])
)
UPDATE instances SET status = 'pending', attempt = 1, max_attempts = 3, finished_at = NULL,
    output = NULL, error = NULL
WHERE instance_id = ANY ($1::text[])
"""


class PostgresChildren(PostgresRuns):
    """The part of the port that is about parents and children."""

    announces: bool
    """Once it has committed, those who listen for signals are told."""

    async def depth_of(self, instance_id: str) -> tuple[int, int]:
        found = await self._run(
            "SELECT depth, children FROM runtara_trio_runs WHERE instance_id = $1", instance_id
        )
        if not found:  # it is no run: nobody counts its children
            found = await self._run(
                "SELECT 0, count(*) FROM runtara_trio_runs WHERE parent_id = $1", instance_id
            )
        ((depth, had),) = found
        return depth, had

    async def lock_many(self, instance_ids: Iterable[str]) -> dict[str, Row]:
        locked = await rows.lock(self._connection, instance_ids, runs=self._has_runs)
        return {instance: row for instance, row in locked.items() if row is not None}

    async def lock_runs(self, instance_ids: Iterable[str]) -> None:
        self._later(
            "SELECT 1 FROM runtara_trio_runs WHERE instance_id = ANY ($1::text[])"
            " ORDER BY instance_id FOR NO KEY UPDATE",
            sorted(set(instance_ids)),
        )

    async def awaited_by(self, instance_ids: Iterable[str]) -> dict[str, Awaited]:
        found = await self._run(
            "SELECT instance_id, waits_children FROM runtara_trio_runs"
            " WHERE instance_id = ANY ($1::text[]) AND state IN ('waiting', 'timed')"
            " AND waits_children IS NOT NULL",
            list(instance_ids),
        )
        return {instance: awaited for instance, text in found if (awaited := awaited_of(text))}

    async def is_there(self, instance_id: str, awaited: Awaited) -> bool:
        ((found,),) = await self._run(
            "SELECT EXISTS (SELECT 1 FROM runtara_trio_runs WHERE ended IS NOT NULL"
            " AND instance_id = ANY ($2::text[]))"
            " OR EXISTS (SELECT 1 FROM unnest($3::text[]) AS b (block) WHERE NOT EXISTS (SELECT 1"
            " FROM runtara_trio_runs r WHERE r.parent_id = $1 AND r.block = b.block"
            " AND r.ended IS NULL))"
            " OR EXISTS (SELECT 1 FROM runtara_trio_runs r JOIN instances i USING (instance_id)"
            " WHERE r.parent_id = $1 AND r.block = ANY ($4::text[]) AND r.ended IS NOT NULL"
            " AND i.status <> 'completed' AND NOT r.by_parent)",
            instance_id,
            list(awaited.children),
            list(awaited.blocks),
            list(awaited.failing),
        )
        return bool(found)

    async def unended_below(self, instance_id: str, block: str | None) -> list[str]:
        if not self._has_runs:
            return []
        first = _UNENDED if block is None else f" AND r.block = $2{_UNENDED}"
        found = await self._run(
            _BELOW.format(first=first, each=_UNENDED),
            instance_id,
            *(() if block is None else (block,)),
        )
        return [instance for (instance,) in found]

    async def failed_below(self, instance_id: str) -> list[str]:
        found = await self._run(_BELOW.format(first=_FAILED, each=_FAILED), instance_id)
        return [instance for (instance,) in found]

    async def mark_by_parent(self, instance_id: str, block: str) -> None:
        self._later(
            "UPDATE runtara_trio_runs SET by_parent = true WHERE instance_id IN (SELECT instance_id"
            " FROM runtara_trio_runs WHERE parent_id = $1 AND block = $2 AND ended IS NULL"
            " ORDER BY instance_id FOR NO KEY UPDATE)",
            instance_id,
            block,
        )

    async def cancel_many(self, told: Sequence[str], ended: Sequence[str]) -> None:
        self._later(_CANCEL, list(told), list(ended))
        self._note_terminations([(one, "cancelled", None) for one in ended])
        self.announces = self.announces or bool(told)
        await self.place_runs([(one, Placing(state=RunState.ENDED)) for one in ended])

    async def run_again(self, instance_ids: Sequence[str]) -> None:
        self._later(_AGAIN, list(instance_ids))
        placing = Placing(state=RunState.READY, anew=True, forgives=True)
        await self.place_runs([(one, placing) for one in instance_ids])
