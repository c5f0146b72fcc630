"""Instances that belong together, on SQLite; see ``answers/children.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...types import RunState, SignalType
from ..structs import Awaited, Placing, Row
from ..values import awaited_of, row_of
from .claims import LOCK, OF_INSTANCE
from .runs import SqliteRuns, as_json
from .schema import time_text

_BELOW = (
    "WITH RECURSIVE below (instance_id) AS (SELECT instance_id FROM runtara_trio_runs r"
    " WHERE r.parent_id = ?{first} UNION ALL SELECT r.instance_id FROM below"
    " CROSS JOIN runtara_trio_runs r ON r.parent_id = below.instance_id{each})"
    " SELECT instance_id FROM below"
)
_UNENDED = " AND r.ended IS NULL"
_FAILED = (
    " AND (SELECT i.status FROM instances i WHERE i.instance_id = r.instance_id)"
    " IN ('failed', 'cancelled')"
)


class SqliteChildren(SqliteRuns):
    """The part of the port that is about parents and children."""

    async def depth_of(self, instance_id: str) -> tuple[int, int]:
        found = self.db.execute(
            "SELECT depth, children FROM runtara_trio_runs WHERE instance_id = ?", (instance_id,)
        ).fetchone()
        if found is None:  # it is no run: nobody counts its children
            (had,) = self.db.execute(
                "SELECT count(*) FROM runtara_trio_runs WHERE parent_id = ?", (instance_id,)
            ).fetchone()
            return 0, had
        return found[0], found[1]

    async def lock_many(self, instance_ids: Iterable[str]) -> dict[str, Row]:
        rows = self.db.execute(
            f"{LOCK}, i.instance_id{OF_INSTANCE} WHERE i.instance_id IN"
            " (SELECT value FROM json_each(?))",
            (as_json(instance_ids),),
        ).fetchall()
        return {row[-1]: row_of(*row[:-1]) for row in rows}

    async def lock_runs(self, instance_ids: Iterable[str]) -> None:
        pass  # nobody else writes

    async def awaited_by(self, instance_ids: Iterable[str]) -> dict[str, Awaited]:
        rows = self.db.execute(
            "SELECT instance_id, waits_children FROM runtara_trio_runs"
            " WHERE instance_id IN (SELECT value FROM json_each(?))"
            " AND state IN ('waiting', 'timed') AND waits_children IS NOT NULL",
            (as_json(instance_ids),),
        ).fetchall()
        return {instance: found for instance, text in rows if (found := awaited_of(text))}

    async def is_there(self, instance_id: str, awaited: Awaited) -> bool:
        (found,) = self.db.execute(
            "SELECT EXISTS (SELECT 1 FROM runtara_trio_runs WHERE ended IS NOT NULL"
            " AND instance_id IN (SELECT value FROM json_each(?)))"
            " OR EXISTS (SELECT 1 FROM json_each(?) b WHERE NOT EXISTS (SELECT 1"
            " FROM runtara_trio_runs WHERE parent_id = ? AND block = b.value AND ended IS NULL))"
            " OR EXISTS (SELECT 1 FROM json_each(?) b CROSS JOIN runtara_trio_runs r"
            " ON r.parent_id = ? AND r.block = b.value AND r.ended IS NOT NULL"
            " JOIN instances i ON i.instance_id = r.instance_id"
            " WHERE i.status <> 'completed' AND NOT r.by_parent)",
            (
                as_json(awaited.children),
                as_json(awaited.blocks),
                instance_id,
                as_json(awaited.failing),
                instance_id,
            ),
        ).fetchone()
        return bool(found)

    async def unended_below(self, instance_id: str, block: str | None) -> list[str]:
        first = _UNENDED if block is None else f" AND r.block = ?{_UNENDED}"
        rows = self.db.execute(
            _BELOW.format(first=first, each=_UNENDED),
            (instance_id,) if block is None else (instance_id, block),
        ).fetchall()
        return [instance for (instance,) in rows]

    async def failed_below(self, instance_id: str) -> list[str]:
        rows = self.db.execute(_BELOW.format(first=_FAILED, each=_FAILED), (instance_id,))
        return [instance for (instance,) in rows.fetchall()]

    async def mark_by_parent(self, instance_id: str, block: str) -> None:
        self.db.execute(
            "UPDATE runtara_trio_runs SET by_parent = 1"
            " WHERE parent_id = ? AND block = ? AND ended IS NULL",
            (instance_id, block),
        )

    async def cancel_many(self, told: Sequence[str], ended: Sequence[str]) -> None:
        now = time_text(int(self.now))
        if told:
            self.db.executemany(
                "INSERT OR REPLACE INTO pending_signals"
                " (instance_id, signal_type, payload, created_at) VALUES (?, ?, x'', ?)",
                [(instance, SignalType.CANCEL.value, now) for instance in told],
            )
            self.signals_changed = True
        self.db.executemany(
            "UPDATE instances SET status = 'cancelled', finished_at = ?, sleep_until = NULL"
            " WHERE instance_id = ?",
            [(now, instance) for instance in ended],
        )
        self._note_termination(ended, "cancelled")
        for table in ("runtara_trio_leases", "pending_signals"):
            self.db.executemany(
                f"DELETE FROM {table} WHERE instance_id = ?", [(instance,) for instance in ended]
            )
        for instance in ended:
            await self.place_run(instance, Placing(state=RunState.ENDED))

    async def run_again(self, instance_ids: Sequence[str]) -> None:
        one_each = [(instance,) for instance in instance_ids]
        self.db.executemany(
            "UPDATE instances SET status = 'pending', attempt = 1, max_attempts = 3,"
            " finished_at = NULL, output = NULL, error = NULL WHERE instance_id = ?",
            one_each,
        )
        self.db.executemany("DELETE FROM pending_signals WHERE instance_id = ?", one_each)
        self.db.executemany(
            "UPDATE runtara_trio_runs SET by_parent = 0 WHERE instance_id = ?", one_each
        )
        for instance in instance_ids:
            await self.place_run(instance, Placing(state=RunState.READY, anew=True, forgives=True))
