"""Schedules: workflows that are started by the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from ..clock import Seconds, check_seconds
from ..codec import Codec, Place, resealed, reveal
from ..errors import ConfigError
from ..ids import check_name_of, check_tenant_id
from ..messages import NewRun
from ..types import ScheduleInfo
from .slots import next_slot, slot_id
from .starts import Start, check_start, made
from .workflow import AnyWorkflow

LONGEST_NAME = 400
"""Bytes of a schedule's name: behind it stands the time of a slot."""

OVERLAPS = ("allow", "skip", "cancel")


class Schedule(msgspec.Struct, frozen=True):
    """A workflow that is started by the clock; for :func:`open_worker` and
    :meth:`Client.set_schedule`.

    The instance of a slot is ``<name>@<time of the slot>``; whoever of any number of workers comes
    first starts it, once.
    """

    name: str
    workflow: AnyWorkflow | str
    args: tuple[Any, ...] = ()
    cron: str | None = None
    """A line of cron: minute, hour, day, month, weekday. Or ``every``."""
    every: Seconds | None = None
    """Whole seconds, or a ``timedelta``, counted from the Unix epoch."""
    timezone: str = "UTC"
    """In which the line is read, as ``Europe/Berlin``."""
    overlap: Literal["allow", "skip", "cancel"] = "allow"
    """What a slot does while the run of the last one has not ended: it is run beside it, it is
    skipped, or it cancels that."""
    catch_up: Seconds = 3600.0
    """Slots that were missed while no worker lived are run if they are younger than so many
    seconds, the oldest first. One is missed after ten seconds: until then it is run in any case."""
    queue: str | None = None
    """None: the workflow's."""
    version: int | None = None
    """None: the workflow's; by name, 1."""
    tenant_id: str | None = None
    """Required."""


def stored(schedule: Schedule, codec: Codec, now: float) -> ScheduleInfo:
    """A schedule as it is stored, its next slot behind now.

    Raises:
      ConfigError: an invalid value; it names the value and the remedy.
      TypeError, CodecError: of the arguments.
    """
    if not isinstance(schedule, Schedule):
        raise ConfigError(f"a schedule must be a Schedule(name, workflow, ...), not {schedule!r}")
    name = check_name_of("the name of a schedule", schedule.name)
    if len(name.encode()) > LONGEST_NAME:
        raise ConfigError(
            f"the name of the schedule {name[:40]!r}... is too long; at most {LONGEST_NAME} bytes"
        )
    check_start(schedule.workflow, "attach")
    if schedule.tenant_id is None:
        raise ConfigError(f"the schedule {name!r} needs tenant_id=...: whose instances it starts")
    if (schedule.cron is None) == (schedule.every is None):
        raise ConfigError(f"give the schedule {name!r} either cron= or every=")
    if schedule.overlap not in OVERLAPS:
        raise ConfigError(
            f"overlap of the schedule {name!r} must be one of {', '.join(OVERLAPS)}, not "
            f"{schedule.overlap!r}"
        )
    start: Start[Any] = Start(args=tuple(schedule.args), id="x", queue=schedule.queue)
    run = made(schedule.workflow, start, version=schedule.version, codec=codec, place=_place(name))
    info = ScheduleInfo(
        name=name,
        tenant_id=check_tenant_id(schedule.tenant_id),
        workflow=run.workflow,
        version=run.version,
        queue=run.queue,
        input=run.input,
        cron=None if schedule.cron is None else _check_line(name, schedule.cron),
        every=None if schedule.every is None else _check_every(name, schedule.every),
        timezone=_check_zone(name, schedule.timezone),
        overlap=schedule.overlap,
        catch_up=check_seconds(f"catch_up of the schedule {name!r}", schedule.catch_up),
        next_ms=0,
    )
    return msgspec.structs.replace(info, next_ms=next_slot(info, int(now * 1000)))


def slot_run(schedule: ScheduleInfo, slot_ms: int, codec: Codec) -> NewRun:
    """The run of a slot. Raises CodecError: its arguments were stored by another codec."""
    instance_id = slot_id(schedule, slot_ms)
    return NewRun(
        instance_id=instance_id,
        workflow=schedule.workflow,
        version=schedule.version,
        queue=schedule.queue,
        input=resealed(codec, schedule.input, _place(schedule.name), Place(instance_id, "input")),
    )


def revealed(schedule: ScheduleInfo, codec: Codec) -> ScheduleInfo:
    """A stored schedule, for people."""
    data = reveal(codec, _place(schedule.name), schedule.input)
    return msgspec.structs.replace(schedule, input=data)


def _place(name: str) -> Place:
    return Place("", "schedule", name)


def _check_line(name: str, line: object) -> str:
    if not isinstance(line, str):
        raise ConfigError(f"cron of the schedule {name!r} must be a line of cron, not {line!r}")
    try:
        next(CronSim(line, datetime.now(UTC)))
    except CronSimError as exc:
        raise ConfigError(
            f"cron of the schedule {name!r}, {line!r}, is invalid: {exc}; it has five parts: "
            "minute, hour, day, month, weekday"
        ) from exc
    except StopIteration as exc:
        raise ConfigError(f"cron of the schedule {name!r}, {line!r}, has no slot at all") from exc
    return line


def _check_every(name: str, every: Seconds) -> int:
    seconds = check_seconds(f"every of the schedule {name!r}", every, positive=True)
    if seconds != int(seconds):
        raise ConfigError(f"every of the schedule {name!r} must be whole seconds, not {every!r}")
    return int(seconds)


def _check_zone(name: str, zone: object) -> str:
    try:
        return ZoneInfo(str(zone)).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ConfigError(
            f"timezone of the schedule {name!r}, {zone!r}, is unknown; write it as Europe/Berlin"
        ) from exc
