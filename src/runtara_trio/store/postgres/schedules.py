"""Schedules on PostgreSQL."""

from __future__ import annotations

import msgspec

from ...types import ScheduleInfo
from .copies import PostgresCopies


class PostgresSchedules(PostgresCopies):
    """The part of the port that is about schedules."""

    async def schedule(self, name: str) -> ScheduleInfo | None:
        found = await self._run(
            "SELECT info FROM runtara_trio_schedules WHERE name = $1 FOR NO KEY UPDATE", name
        )
        return msgspec.json.decode(found[0][0], type=ScheduleInfo) if found else None

    async def write_schedule(self, schedule: ScheduleInfo) -> None:
        self._later(
            "INSERT INTO runtara_trio_schedules (name, info) VALUES ($1, $2)"
            " ON CONFLICT (name) DO UPDATE SET info = excluded.info",
            schedule.name,
            msgspec.json.encode(schedule).decode(),
        )

    async def remove_schedule(self, name: str) -> bool:
        return bool(
            await self._run("DELETE FROM runtara_trio_schedules WHERE name = $1 RETURNING 1", name)
        )

    async def schedules(self) -> list[ScheduleInfo]:
        if not self._has_runs:
            return []
        found = await self._run("SELECT info FROM runtara_trio_schedules ORDER BY name")
        return [msgspec.json.decode(info, type=ScheduleInfo) for (info,) in found]
