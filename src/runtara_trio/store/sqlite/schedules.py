"""Schedules on SQLite."""

from __future__ import annotations

import msgspec

from ...types import ScheduleInfo
from .copies import SqliteCopies


class SqliteSchedules(SqliteCopies):
    """The part of the port that is about schedules."""

    async def schedule(self, name: str) -> ScheduleInfo | None:
        found = self.db.execute(
            "SELECT info FROM runtara_trio_schedules WHERE name = ?", (name,)
        ).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=ScheduleInfo)

    async def write_schedule(self, schedule: ScheduleInfo) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO runtara_trio_schedules (name, info) VALUES (?, ?)",
            (schedule.name, msgspec.json.encode(schedule).decode()),
        )

    async def remove_schedule(self, name: str) -> bool:
        return (
            self.db.execute("DELETE FROM runtara_trio_schedules WHERE name = ?", (name,)).rowcount
            == 1
        )

    async def schedules(self) -> list[ScheduleInfo]:
        rows = self.db.execute("SELECT info FROM runtara_trio_schedules ORDER BY name")
        return [msgspec.json.decode(info, type=ScheduleInfo) for (info,) in rows.fetchall()]
