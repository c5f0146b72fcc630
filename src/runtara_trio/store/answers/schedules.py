"""What is answered about schedules: a slot is run by whoever comes first, once."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from ...backend import Handlers
from ...errors import SdkError, SignalRefused
from ...messages import (
    Done,
    Fired,
    FireSchedule,
    ListSchedules,
    NewRun,
    PauseSchedule,
    RemoveSchedule,
    Schedules,
    SetSchedules,
)
from ...types import ScheduleInfo, SignalType
from ..tables import Tables
from . import signals


async def set_schedules(tx: Tables, message: SetSchedules) -> Done:
    for new in sorted(message.schedules, key=lambda one: one.name):  # all lock in one order
        old = await tx.schedule(new.name)
        if old is not None:
            new = msgspec.structs.replace(
                new, paused=old.paused, skipped=old.skipped, last_id=old.last_id
            )
            if _line(old) == _line(new):
                new = msgspec.structs.replace(new, next_ms=old.next_ms)
        await tx.write_schedule(new)
    return Done()


def _line(schedule: ScheduleInfo) -> tuple[object, ...]:
    """What says when its slots are."""
    return schedule.cron, schedule.every, schedule.timezone


async def fire(tx: Tables, message: FireSchedule) -> Fired:
    schedule = await tx.schedule(message.name)
    if schedule is None or schedule.paused or schedule.next_ms != message.due_ms:
        return Fired(done=False)
    started: list[str] = []
    taken: list[str] = []
    skipped, last = 0, schedule.last_id
    for run in message.runs:
        if not await _may_run(tx, schedule, last):
            skipped += 1
            continue
        if await _is_taken(tx, schedule, run):
            taken.append(run.instance_id)
            continue
        started.append(run.instance_id)
        last = run.instance_id
    await tx.write_schedule(
        msgspec.structs.replace(
            schedule,
            next_ms=message.next_ms,
            last_id=last,
            skipped=schedule.skipped + message.skipped + skipped,
        )
    )
    return Fired(done=True, started=tuple(started), skipped=skipped, taken=tuple(taken))


async def _may_run(tx: Tables, schedule: ScheduleInfo, last: str | None) -> bool:
    """Whether a slot may be run beside the run of the last one."""
    if schedule.overlap == "allow" or last is None:
        return True
    row = await tx.lock(last)
    if row is None or row.status.finished:
        return True
    if schedule.overlap == "skip":
        return False
    with suppress(SignalRefused):
        await signals.signalled(tx, last, SignalType.CANCEL, schedule.name.encode(), row)
    return True


async def _is_taken(tx: Tables, schedule: ScheduleInfo, run: NewRun) -> bool:
    """Start the run of a slot. Whether its id is another workflow's."""
    (existing,) = await tx.insert_runs(schedule.tenant_id, [run])
    return existing is not None and (existing.tenant_id, existing.workflow) != (
        schedule.tenant_id,
        run.workflow,
    )


async def pause_schedule(tx: Tables, message: PauseSchedule) -> Done:
    schedule = await _known(tx, message.name)
    next_ms = schedule.next_ms if message.next_ms is None else message.next_ms
    await tx.write_schedule(
        msgspec.structs.replace(schedule, paused=message.paused, next_ms=next_ms)
    )
    return Done()


async def remove_schedule(tx: Tables, message: RemoveSchedule) -> Done:
    if not await tx.remove_schedule(message.name):
        raise _unknown(message.name)
    return Done()


async def _known(tx: Tables, name: str) -> ScheduleInfo:
    schedule = await tx.schedule(name)
    if schedule is None:
        raise _unknown(name)
    return schedule


def _unknown(name: str) -> SdkError:
    return SdkError(f"there is no schedule {name!r}; 'schedules list' shows those there are")


async def list_schedules(tx: Tables, message: ListSchedules) -> Schedules:
    living = await tx.living()
    declared = {name for one in await tx.workers() if one.owner in living for name in one.schedules}
    return Schedules(
        schedules=tuple(
            msgspec.structs.replace(one, declared=one.name in declared)
            for one in await tx.schedules()
        )
    )


ANSWERS: Handlers[Tables] = {
    SetSchedules: set_schedules,
    FireSchedule: fire,
    PauseSchedule: pause_schedule,
    RemoveSchedule: remove_schedule,
    ListSchedules: list_schedules,
}
