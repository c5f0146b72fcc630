"""What a client and an operator do alike: with workers, queues and schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..codec import Codec
from ..errors import ConfigError, SdkError
from ..ids import check_name_of
from ..messages import (
    ListQueues,
    ListSchedules,
    ListWorkers,
    NewRun,
    PauseQueue,
    PauseSchedule,
    RemoveSchedule,
    SetQueues,
    SetSchedules,
    StartRuns,
)
from ..types import Queue, QueueInfo, ScheduleInfo, WorkerInfo
from .asking import Asking
from .queues import checked_queue
from .schedules import Schedule, revealed, slot_run, stored
from .slots import moment, next_slot, slots

BACKFILL_BATCH = 500
"""Slots that are started in one commit."""


class Fleet(Asking):
    """Verbs that are about no instance in particular."""

    _codec: Codec
    _only_of: str | None = None
    """The tenant whose schedules are reached; None: all."""

    async def list_workers(self) -> tuple[WorkerInfo, ...]:
        """The workers that live, of any tenant."""
        return (await self._request(ListWorkers())).workers

    # ---- queues

    async def set_queue(self, queue: Queue) -> None:
        """Store what a queue allows, in place of what is stored. It counts for all workers, from
        their next claim on. Raises ConfigError."""
        await self._request(SetQueues(queues=(checked_queue(queue),)))

    async def pause_queue(self, name: str) -> None:
        """Have no worker claim from a queue; runs that have begun go on.

        Args:
          name: of the queue.
        """
        name = check_name_of("queue", name)
        await self._request(PauseQueue(name=name, paused=True))

    async def resume_queue(self, name: str) -> None:
        """Have workers claim from a queue again.

        Args:
          name: of the queue.

        Raises:
          SdkError: it is unknown.
        """
        name = check_name_of("queue", name)
        await self._request(PauseQueue(name=name, paused=False))

    async def list_queues(self) -> tuple[QueueInfo, ...]:
        """The queues that are stored, and those that have something ready; by name."""
        return (await self._request(ListQueues())).queues

    # ---- schedules

    async def set_schedule(self, schedule: Schedule) -> None:
        """Store a schedule, in place of what is stored under its name. Where its line has changed,
        no slot of the past is run. Raises ConfigError."""
        info = stored(schedule, self._codec, self._now())
        if self._only_of not in (None, info.tenant_id):
            raise ConfigError(
                f"the schedule {info.name!r} is of tenant {info.tenant_id!r}, and this client of "
                f"{self._only_of!r}; open one of its tenant, or use an Operator"
            )
        await self._request(SetSchedules(schedules=(info,)))

    async def list_schedules(self) -> tuple[ScheduleInfo, ...]:
        """The schedules that are stored, by name."""
        return tuple(revealed(one, self._codec) for one in await self._schedules())

    async def _schedules(self) -> tuple[ScheduleInfo, ...]:
        found = (await self._request(ListSchedules())).schedules
        return tuple(one for one in found if self._only_of in (None, one.tenant_id))

    async def pause_schedule(self, name: str) -> None:
        """Run no slot of a schedule, until it is resumed.

        Args:
          name: of the schedule.

        Raises:
          SdkError: it is unknown.
        """
        await self._schedule(name)
        await self._request(PauseSchedule(name=name, paused=True))

    async def resume_schedule(self, name: str) -> None:
        """Run the slots of a schedule again, from the next one on.

        Args:
          name: of the schedule.

        Raises:
          SdkError: it is unknown.
        """
        next_ms = next_slot(await self._schedule(name), int(self._now() * 1000))
        await self._request(PauseSchedule(name=name, paused=False, next_ms=next_ms))

    async def remove_schedule(self, name: str) -> None:
        """Forget a schedule; what it has started stays. A worker that declares it stores it again
        at its next start.

        Args:
          name: of the schedule.

        Raises:
          SdkError: it is unknown.
        """
        await self._schedule(name)
        await self._request(RemoveSchedule(name=name))

    async def trigger_schedule(self, name: str) -> str:
        """Start a run of a schedule now, beside its slots. The id of the instance.

        Args:
          name: of the schedule.

        Raises:
          SdkError: it is unknown.
        """
        schedule = await self._schedule(name)
        run = slot_run(schedule, int(self._now() * 1000), self._codec)
        await self._start_slots(schedule, [run])
        return run.instance_id

    async def backfill(
        self,
        name: str,
        begin: datetime,
        end: datetime,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Start the runs of the slots from ``begin`` to ``end``, both included, the oldest first;
        those that were started before are left. In batches of one commit each.

        Args:
          name: of the schedule.
          begin, end: aware.
          progress: called after each batch with the number so far.

        Returns the number of slots.

        Raises:
          SdkError: the schedule is unknown.
          ConfigError: a naive time.
        """
        for what, given in (("begin", begin), ("end", end)):
            if not isinstance(given, datetime) or given.tzinfo is None:
                raise ConfigError(f"{what} must be a time with its zone, not {given!r}")
        schedule = await self._schedule(name)
        until_ms = int(end.timestamp() * 1000)
        count = 0
        batch: list[NewRun] = []
        for slot in slots(schedule, int(begin.timestamp() * 1000) - 1):
            if slot <= until_ms:
                batch.append(slot_run(schedule, slot, self._codec))
            if batch and (slot > until_ms or len(batch) == BACKFILL_BATCH):
                await self._start_slots(schedule, batch)
                count += len(batch)
                batch = []
                if progress is not None:
                    progress(count)
            if slot > until_ms:
                break
        return count

    async def next_slots(self, name: str, count: int = 10) -> tuple[datetime, ...]:
        """The next slots of a schedule, in its time zone.

        Args:
          name: of the schedule.
          count: how many; fewer where it ends.

        Raises:
          SdkError: it is unknown.
        """
        schedule = await self._schedule(name)
        after = max(int(self._now() * 1000), schedule.next_ms - 1)
        found = slots(schedule, after)
        return tuple(moment(schedule, slot) for slot, _ in zip(found, range(count), strict=False))

    async def _start_slots(self, schedule: ScheduleInfo, runs: list[NewRun]) -> None:
        await self._request(StartRuns(tenant_id=schedule.tenant_id, runs=tuple(runs)))

    async def _schedule(self, name: str) -> ScheduleInfo:
        name = check_name_of("the name of a schedule", name)
        for one in await self._schedules():
            if one.name == name:
                return one
        raise SdkError(f"there is no schedule {name!r}; 'schedules list' shows those there are")
