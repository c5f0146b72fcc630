"""When the slots of a schedule are, and what their instances are called.

A slot in an hour that does not exist is the next moment that does; in the hour that comes twice a
line with a fixed hour has one slot, and one whose hour is a wildcard has both, as with Debian's
cron. ``cronsim`` reads the line; it is asked for local times alone, for its own answers about zones
miss moments where the clock is put back by half an hour.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from ..types import ScheduleInfo


def slots(schedule: ScheduleInfo, after_ms: int) -> Iterator[int]:
    """The slots behind a time, Unix ms; without an end where the line has none."""
    if schedule.every is not None:
        every_ms = schedule.every * 1000
        slot = (after_ms // every_ms + 1) * every_ms
        while True:
            yield slot
            slot += every_ms
    assert schedule.cron is not None
    yield from _of_line(schedule.cron, ZoneInfo(schedule.timezone), after_ms)


def _of_line(line: str, zone: ZoneInfo, after_ms: int) -> Iterator[int]:
    """The slots of a line: its local times one after the other, and the moments that they are.

    Where a clock is put back, moments of earlier local times come behind those of later ones, so
    that they wait until no earlier one can come.
    """
    begin = datetime.fromtimestamp(after_ms / 1000, zone).replace(tzinfo=None) - FARTHEST
    times = CronSim(line, begin)
    fixed_hour = not times.parts[-4].startswith("*")
    waiting: list[int] = []
    last = after_ms
    for local in times:
        for slot in _moments(local, zone, fixed_hour=fixed_hour):
            heapq.heappush(waiting, slot)
        settled = _ms((local - FARTHEST).replace(tzinfo=zone))
        while waiting and waiting[0] <= settled:
            slot = heapq.heappop(waiting)
            if slot > last:
                yield slot
                last = slot
    for slot in sorted(set(waiting)):
        if slot > last:
            yield slot


def _moments(local: datetime, zone: ZoneInfo, *, fixed_hour: bool) -> list[int]:
    """When it is a local time: once, twice where the clock is put back, or never."""
    first, second = local.replace(tzinfo=zone), local.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        return [_ms(first)]
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local:  # it comes twice
        return [_ms(first)] if fixed_hour else [_ms(first), _ms(second)]
    if not fixed_hour:
        return []
    while first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        local += timedelta(minutes=1)
        first = local.replace(tzinfo=zone)
    return [_ms(first)]


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


FARTHEST = timedelta(hours=3)
"""How far a clock is put back or forward at most."""


def next_slot(schedule: ScheduleInfo, after_ms: int) -> int:
    """The first slot behind a time, Unix ms."""
    return next(slots(schedule, after_ms), NEVER_MS)


NEVER_MS = 253402300799000
"""The end of the year 9999: the next slot of a line that has none."""


def moment(schedule: ScheduleInfo, slot_ms: int) -> datetime:
    """A slot, in the schedule's time zone."""
    zone = UTC if schedule.timezone == "UTC" else ZoneInfo(schedule.timezone)
    return datetime.fromtimestamp(slot_ms / 1000, zone)


def slot_id(schedule: ScheduleInfo, slot_ms: int) -> str:
    """The id of a slot's instance: ``name@2026-03-29T03:00:00+02:00``."""
    return f"{schedule.name}@{moment(schedule, slot_ms).isoformat()}"
